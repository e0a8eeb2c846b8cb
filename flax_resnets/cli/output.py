"""Where a command leaves its files: a directory made in time, and names that nothing has yet."""

import os
from collections.abc import Iterator
from pathlib import Path

from flax_resnets.errors import UserError


def make_directory(command: str, directory: Path) -> None:
    """Makes the directory of a command's `--output`, unless it is there.

    Raises:
        UserError: it cannot be made, or not be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter of a name with a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{command}: --output={directory}: {reason}; name a directory to write") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UserError(f"{command}: --output={directory}: Permission denied; name a directory to write")


def free_names(name: str) -> Iterator[str]:
    """Names to try one after the other, so that no earlier file is lost; they do not end.

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
