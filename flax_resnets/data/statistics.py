"""Numbers of a whole split: mean and deviation of its pixels, images of each class, images of another split too."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from flax_resnets.data.batches import Split
from flax_resnets.errors import UserError

MOST_IMAGES = 10_000
"""The most images from which mean and standard deviation are computed."""


class PixelStatistics(NamedTuple):
    """Mean and standard deviation of all pixels, for each channel, on the scale 0 to 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def pixel_statistics(split: Split, progress: Callable[[int], None] = lambda done: None) -> PixelStatistics:
    """Mean and standard deviation of a split's pixels, at the size at which the split holds its images.

    They are those of all images, or of `MOST_IMAGES` that are evenly spaced in the split's order. The sums are exact,
    so the result is the same for cached and streamed images, on any number of threads and processes.

    Args:
        split: the training split.
        progress: is called with the number of images read.

    Raises:
        UserError: all pixels of a channel are equal, or an image cannot be decoded.
    """
    done = 0

    def told(blocks: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        nonlocal done
        for block in blocks:
            yield block
            done += len(block)
            progress(done)

    with contextlib.closing(split.read(evenly_spaced(len(split), MOST_IMAGES))) as batches:
        statistics = of_pixels(told(batch.images for batch in batches))
    for channel, std in enumerate(statistics.std):
        if std <= 1e-6:
            raise UserError(
                f"std=none: all pixels of the training images are equal in channel {channel}, so there is nothing to "
                "divide by; give mean and std"
            )
    return statistics


def evenly_spaced(images: int, most: int) -> np.ndarray:
    """The indices of up to `most` images at even distances: all of them if there are no more.

    Returns:
        int64, rising.

    Example:
        >>> evenly_spaced(3, most=5).tolist(), evenly_spaced(10, most=4).tolist()
        ([0, 1, 2], [0, 2, 5, 7])
    """
    count = min(images, most)
    return np.arange(count) * images // max(count, 1)


def of_pixels(blocks: Iterable[np.ndarray]) -> PixelStatistics:
    """Mean and standard deviation of all pixels in some blocks of images, for each channel.

    Args:
        blocks: uint8 `(N, H, W, C)`, C being 1 or 3; at least one.

    Example:
        >>> of_pixels([np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)])
        PixelStatistics(mean=(0.5,), std=(0.5,))
    """
    counts = sum(_histograms(block) for block in blocks)
    values = np.arange(256)
    mean, std = [], []
    for of_channel in np.asarray(counts, np.uint64):
        # Python's whole numbers have no limit, and a quotient of two of them is rounded once.
        number, first, second = (int(of_channel @ (values**power).astype(np.uint64)) for power in (0, 1, 2))
        mean.append(first / (255 * number))
        std.append(((number * second - first**2) / (255 * number) ** 2) ** 0.5)
    return PixelStatistics(tuple(mean), tuple(std))


def _histograms(images: np.ndarray) -> np.ndarray:
    """How often each value occurs: uint64 `(C, 256)`. Pillow counts four times as fast as numpy."""
    _, _, width, channels = images.shape
    rows = images.reshape(-1, width, channels)
    picture = Image.fromarray(rows[..., 0] if channels == 1 else rows)
    return np.array(picture.histogram(), np.uint64).reshape(channels, 256)


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Weights for the classes' losses that make the classes equally important: n / (k n_c), as in scikit-learn.

    There are n images in k classes, n_c of them in class c. The mean weight of the images is 1. Classes without images
    are not counted, and have weight 0.

    Example:
        >>> balanced_weights([30, 10, 0])
        (0.6666666666666666, 2.0, 0.0)
    """
    images, classes = sum(counts), sum(count > 0 for count in counts)
    return tuple(images / (classes * count) if count else 0.0 for count in counts)


def images_of_both(train: np.ndarray, validation: np.ndarray) -> int:
    """The number of validation images that are also among the training images, pixel by pixel.

    Only one row of most images is read: an image is read whole if its middle row is in both splits.

    Args:
        train: uint8 `(N, H, W, C)`; a memory map is not read whole.
        validation: uint8 `(M, H, W, C)`.
    """
    ours, theirs = _middle_rows(train), _middle_rows(validation)
    in_both = np.intersect1d(ours, theirs)
    known = {_digest(train[index]) for index in np.flatnonzero(np.isin(ours, in_both))}
    return sum(_digest(validation[index]) in known for index in np.flatnonzero(np.isin(theirs, in_both)))


def _middle_rows(images: np.ndarray) -> np.ndarray:
    """A uint64 for the middle row of each image."""
    digests = b"".join(_digest(image) for image in images[:, images.shape[1] // 2])
    return np.frombuffer(digests, np.uint64)[::2]


def _digest(pixels: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
