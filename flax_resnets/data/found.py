"""What kind of dataset lies in a directory, for messages to those who named another kind; and what a picture is."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# What a picture's file is recognised by. Those that `decode` cannot read are reported as broken, not passed over.
_ENDINGS = frozenset(
    [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "gif",
        "bmp",
        "webp",
        "tif",
        "tiff",
        "heic",
        "heif",
        "avif",
        "jp2",
        "jxl",
        "ppm",
    ]
)
# Besides names that begin with a dot, what operating systems leave in folders.
_HIDDEN = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db", "desktop.ini")
)
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


def is_picture(name: str) -> bool:
    """Whether a file's ending is that of an image.

    Example:
        >>> is_picture("IMG_1.JPG"), is_picture("notes.txt")
        (True, False)
    """
    return name.rpartition(".")[2].lower() in _ENDINGS


def is_hidden(name: str) -> bool:
    """Whether a file or directory is left out: a hidden one, or what an operating system leaves in folders.

    Example:
        >>> is_hidden(".thumbnails"), is_hidden("@eaDir"), is_hidden("cats")
        (True, True, False)
    """
    return name.startswith(".") or name in _HIDDEN


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
