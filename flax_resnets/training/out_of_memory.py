"""Turns a device's lack of memory into a `UserError`."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from flax_resnets.errors import UserError


@contextmanager
def out_of_memory(cause: str, remedy: str) -> Iterator[None]:
    """Turns an out-of-memory error of a device into a `UserError` that names its cause.

    Args:
        cause: the field and its value, such as `batch_size=4096`.
        remedy: what would need less memory.

    Raises:
        UserError: in place of XLA's out-of-memory error, whose message it contains. Other errors of XLA are not
        changed.

    Example:
        >>> with out_of_memory("batch_size=64", "take fewer"):
        ...     raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        Traceback (most recent call last):
        ...
        flax_resnets.errors.UserError: batch_size=64: out of the device's memory (Out of memory); take fewer
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        status, _, words = str(error).partition("\n")[0].partition(": ")
        if status != "RESOURCE_EXHAUSTED":
            raise
        raise UserError(f"{cause}: out of the device's memory ({words.rstrip('.')}); {remedy}") from error
