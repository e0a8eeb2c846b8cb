"""Writing files atomically."""

import os
from pathlib import Path

from flax_resnets import storage
from flax_resnets.training.lease import check_held


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file atomically: it has the old content or the new, even after a kill or on a full disk.

    Args:
        path: of the file; an existing file is replaced.
        content: the whole new content.

    Raises:
        OSError: the file cannot be written; the old file is unchanged and no other file is left behind.
    """
    if storage.is_bucket(path):
        check_held(path)
        storage.write(path, content)
        return
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # otherwise the file may be empty after a power cut
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_of(path: Path) -> Path:
    """The temporary file to which `write_whole` writes the content first."""
    return path.with_name(f"{path.name}.tmp")
