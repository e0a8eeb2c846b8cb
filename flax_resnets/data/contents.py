"""What a split holds: images of each class, their sizes, damaged and repeated ones."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from flax_resnets.data.cache import decoded_blocks
from flax_resnets.data.labels import Label, class_counts, is_multilabel, is_real, new_labels
from flax_resnets.data.source import Source
from flax_resnets.data.statistics import MOST_IMAGES, PixelStatistics, evenly_spaced, of_pixels
from flax_resnets.errors import UserError
from flax_resnets.machine import cores

_TASK = 256  # records that a thread takes at a time


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """What a split holds.

    Attributes:
        labels: int32 `(N,)` or int8 `(N, classes)`; −1 for an image whose record cannot be read.
        class_counts: number of images of each class.
        shorter_side, longer_side: the smallest, the median and the largest side of the images, in pixels, as their
            files' headers say; None if no header can be read.
        broken: a message for each image that is known to be damaged. If `checked`, all images were decoded; otherwise
            only their headers were read.
        checked: see `broken`.
        files: the hash of each image's file; empty for a record that cannot be read.
    """

    labels: np.ndarray
    class_counts: tuple[int, ...]
    shorter_side: tuple[int, int, int] | None
    longer_side: tuple[int, int, int] | None
    broken: tuple[str, ...]
    checked: bool
    files: tuple[bytes, ...]

    @property
    def labels_per_image(self) -> tuple[int, float, int] | None:
        """The smallest, the mean and the largest number of an image's classes; None if each image has one."""
        if not is_multilabel(self.labels):
            return None
        counts = self.labels[is_real(self.labels)].sum(1, dtype=np.int64)
        return (int(counts.min()), float(counts.mean()), int(counts.max())) if len(counts) else (0, 0.0, 0)

    @functools.cached_property
    def _first(self) -> dict[bytes, int]:
        """The index of the first image with each content."""
        return {file: index for index, file in reversed(list(enumerate(self.files))) if file}

    @property
    def repeated(self) -> list[tuple[int, int]]:
        """The images that are copies of another one, byte by byte: their indices, and that of the first of its kind."""
        return [(copy, first) for copy, first in self.also_in(self) if copy != first]

    def also_in(self, other: "Contents") -> list[tuple[int, int]]:
        """The images that are also in another split, byte by byte: their indices here, and that of the first there."""
        return [(index, other._first[file]) for index, file in enumerate(self.files) if file in other._first]


class _Record(NamedTuple):
    label: Label = -1
    size: tuple[int, int] | None = None
    file: bytes = b""
    broken: str = ""


def contents_of(source: Source, check: bool = False, progress: Callable[[int], None] = lambda done: None) -> Contents:
    """Reads all records of a split, on all CPU cores.

    Args:
        source: the split.
        check: whether to decode every image, in order to find damaged ones.
        progress: is called with the number of images read.

    Example:
        >>> from flax_resnets.data.source import open_source
        >>> contents = contents_of(open_source("fashion_mnist_sample", "validation"))
        >>> contents.class_counts[:3], contents.longer_side, contents.repeated
        ((100, 100, 100), (28, 28, 28), [])
    """

    def read(start: int) -> list[_Record]:
        return [_read(source, index, check) for index in range(start, min(start + _TASK, len(source)))]

    records: list[_Record] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(cores()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded by Pillow here
        for read_records in pool.map(read, range(0, len(source), _TASK)):
            records += read_records
            progress(len(records))
    sides = np.array([sorted(record.size) for record in records if record.size]).reshape(-1, 2)
    labels = new_labels(source, len(records))
    for row, record in enumerate(records):
        labels[row] = record.label
    shorter, longer = (_least_median_most(column) for column in sides.T)
    return Contents(
        labels=labels,
        class_counts=class_counts(labels[is_real(labels)], source.num_classes),
        shorter_side=shorter,
        longer_side=longer,
        broken=tuple(record.broken for record in records if record.broken),
        checked=check,
        files=tuple(record.file for record in records),
    )


def _read(source: Source, index: int, check: bool) -> _Record:
    try:
        encoded, label = source.example(index)
    except UserError as error:
        return _Record(broken=str(error))
    size = None
    # Pillow raises exceptions of many classes. What is wrong with the image is found out below.
    with contextlib.suppress(Exception), Image.open(io.BytesIO(encoded)) as image:
        size = image.size
    broken = ""
    if check or size is None:
        try:
            height, width, _ = source.image(index).shape
            size = size or (width, height)  # Pillow alone does not know all kinds of files
        except UserError as error:
            broken = str(error)
    return _Record(label, size, hashlib.blake2b(encoded, digest_size=16).digest(), broken)


def _least_median_most(sides: np.ndarray) -> tuple[int, int, int] | None:
    return (int(sides.min()), int(np.median(sides)), int(sides.max())) if len(sides) else None


def sampled_statistics(
    source: Source, size: int, resize: str, progress: Callable[[int], None] = lambda done: None
) -> tuple[PixelStatistics | None, tuple[str, ...]]:
    """Mean and standard deviation of a split's pixels, as a run with these images computes them.

    Args:
        source: the split.
        size: height and width to which the images are resized.
        resize: see `cached_images`.
        progress: is called with the number of images read.

    Returns:
        The statistics of the images that can be decoded, None if there are none; and a message for each that cannot.
    """
    broken: list[str] = []

    def whole() -> Iterator[np.ndarray]:
        indices = evenly_spaced(len(source), MOST_IMAGES)
        for images, _, messages in decoded_blocks(source, indices, size, resize, lambda done, _: progress(done)):
            broken.extend(messages)
            if len(images):
                yield images

    blocks = whole()
    first = next(blocks, None)
    statistics = None if first is None else of_pixels(itertools.chain([first], blocks))
    return statistics, tuple(broken)
