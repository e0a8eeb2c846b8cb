"""Output files of commands: makes the directory, finds names that are not taken, and writes files as a whole."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flax_resnets.errors import UserError


def make_directory(command: str, directory: Path) -> None:
    """Makes the directory of a command's `--output`, unless it exists.

    Raises:
        UserError: the directory cannot be made or cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{command}: --output={directory}: {reason}; name a directory to write") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(f"{command}: --output={directory}: Permission denied; name a directory to write")


def free_names(name: str) -> Iterator[str]:
    """Endless names to try one after the other, so that no earlier file is overwritten.

    Example:
        >>> from itertools import islice
        >>> list(islice(free_names("lr_find"), 3))
        ['lr_find', 'lr_find-2', 'lr_find-3']
    """
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def is_file_or_new(path: Path) -> bool:
    """Whether there is a regular file, or nothing; a device, a pipe or a directory must not be replaced."""
    return os.path.isfile(path) or not os.path.lexists(path)


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yields a path to write to. When the block ends, the file there gets the name `target`.

    After an error nothing is left, and a file that was at `target` is unchanged. No other file is touched: the path is
    in a temporary directory beside `target`.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    directory = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=target.parent))
    try:
        temporary = directory / target.name
        yield temporary
        os.replace(temporary, target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
