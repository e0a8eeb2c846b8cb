"""A lock on a directory: one process at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(directory: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the directory's lock inside the `with` block.

    The directory itself is locked, so there is no lock file. The system releases the lock when the process is killed.

    Args:
        directory: an existing directory.
        wait: whether to wait for another process to release the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.

    Yields:
        True; or False if the filesystem has no locks, as some network filesystems: then other processes may enter too.

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
