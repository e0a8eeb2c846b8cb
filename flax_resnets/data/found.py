"""What kind of dataset lies in a directory, for messages to those who named another kind."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from flax_resnets.data.file_names import is_hidden, is_picture

_FIRST = 1000  # entries of a directory that are looked at


class Found(NamedTuple):
    """Data of people's own.

    Attributes:
        dataset: the configuration's word for their kind: `folder`, `parquet` or `npz`.
        what: the kind in words.
        example: path of one of its files.
    """

    dataset: str
    what: str
    example: Path


def found_in(directory: Path) -> Found | None:
    """The data in a directory; None if there are none, or it cannot be listed.

    Only its first entries, and those of its first directories, are looked at, and none of the hidden ones.
    """
    for dataset, what, files in (
        ("npz", "arrays", _ending(".npz", directory)),
        ("parquet", "parquet files", _ending(".parquet", directory, directory / "data", directory / "train")),
        ("folder", "a list of pictures", filter(os.path.isfile, [directory / "images.csv"])),
        ("folder", "pictures", itertools.chain(_pictures(directory), _pictures(directory / "train"))),
    ):
        if (example := next(iter(files), None)) is not None:
            return Found(dataset, what, example)
    return None


def other_kind(directory: Path, dataset: str) -> str:
    """Says which dataset reads what lies in a directory; empty if nothing does, or the one that was named.

    Args:
        directory: where data were looked for.
        dataset: the configuration's word for their kind.
    """
    found = found_in(directory)
    return f"it has {found.what}: dataset={found.dataset} reads them" if found and found.dataset != dataset else ""


def _first(directory: Path) -> list[Path]:
    """The first entries of a directory that are not hidden; none if it cannot be listed."""
    try:
        with os.scandir(directory) as entries:
            return [directory / each.name for each in itertools.islice(entries, _FIRST) if not is_hidden(each.name)]
    except OSError:
        return []


def _ending(ending: str, *directories: Path) -> Iterator[Path]:
    return (path for directory in directories for path in _first(directory) if path.name.endswith(ending))


def _pictures(root: Path) -> Iterator[Path]:
    """Pictures in the first directories in this one, but for TFDS's own downloads."""
    directories = (path for path in _first(root) if path.name != "downloads" and os.path.isdir(path))
    for directory in itertools.islice(directories, 30):
        yield from (path for path in _first(directory) if is_picture(path.name))
