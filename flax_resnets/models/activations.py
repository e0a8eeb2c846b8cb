"""Statistics of a network's activations: mean, standard deviation and share near zero of each layer's output."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

NEAR_ZERO = 0.05
"""Magnitude up to which an activation counts as near zero, as in fastai's `ActivationStats`."""


class LayerStatistics(NamedTuple):
    """Figures of one layer's output over images, positions and channels.

    A layer whose standard deviation is close to 0, or whose outputs are nearly all near zero, passes little on. Howard
    and Gugger, *Deep Learning for Coders with fastai and PyTorch*, chapter 13, "Improving Training Stability", watch
    these three figures during training.

    Attributes:
        mean: mean of the activations.
        std: their standard deviation.
        near_zero: share of them whose magnitude is at most 0.05, 0 to 1.
    """

    mean: float
    std: float
    near_zero: float


def layer_statistics(model: nn.Module, variables: Mapping[str, Any], images: jax.Array) -> dict[str, jax.Array]:
    """The figures of each layer that `method="layers"` gives; call it inside `jax.jit`.

    Norms use their running statistics, as in evaluation.

    Args:
        model: a network of `flax_resnets`.
        variables: its `params` and `batch_stats`.
        images: `(N, H, W, C)`, normalised.

    Returns:
        For each layer float32 `(3,)`, the fields of `LayerStatistics`. Under `jax.jit` it is sorted by name.

    Example:
        >>> from flax_resnets import create_model
        >>> model = create_model("lenet", num_classes=10)
        >>> images = jnp.ones((2, 28, 28, 1))
        >>> variables = model.init(jax.random.key(0), images)
        >>> figures = layer_statistics(model, variables, images)
        >>> sorted(figures) == sorted(model.apply(variables, images, method="layers")), figures["conv1"].shape
        (True, (3,))
    """
    layers = cast(dict[str, jax.Array], model.apply(variables, images, train=False, method="layers"))

    def figures(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        return jnp.stack([x.mean(), x.std(), (jnp.abs(x) <= NEAR_ZERO).mean()])

    return {name: figures(x) for name, x in layers.items()}


def layer_shapes(
    model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, ...]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the outputs of a network's layers, in their order. Nothing is computed.

    Args:
        model: a network of `flax_resnets`.
        variables: its `params` and `batch_stats`, or their shapes.
        image_shape: `(N, H, W, C)`.

    Example:
        >>> from flax_resnets import create_model
        >>> model = create_model("lenet", num_classes=10)
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
        >>> list(layer_shapes(model, variables, (1, 28, 28, 1)).items())[:2]
        [('conv1', (1, 28, 28, 6)), ('pool1', (1, 14, 14, 6))]
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def trace(variables: Any, images: jax.Array) -> None:
        # Here, because a dict that leaves the trace is sorted by name.
        layers = cast(dict[str, jax.Array], model.apply(variables, images, train=False, method="layers"))
        shapes.update((name, y.shape) for name, y in layers.items())

    jax.eval_shape(trace, variables, jax.ShapeDtypeStruct(image_shape, jnp.float32))
    return shapes
