"""Decodes a split once and keeps its images, at one size, as a memory-mapped array."""

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from flax_resnets.data.batches import Batch, drawn_by, eval_batches
from flax_resnets.data.config import Sampler, name_and_version
from flax_resnets.data.labels import Label, is_multilabel, new_labels
from flax_resnets.data.lock import locked
from flax_resnets.data.source import Source
from flax_resnets.errors import UserError
from flax_resnets.machine import cores
from flax_resnets.paths import cache_root

_FORMAT = 1  # to be raised when the same source, size and resize give other pixels than before
_BLOCK = 512  # images that are decoded and then written together
_ROOM = 420  # characters for three broken images and a file's name in a message of at most 600
_TASK = 16  # images in a thread's task: handing over a task takes as long as decoding a small image


@dataclasses.dataclass(frozen=True)
class CachedImages:
    """A split with decoded images.

    Attributes:
        images: uint8, `(N, size, size, channels)`, read-only; a memory map unless the cache could not be written.
        labels: int32 `(N,)` or int8 `(N, classes)`, read-only.
        broken: a message for each image that was left out. It names the dataset, the image and the error.
    """

    images: np.ndarray
    labels: np.ndarray
    broken: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def multilabel(self) -> bool:
        """See `Split`."""
        return is_multilabel(self.labels)

    @property
    def labels_at_hand(self) -> bool:
        """See `Split`."""
        return True

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.images.shape[-1]

    def read(self, indices: np.ndarray) -> Generator[Batch[np.ndarray]]:
        """See `Split`."""
        for start in range(0, len(indices), _BLOCK):
            block = indices[start : start + _BLOCK]
            yield Batch(self.images[block], self.labels[block])

    def train_batches(
        self, batch_size: int, seed: int, steps: range, rows: np.ndarray | None = None, sampler: Sampler = "shuffle"
    ) -> Generator[Batch[np.ndarray]]:
        """See `Split`."""
        indices_of = drawn_by(sampler, self, batch_size, seed)
        for step in steps:
            indices = indices_of(step) if rows is None else indices_of(step)[rows]
            yield Batch(self.images[indices], self.labels[indices])

    def eval_batches(self, batch_size: int, rows: np.ndarray | None = None) -> Generator[Batch[np.ndarray]]:
        """See `Split`."""
        return eval_batches(self.images, self.labels, batch_size, rows)


def cached_images(
    source: Source,
    size: int,
    resize: Literal["squash", "crop"] = "squash",
    progress: Callable[[int, int], None] | None = None,
    broken: Literal["stop", "skip"] = "stop",
) -> CachedImages:
    """The whole split as one array. The first call decodes the images; later calls map the array from the disk.

    The cache is in `$FLAX_RESNETS_CACHE`; if that is not set, in `$XDG_CACHE_HOME/flax_resnets` or
    `~/.cache/flax_resnets`. There, each split of a dataset has a directory (with another image_key or label_key another
    one), which holds a directory for each size and kind of resizing. If the content of the dataset's files changes,
    their old caches are removed. An incomplete cache has a temporary name, so no reader finds it. If several processes
    need the same cache, one decodes and the others wait.

    Args:
        source: the split.
        size: height and width of the images. An image that already has this size is not resized.
        resize: `squash` ignores the aspect ratio; `crop` scales the shorter side to `size` and takes the centre.
        progress: is called while decoding, with the number of decoded images and the number of all images.
        broken: what to do about images that cannot be decoded: `stop` raises an error, `skip` leaves them out. A cache
            without some images has a directory of its own, which `stop` does not use.

    Returns:
        The images and labels, in the source's order.

    Raises:
        UserError: images cannot be decoded, and `broken` is `stop`. The message names the first three images, and a
            file beside the caches that lists all of them. No cache is left.

    Warns:
        RuntimeWarning: the cache cannot be written, so the images stay in memory.

    Example:
        >>> from flax_resnets.data.source import open_source
        >>> data = cached_images(open_source("fashion_mnist_sample", "validation"), size=28)
        >>> data.images.shape, data.labels.dtype
        ((1000, 28, 28, 1), dtype('int32'))
    """
    if size < 1:
        raise UserError(f"image_size={size}: must be at least 1")
    if resize not in ("squash", "crop"):
        raise UserError(f"resize={resize!r}: must be 'squash' or 'crop'")
    skip = broken == "skip"
    try:
        directory = _directory(source, size, resize)
        places = [directory, _without_broken(directory)] if skip else [directory]
        if (cached := _read(places, source, size)) is not None:
            return cached
        directory.parent.mkdir(parents=True, exist_ok=True)
        with locked(directory.parent) as alone:
            if (cached := _read(places, source, size)) is not None:
                return cached  # written by the process that held the lock
            _sweep(places, source, alone)
            _write(directory, source, size, resize, progress, skip)
        if (cached := _read(places, source, size)) is not None:
            return cached
        raise OSError(f"{directory} cannot be read back")
    except OSError as error:
        warnings.warn(
            f"image cache not written, the images stay in memory: {error}; FLAX_RESNETS_CACHE names another directory",
            RuntimeWarning,
            stacklevel=2,
        )
        return _in_memory(source, size, resize, progress, skip)


def _directory(source: Source, size: int, resize: str) -> Path:
    name = re.sub(r"\W+", "-", f"{name_and_version(source.dataset)[0]}-{source.split}")  # the version is in the path
    path = str(source.directory)
    if not re.fullmatch(r"\w+", source.split):  # `train[:80%]` and `train[80%:]` are told apart by nothing else
        path += f" {source.split}"
    if keys := getattr(source, "keys", ""):
        path += f" {keys}"
    path_key = hashlib.sha256(path.encode()).hexdigest()[:8]
    asked = [each for each in ("exif_orientation", "white_background", "draft") if getattr(source, each, False)]
    kind = "-".join((source.cache_key[:16], str(size), resize, f"v{_FORMAT}", *asked))
    return cache_root() / f"{name}-{path_key}" / kind


def _without_broken(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}-without-broken")


def _read(directories: list[Path], source: Source, size: int) -> CachedImages | None:
    """The cache in the first of these directories that can be read; None if none can."""
    for directory in directories:
        list_of_broken = directory / "broken.json"
        try:
            # If a file is shorter than its header says, numpy raises ValueError.
            images = np.load(directory / "images.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(directory / "labels.npy", allow_pickle=False)
            broken = json.loads(list_of_broken.read_text()) if list_of_broken.exists() else []
        except (OSError, ValueError, EOFError):
            continue
        shape = (len(source) - len(broken), size, size, source.channels)
        wanted = new_labels(source, shape[0])
        if (images.shape, images.dtype, labels.shape, labels.dtype) == (shape, np.uint8, wanted.shape, wanted.dtype):
            labels.flags.writeable = False
            return CachedImages(images, labels, tuple(broken))
    return None


def _write(
    directory: Path,
    source: Source,
    size: int,
    resize: str,
    progress: Callable[[int, int], None] | None,
    skip: bool,
) -> None:
    half_made = Path(tempfile.mkdtemp(prefix="tmp-", dir=directory.parent))
    try:
        with open(half_made / "images.npy", "wb") as file:
            _write_header(file, (len(source), size, size, source.channels))
            labels, broken = [], []
            for block, block_labels, block_broken in decoded_blocks(source, range(len(source)), size, resize, progress):
                # On a full disk write() raises an exception; a writable memory map would end the process with SIGBUS.
                file.write(block.data)
                labels.append(block_labels)
                broken += block_broken
            if broken and not skip:
                raise _refusal(source, broken)
            labels = np.concatenate(labels) if labels else new_labels(source, 0)
            file.seek(0)
            _write_header(file, (len(labels), size, size, source.channels))
            _to_disk(file)
        with open(half_made / "labels.npy", "wb") as file:
            np.save(file, labels, allow_pickle=False)
            _to_disk(file)
        if broken:
            with open(half_made / "broken.json", "wb") as file:
                file.write(json.dumps(broken).encode())
                _to_disk(file)
        target = _without_broken(directory) if broken else directory
        try:
            os.rename(half_made, target)
        except OSError:
            # If the filesystem has no locks, another process may have written the same cache first. A directory cannot
            # replace one that holds files.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(half_made, ignore_errors=True)


def _refusal(source: Source, broken: list[str]) -> UserError:
    """The error for broken images that are not skipped. If there are several, they are listed in a file."""
    if len(broken) == 1:
        return UserError(f"{broken[0]}; broken_images=skip leaves it out")
    directory = _directory(source, 1, "").parent
    path: Path | None = directory.with_name(f"{directory.name}-broken.txt")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(in_lines(broken), encoding="utf-8")
    except OSError:
        path = None
    count = f"{len(broken)} of {len(source)} images are broken" + (f", all of them in {path}" if path else "")
    first = first_broken(source, broken, room=_ROOM - len(str(path or "")))
    return UserError(f"{_in_split(source)}{first}; {count}; broken_images=skip leaves them out")


def in_lines(broken: Sequence[str]) -> str:
    """The content of a file that lists broken images."""
    return "".join(f"{each}\n" for each in broken)


def first_broken(source: Source, broken: Sequence[str], room: int = _ROOM) -> str:
    """Names the first three of a split's broken images, in about `room` characters."""
    shown = broken[:3]
    room = max(room // len(shown), 60)
    names = []
    for each in shown:
        name = each.removeprefix(_in_split(source)).replace(f"{source.directory}{os.sep}", "")
        names.append(name if len(name) <= room else f"{name[: room - 3]}...")
    return "; ".join(names)


def _in_split(source: Source) -> str:
    return f"dataset {source.dataset!r}, split {source.split!r}, "


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    # numpy pads the header so that a header with another first number has the same length.
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _to_disk(file: BinaryIO) -> None:
    # Otherwise, after a power cut, the renamed directory may hold files of the right length that are full of zeros.
    file.flush()
    os.fsync(file.fileno())


def _sweep(directories: list[Path], source: Source, alone: bool) -> None:
    """Removes unreadable caches, caches of files that have changed since, and those that killed processes left."""
    for path in directories[0].parent.iterdir():
        half_made = path.name.startswith("tmp-")
        stale = not half_made and not path.name.startswith(source.cache_key[:16])
        if path in directories or stale or (half_made and alone):
            shutil.rmtree(path, ignore_errors=True)


def _in_memory(
    source: Source, size: int, resize: str, progress: Callable[[int, int], None] | None, skip: bool
) -> CachedImages:
    shape = (len(source), size, size, source.channels)
    try:
        images = np.empty(shape, np.uint8)
    except MemoryError:
        raise UserError(
            f"images of {size} px: their {math.prod(shape) / 2**30:.1f} GiB fit neither in {cache_root()} nor in "
            "memory; FLAX_RESNETS_CACHE names another directory, images=streamed keeps no images"
        ) from None
    labels = new_labels(source, len(source))
    done, broken = 0, []
    for block, block_labels, block_broken in decoded_blocks(source, range(len(source)), size, resize, progress):
        images[done : done + len(block)] = block
        labels[done : done + len(block)] = block_labels
        done += len(block)
        broken += block_broken
    if broken and not skip:
        raise _refusal(source, broken)
    images, labels = images[:done], labels[:done]
    images.flags.writeable = labels.flags.writeable = False
    return CachedImages(images, labels, tuple(broken))


def decoded_blocks(
    source: Source,
    chosen: Sequence[int] | np.ndarray,
    size: int,
    resize: str,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray, list[str]]]:
    """Decodes images on all CPU cores.

    Args:
        source: the split.
        chosen: the indices of the images.
        size: see `cached_images`.
        resize: see `cached_images`.
        progress: see `cached_images`.

    Yields:
        Images and labels in order, up to 512 at a time, and messages about broken images, which are left out.
    """
    # The decoders release the global interpreter lock, so threads are enough: one for each core.
    with ThreadPoolExecutor(cores()) as pool:
        for start in range(0, len(chosen), _BLOCK):
            indices = chosen[start : start + _BLOCK]
            images = np.empty((len(indices), size, size, source.channels), np.uint8)
            labels = new_labels(source, len(indices))
            broken: dict[int, str] = {}

            def fill(first: int, indices=indices, images=images, labels=labels, broken=broken) -> None:
                for row in range(first, min(first + _TASK, len(indices))):
                    try:
                        images[row], labels[row] = resized_example(source, int(indices[row]), size, resize)
                    except UserError as error:
                        broken[row] = str(error)

            for _ in pool.map(fill, range(0, len(indices), _TASK)):  # raises what a thread raised
                pass
            if progress is not None:
                progress(start + len(indices), len(chosen))
            rows = sorted(broken)
            yield np.delete(images, rows, 0), np.delete(labels, rows, 0), [broken[row] for row in rows]


def resized_example(source: Source, index: int, size: int, resize: str) -> tuple[np.ndarray, Label]:
    """An image of a split as it is stored, `(size, size, channels)`, uint8, and its label.

    Raises:
        UserError: the image cannot be decoded.
    """
    draft = isinstance(source, Source) and source.draft  # all else needs no more than `source[index]`
    image, label = source.shrunk(index, size) if draft else source[index]
    return resized(image, size, resize), label


def resized(
    image: np.ndarray, size: int, resize: str, interpolation: str = "lanczos", shorter_side: int | None = None
) -> np.ndarray:
    """Resizes one uint8 image from `(height, width, channels)` to `(size, size, channels)`.

    The filter is Lanczos, over the whole area of an output pixel, so shrinking does not alias. `interpolation` names
    another of Pillow's: `bicubic` or `bilinear`. With `shorter_side` the result is the centre of the image whose
    shorter side was resized to so many pixels, at least `size`: torchvision's Resize and CenterCrop, of whole pixels.

    Example:
        >>> resized(np.zeros((40, 30, 3), np.uint8), 16, "crop").shape
        (16, 16, 3)
    """
    height, width, channels = image.shape
    if (height, width) == (size, size) and shorter_side in (None, size):
        return image
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    kernel = Image.Resampling[interpolation.upper()]
    if shorter_side is not None:
        shorter = min(height, width)
        whole = [shorter_side if side == shorter else int(shorter_side * side / shorter) for side in (width, height)]
        left, top = (round((side - size) / 2) for side in whole)  # to even numbers, as torchvision
        centre = picture.resize(whole, kernel).crop((left, top, left + size, top + size))
        return np.asarray(centre).reshape(size, size, channels)
    box = None
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) / 2, (width - side) / 2
        box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), kernel, box=box)).reshape(size, size, channels)
