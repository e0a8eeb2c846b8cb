"""Paths that a user wrote, and the directory of all caches."""

import os
from pathlib import Path

from flax_resnets.errors import UserError


def expanded(path: str | os.PathLike[str], named: str) -> Path:
    """Expands `~` to the user's home directory and `~name` to that user's. A shell leaves `--workdir=~/runs` as it is.

    Args:
        path: the path as the user wrote it.
        named: the flag, field or variable that holds it, for the message.

    Raises:
        UserError: there is no such user. A directory whose name begins with `~` is written `./~name`.

    Example:
        >>> expanded("runs/mine", "--workdir")
        PosixPath('runs/mine')
    """
    text = os.path.expanduser(path)
    if text.startswith("~") and not os.path.lexists(text):
        raise UserError(f"{named}={path}: there is no such user; a name that begins with ~ is written ./~")
    return Path(text)


def cache_root() -> Path:
    """The directory of all caches: `$FLAX_RESNETS_CACHE`, or a directory in the user's cache directory."""
    if root := os.environ.get("FLAX_RESNETS_CACHE"):
        return expanded(root, "FLAX_RESNETS_CACHE")
    parent = os.environ.get("XDG_CACHE_HOME")
    return (expanded(parent, "XDG_CACHE_HOME") if parent else Path(os.path.expanduser("~/.cache"))) / "flax_resnets"
