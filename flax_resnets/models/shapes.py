"""The shapes of a network's variables, without computing them."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnets.models.resnet import ResNet

_ANY_SIDE = 32  # in pixels, of the images for a network whose variables do not depend on it


def variable_shapes(model: nn.Module, image_shape: Sequence[int]) -> Mapping[str, Any]:
    """The tree that `model.init` returns, with `jax.ShapeDtypeStruct` in place of arrays.

    The network is traced, which takes a ResNet-50 half a second. So the trees of networks traced last are kept.

    Args:
        model: any network.
        image_shape: `(H, W, C)` of the images.

    Raises:
        ValueError, TypeError, ZeroDivisionError, OverflowError: the network does not take images of this shape.

    Example:
        >>> from flax_resnets import create_model
        >>> variable_shapes(create_model("resnet18"), (64, 64, 3))["params"]["stem_conv"]["kernel"].shape
        (7, 7, 3, 64)
    """
    sides = (_ANY_SIDE, _ANY_SIDE) if isinstance(model, ResNet) else tuple(image_shape[:2])
    shape = (1, *sides, *image_shape[2:])
    return (_traced if is_hashable(model) else _traced.__wrapped__)(model, shape)


def is_hashable(model: nn.Module) -> bool:
    """Whether results for this network can be kept; not if an attribute of a network of one's own is a list."""
    try:
        hash(model)
    except TypeError:
        return False
    return True


@lru_cache(maxsize=32)
def _traced(model: nn.Module, shape: tuple[int, ...]) -> Mapping[str, Any]:
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return cast(Mapping[str, Any], jax.eval_shape(model.init, jax.random.key(0), images))
