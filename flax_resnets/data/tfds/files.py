"""What is said of record files that cannot be used."""

import os
from pathlib import Path

from flax_resnets.errors import UserError


def unreadable(path: str | os.PathLike[str], error: OSError) -> UserError:
    """The error for a file that cannot be opened."""
    return UserError(f"record file {os.fspath(path)}: {error.strerror}")


def damaged(path: Path, found: int, examples: int, problem: str = "") -> UserError:
    """The error for a file in which fewer or more records are found than the metadata says."""
    return UserError(
        f"record file {path}: damaged or cut short, {found} of its {examples} records can be found"
        f"{problem and f' ({problem})'}; delete its directory to have the dataset prepared again"
    )
