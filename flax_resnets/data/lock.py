"""One process at a time in a directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Waits for the directory's lock and holds it inside the `with` block.

    The directory itself is locked, so no lock file is left behind; the system lets go of it when a process is killed.

    Args:
        directory: an existing directory.

    Yields:
        False where the filesystem knows no locks (some network ones): another process may then be at work as well.

    Example:
        >>> with locked(Path(".")) as alone:
        ...     alone
        True
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        alone = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)
