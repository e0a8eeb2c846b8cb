"""Which parameters weight decay applies to."""

from collections.abc import Callable
from typing import Any

import jax


def decayed(config: Any) -> Callable[[Any], Any] | None:
    """Optax's mask for weight decay: `kernels`, or None (every parameter) with `decay_all`.

    Example:
        >>> from types import SimpleNamespace
        >>> import jax.numpy as jnp
        >>> mask = decayed(SimpleNamespace(decay_all=False))
        >>> mask({"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)})
        {'bias': False, 'kernel': True}
    """
    return None if config.decay_all else kernels


def kernels(params: Any) -> Any:
    """True for parameters of two or more dimensions; False for biases and the scales of norms."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def everything(params: Any) -> Any:
    """True for each parameter."""
    return jax.tree.map(lambda _: True, params)
