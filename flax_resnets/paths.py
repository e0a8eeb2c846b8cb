"""Paths that a user wrote, and the directory of all caches."""

import os
from pathlib import Path

from flax_resnets.errors import UserError
from flax_resnets.storage import bucket_path, is_url


def expanded(path: str | os.PathLike[str], named: str, buckets: bool = False) -> Path:
    """Expands `~` to the user's home directory and `~name` to that user's. A shell leaves `--workdir=~/runs` as it is.

    Args:
        path: the path as the user wrote it.
        named: the flag, field or variable that holds it, for the message.
        buckets: whether it may be `gs://BUCKET/PATH`; see `flax_resnets.storage`.

    Raises:
        UserError: there is no such user. A directory whose name begins with `~` is written `./~name`. Or the path is a
            URL that is not served here, or empty.

    Example:
        >>> expanded("runs/mine", "--workdir")
        PosixPath('runs/mine')
    """
    if not os.fspath(path):  # pathlib would take the current directory
        raise UserError(f"{named}=: needs a value")
    if is_url(path):
        if not buckets:
            raise UserError(f"{named}={path}: must be on this machine, no URL")
        return bucket_path(path, named)
    text = os.path.expanduser(path)
    if text.startswith("~") and not os.path.lexists(text):
        raise UserError(f"{named}={path}: there is no such user; a name that begins with ~ is written ./~")
    # `Path` drops the `./` of `./~name`, which would then be taken for a user's directory by whoever expands it again.
    return Path(os.path.abspath(text) if str(Path(text)).startswith("~") else text)


def in_the_way(directory: Path) -> Path | None:
    """What keeps a directory from being made or written: itself, or the nearest path above it that is there.

    Returns:
        None if nothing does.

    Example:
        >>> in_the_way(Path("/dev/null/run")), in_the_way(Path("runs/mine"))
        (PosixPath('/dev/null'), None)
    """
    there = next(path for path in (directory, *directory.parents) if os.path.lexists(path) or "\0" in str(path))
    return None if os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK) else there


def cache_root() -> Path:
    """The directory of all caches: `$FLAX_RESNETS_CACHE`, or a directory in the user's cache directory."""
    if root := os.environ.get("FLAX_RESNETS_CACHE"):
        return expanded(root, "FLAX_RESNETS_CACHE")
    parent = os.environ.get("XDG_CACHE_HOME")
    return (expanded(parent, "XDG_CACHE_HOME") if parent else Path(os.path.expanduser("~/.cache"))) / "flax_resnets"
