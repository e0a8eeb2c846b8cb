"""Whether progress is shown: bars, counters, and lines that say what is waited for."""

import contextlib
import os
from collections.abc import Iterator

_NAME = "FLAX_RESNETS_QUIET"


def is_quiet() -> bool:
    """Whether no progress is to be shown, because of `--quiet` or `FLAX_RESNETS_QUIET=1`. Results and notes remain."""
    return os.environ.get(_NAME, "") not in ("", "0")


@contextlib.contextmanager
def quiet(asked: bool) -> Iterator[None]:
    """Shows no progress inside the block if that is asked; processes that are started in it inherit this.

    Example:
        >>> with quiet(True):
        ...     is_quiet()
        True
    """
    before = os.environ.get(_NAME)
    if asked:
        os.environ[_NAME] = "1"
    try:
        yield
    finally:
        if asked:
            os.environ.pop(_NAME)
            os.environ.update({} if before is None else {_NAME: before})
