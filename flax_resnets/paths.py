"""Paths as a user writes them."""

import os
from pathlib import Path

from flax_resnets.errors import UserError


def expanded(path: str | os.PathLike[str], named: str) -> Path:
    """The path with `~` as the user's home, and `~name` as that user's: a shell leaves it in `--workdir=~/runs`.

    Args:
        path: as it was written.
        named: the flag, field or variable that has it.

    Raises:
        UserError: there is no such user; a directory named `~name` is not what was meant.

    Example:
        >>> expanded("runs/mine", "--workdir")
        PosixPath('runs/mine')
    """
    text = os.path.expanduser(path)
    if text.startswith("~") and not os.path.lexists(text):
        raise UserError(f"{named}={path}: there is no such user; a name that begins with ~ is written ./~")
    return Path(text)
