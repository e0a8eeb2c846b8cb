"""Checks of the attributes of networks. They run when a network is made, not when it is first applied."""

from typing import Any

import jax.numpy as jnp


def check_outputs(num_classes: Any, dtype: Any) -> None:
    """Raises ValueError unless a network can have this number of classes and compute in this dtype.

    Example:
        >>> check_outputs(10, "bf16")
        Traceback (most recent call last):
        ...
        ValueError: dtype='bf16': must be a float dtype, such as jnp.float32 or jnp.bfloat16
    """
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
        raise ValueError(f"num_classes={num_classes!r}: must be a whole number, 0 for pooled features")
    try:
        is_float = dtype is not None and jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float:
        raise ValueError(f"dtype={dtype!r}: must be a float dtype, such as jnp.float32 or jnp.bfloat16")


def check_share(name: str, value: Any) -> None:
    """Raises ValueError unless the value is a share (at least 0, below 1) of what a layer drops.

    Args:
        name: name of the attribute, for the message.
        value: its value.
    """
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}={value!r}: must be at least 0 and below 1")


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """Raises ValueError unless the value is a whole number from `least` to 65536.

    Args:
        name: name of the attribute, for the message.
        value: its value.
        least: the smallest value that is allowed, 0 or 1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 2**16:
        lowest = "above 0" if least else "0 or above"
        raise ValueError(f"{name}={value!r}: must be a whole number {lowest} and up to 65536")
