"""Files that are whole at every moment."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, a kill or a full disk finds the old content or the new, nothing between.

    Args:
        path: of the file; what is there is replaced.
        content: all of it.

    Raises:
        OSError: it cannot be written; what was there is still there, and nothing else.
    """
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or after a power cut the new name may stand for an empty file
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def temporary_of(path: Path) -> Path:
    """Where `write_whole` writes a file's content before it is whole."""
    return path.with_name(f"{path.name}.tmp")
