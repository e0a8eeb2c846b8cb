"""The images that a user gives: files, folders, bytes, arrays and Pillow's images, one after the other."""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flax_resnets.data.decode import decode
from flax_resnets.data.file_names import is_hidden, is_picture
from flax_resnets.errors import UserError
from flax_resnets.storage import is_url

_MOST_BYTES = 2**30
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


class Item:
    """One image that is not read yet.

    Args:
        name: what a message calls it: the path of a file, or its place among the images.
        image: a path, the bytes of a file, an array `(H, W)` or `(H, W, C)`, a Pillow image, or the error to raise.
    """

    def __init__(self, name: str, image: Any):
        self.name = name
        self._image = image

    def pixels(self, channels: int, **how: Any) -> np.ndarray:
        """The decoded image, uint8 `(height, width, channels)`; grey is made from colour and colour from grey.

        Args:
            channels: 1 or 3.
            how: keywords of `flax_resnets.data.decode.decode`.

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
                image = bytes(image)
            elif isinstance(image, Image.Image):
                image = _as_png(image)
            else:
                image = np.ascontiguousarray(_checked(image))
                if image.shape[-1] == channels:
                    return image
                image = _as_png(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image))
            return decode(image, channels, **how)  # everything else comes through this line
        except OSError as error:
            raise UserError(f"{self.name}: {error.strerror or error}") from None
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{self.name}: {str(error)[:300]}") from None


class Stored(Item):
    """An image that is already as `Preprocess.stored` makes it, uint8 `(stored_size, stored_size, channels)`.

    An array is prepared like any image: it is resized and cropped, also if it has the stored size, where the crop is a
    part of an image of `shorter_side`.
    """

    def __init__(self, name: str, image: np.ndarray):
        super().__init__(name, image)
        self.array = image


def each_image(images: Any) -> Iterator[Item]:
    """The images one after the other; files are not read yet.

    Args:
        images: see `Classifier.predict`; an `Item` is yielded as it is.

    Raises:
        UserError: something is no image, or a folder has none.
    """
    many = isinstance(images, Iterable) and not isinstance(
        images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | Mapping
    )
    if not many or (hasattr(images, "dtype") and not _is_list(images)):
        yield from _items("image", images)
        return
    for number, image in enumerate(images):
        yield from _items(f"images[{number}]", image)


def _is_list(array: Any) -> bool:
    """Whether an array, or a Series of pandas, holds paths or other images, and no pixels."""
    return getattr(array.dtype, "kind", "") in ("O", "U", "T") and np.ndim(array) == 1


def unreadable(name: str, error: UserError) -> Item:
    """An image whose reading raises this error: a place among others for what is no image at all."""
    return Item(name, error)


def _items(name: str, image: Any) -> Iterator[Item]:
    if isinstance(image, Item):
        yield image
    elif isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if os.path.isdir(path):
            yield from _in_folder(path)
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


def _in_folder(folder: str) -> list[Item]:
    """The image files in a folder and the folders in it, sorted. Links to folders are not followed.

    Hidden files and folders are left out, and those of operating systems, as from a folder that is trained on.

    A folder that cannot be read has a place among them, as an image that cannot be read.
    """
    closed: list[OSError] = []
    found = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = [name for name in folders if not is_hidden(name)]  # os.walk goes on into these
        paths = [os.path.join(parent, name) for name in names if is_picture(name) and not is_hidden(name)]
        found += [Item(path, path) for path in paths]
    found += [unreadable(str(error.filename), UserError(f"{error.filename}: {error.strerror}")) for error in closed]
    if not found:
        raise UserError(f"{folder}: has no image in it, by the endings of its files")
    return sorted(found, key=lambda item: item.name)


def _content(path: Path) -> bytes:
    if is_url(str(path)):
        raise ValueError("must be on this machine, no URL; copy it first")
    if not os.path.lexists(path):
        raise ValueError("no such file")
    if not os.path.isfile(path):  # reading a device would never end
        raise ValueError("is no file")
    if os.path.getsize(path) > _MOST_BYTES:
        raise ValueError("is larger than a gigabyte")
    return path.read_bytes()


def _as_png(image: Image.Image) -> bytes:
    """A Pillow image as a file, so that it is converted as files are. It is not compressed, which would take long."""
    if image.mode in ("F", "I"):
        raise ValueError(f"is of mode {image.mode!r}; must have 8 bits a channel")
    buffer = io.BytesIO()
    try:
        if image.mode not in _PNG_MODES:
            image = image.convert("RGB")
        image.save(buffer, "PNG", compress_level=0, exif=image.getexif())
    except Exception as error:  # the file behind it may be damaged, and Pillow's plugins raise errors of many classes
        raise ValueError(f"not a readable image: {error}") from error
    return buffer.getvalue()


def _checked(array: np.ndarray) -> np.ndarray:
    """The array with an axis for its channels."""
    if array.dtype != np.uint8:
        raise ValueError(f"is a {array.dtype} array; pixels must be uint8, from 0 to 255")
    with_channels = array[..., None] if array.ndim == 2 else array
    if with_channels.ndim != 3 or with_channels.shape[-1] not in (1, 3, 4) or 0 in with_channels.shape:
        shape = tuple(array.shape)
        right = "; for grey images (N, height, width) give x[..., None]" if array.ndim == 3 else ""
        if right and shape[0] == 3:  # as in torch
            right += "; of (3, height, width) give np.moveaxis(x, -3, -1)"
        raise ValueError(
            f"has shape {shape}; must be (height, width), or (height, width, channels) of 1, 3 or 4{right}"
        )
    return with_channels
