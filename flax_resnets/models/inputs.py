"""Mistakes in what a network is called with. They are found while the call is traced, at no cost to the program."""

import warnings

import jax
import jax.numpy as jnp
from flax import linen as nn

_MOST_CHANNELS, _LEAST_SIDE = 4, 16


def check_call(network: nn.Module, x: jax.Array, train: bool) -> None:
    """Checks the images, and whether the call can be meant as it is. Each network calls this first.

    Nothing is known of the pixels yet. Floats of 0 to 255, which are not normalised, pass.

    Args:
        network: that is called.
        x: the images.
        train: of the call.

    Raises:
        ValueError: the images have no batch axis, or are none.

    Warns:
        UserWarning: the images are integers; they look as if they had their channels before height and width; or the
            network is to update its running statistics, but is not in training.

    Example:
        >>> check_call(nn.Dense(1), jnp.zeros((28, 28, 1)), train=False)
        Traceback (most recent call last):
        ...
        ValueError: images of shape (28, 28, 1): must be (N, H, W, C); of a single image give x[None]
    """
    shape, dtype = jnp.shape(x), jnp.result_type(x)
    if len(shape) != 4:
        one = "; of a single image give x[None]" if len(shape) == 3 else ""
        raise ValueError(f"images of shape {shape}: must be (N, H, W, C){one}")
    if any(isinstance(side, int) and side == 0 for side in shape):
        raise ValueError(f"images of shape {shape}: must be at least one image, of at least one pixel")
    if not jnp.issubdtype(dtype, jnp.floating):
        warnings.warn(
            f"images of dtype {dtype} are taken as they are; networks here take normalised floats, such as "
            "(x / 255 - mean) / std of pixels of 0 to 255",
            stacklevel=2,
        )
    first, *others = shape[1:]
    if all(isinstance(side, int) for side in shape) and first <= _MOST_CHANNELS and min(others) >= _LEAST_SIDE:
        warnings.warn(
            f"images of shape {shape} are {first} pixels high and have {shape[3]} channels; networks here take "
            "(N, H, W, C). If yours are (N, C, H, W), give x.transpose(0, 2, 3, 1)",
            stacklevel=2,
        )
    if not train and _updates_statistics(network):
        warnings.warn(
            "batch_stats is mutable, but train=False: the norms use the running statistics and leave them as they are. "
            "A training step needs train=True",
            stacklevel=2,
        )


def _updates_statistics(network: nn.Module) -> bool:
    """Whether the caller of this network asks for new running statistics.

    A part of a larger network may well be at rest while the rest trains. And `mutable=True`, or a filter without this
    name, may be meant for other collections.
    """
    scope = network.scope
    if scope is None or scope.path or network.is_initializing() or "batch_stats" not in network.variables:
        return False
    named = scope.mutable
    return named == "batch_stats" or (isinstance(named, list | tuple | set | frozenset) and "batch_stats" in named)
