"""Output files of commands: makes the directory, and finds names that are not taken."""

import os
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
