"""The images that a user gives: files, folders, bytes, arrays and Pillow's images, one after the other."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flax_resnets.data.decode import decode, pixels_of
from flax_resnets.errors import UserError

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
"""Endings of the files that are taken from a folder, in lower or upper case."""

_MOST_BYTES = 2**30
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Item:
    """One image that is not read yet.

    Args:
        name: what a message calls it: the path of a file, or its place among the images.
        image: a path, the bytes of a file, an array `(H, W)` or `(H, W, C)`, a Pillow image, or the error to raise.
    """

    def __init__(self, name: str, image: Any):
        self.name = name
        self._image = image

    def pixels(self, channels: int) -> np.ndarray:
        """The decoded image, uint8 `(height, width, channels)`; grey is made from colour and colour from grey.

        Raises:
            UserError: it cannot be read.
        """
        try:
            image = self._image
            if isinstance(image, UserError):
                raise image
            if isinstance(image, str | os.PathLike):
                image = _content(Path(image))
            if isinstance(image, bytes | bytearray | memoryview):
                return decode(bytes(image), channels)  # every file comes through this line
            if isinstance(image, Image.Image):
                return _pillow_pixels(image, channels)
            return _array_pixels(image, channels)
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror or error}") from None
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.name}: {str(error)[:300]}") from None


def each_image(images: Any) -> Iterator[Item]:
    """The images one after the other; files are not read yet.

    Args:
        images: see `Classifier.predict`.

    Raises:
        UserError: something is no image, or a folder has none.
    """
    many = isinstance(images, Iterable) and not isinstance(
        images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | Mapping
    )
    if not many or hasattr(images, "dtype"):
        yield from _items("image", images)
        return
    for number, image in enumerate(images):
        yield from _items(f"images[{number}]", image)


def unreadable(name: str, error: UserError) -> Item:
    """An image whose reading raises this error: a place among others for what is no image at all."""
    return Item(name, error)


def _items(name: str, image: Any) -> Iterator[Item]:
    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if os.path.isdir(path):
            yield from (Item(file, file) for file in _files(path))
        else:
            yield Item(path, path)
    elif isinstance(image, bytes | bytearray | memoryview | Image.Image):
        yield Item(name, image)
    elif hasattr(image, "dtype") and hasattr(image, "shape"):
        array = np.asarray(image)
        if array.ndim == 4:
            yield from (Item(f"{name}[{row}]", each) for row, each in enumerate(array))
        else:
            yield Item(name, array)
    else:
        raise UserError(
            f"{name}: a {type(image).__name__}; must be a path, a file's bytes, a uint8 array or a Pillow image"
        )


def _files(folder: str) -> list[str]:
    """The image files in a folder and the folders in it, sorted. Hidden files are left out, links not followed."""
    found = [
        os.path.join(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
    if not found:
        raise UserError(f"{folder}: has no image in it ({', '.join(SUFFIXES)})")
    return sorted(found)


def _content(path: Path) -> bytes:
    if not os.path.lexists(path):
        raise ValueError("no such file")
    if not os.path.isfile(path):  # reading a device would never end
        raise ValueError("is no file")
    if os.path.getsize(path) > _MOST_BYTES:
        raise ValueError("is larger than a gigabyte")
    return path.read_bytes()


def _pillow_pixels(image: Image.Image, channels: int) -> np.ndarray:
    if image.mode in ("F", "I"):
        raise ValueError(f"is of mode {image.mode!r}; must have 8 bits a channel")
    try:
        return pixels_of(image, channels)
    except Exception as error:  # the file behind it may be damaged, and Pillow's plugins raise errors of many classes
        raise ValueError(f"not a readable image: {error}") from error


def _array_pixels(array: np.ndarray, channels: int) -> np.ndarray:
    shape = tuple(array.shape)
    if array.dtype != np.uint8:
        raise ValueError(f"is a {array.dtype} array; pixels must be uint8, from 0 to 255")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in _MODES or 0 in array.shape:
        raise ValueError(f"has shape {shape}; must be (height, width), or (height, width, channels) of 1, 3 or 4")
    if array.shape[-1] == channels:
        return np.ascontiguousarray(array)
    flat = array[..., 0] if array.shape[-1] == 1 else array
    return pixels_of(Image.fromarray(np.ascontiguousarray(flat)), channels)
