"""What kind of dataset lies in a directory, for messages to those who named another kind."""

import itertools
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
    """The data in a directory; None if there are none. Only its first entries, and theirs, are looked at."""
    for dataset, what, files in (
        ("npz", "arrays", directory.glob("*.npz")),
        ("parquet", "parquet files", itertools.chain(directory.glob("*.parquet"), directory.glob("data/*.parquet"))),
        ("folder", "pictures", itertools.chain(_pictures(directory), _pictures(directory / "train"))),
    ):
        if (example := next(iter(files), None)) is not None:
            return Found(dataset, what, example)
    return None


def is_picture(name: str) -> bool:
    """Whether a file's ending is that of an image.

    Example:
        >>> is_picture("IMG_1.JPG"), is_picture("notes.txt")
        (True, False)
    """
    return name.rpartition(".")[2].lower() in _ENDINGS


def _pictures(root: Path) -> Iterator[Path]:
    """Pictures among the first entries of the first directories in this one, but for TFDS's own downloads."""
    for directory in itertools.islice(root.glob("*/"), 30):
        if directory.name != "downloads":
            yield from (path for path in itertools.islice(directory.glob("*"), 30) if is_picture(path.name))
