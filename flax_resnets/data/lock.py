"""One process at a time in a directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(directory: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the directory's lock inside the `with` block.

    The directory itself is locked, so no lock file is left behind; the system lets go of it when a process is killed.

    Args:
        directory: an existing directory.
        wait: for another process to let go of it.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.

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
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            alone = False
        yield alone
    finally:
        os.close(descriptor)
