"""A split of arrays."""

import io
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

from flax_resnets.data.fingerprint import fingerprints
from flax_resnets.data.labels import Label, is_multilabel
from flax_resnets.data.npz.arrays import Arrays, image_shape, read_array
from flax_resnets.data.source import Source
from flax_resnets.errors import UserError


class NpzSource(Source):
    """Images that are one array. It is read when the first image is, and then kept in memory.

    Args:
        dataset: the name by which the dataset was opened.
        split: name of the split.
        arrays: where the images are.
        class_names: names of the classes.
        labels: of all images in the array, int32 `(N,)` or int8 `(N, classes)`.
        rows: which of them are in this split, int64, in order; None for all.

    Raises:
        UserError: the file cannot be read.
    """

    version = ""
    labels_at_hand = True

    def __init__(
        self,
        dataset: str,
        split: str,
        arrays: Arrays,
        class_names: Sequence[str],
        labels: np.ndarray,
        rows: np.ndarray | None,
    ):
        self.dataset = dataset
        self.split = split
        self.directory = arrays.file.parent
        self.class_names = tuple(class_names)
        self._shape = image_shape(arrays)[1:]
        self.image_shape = self._shape
        self.channels = self._shape[2]
        self.is_share = rows is not None
        self.multilabel = is_multilabel(labels)
        self._arrays = arrays
        self._rows = np.arange(len(labels)) if rows is None else rows
        self._taken = slice(None) if rows is None else rows  # a slice takes a view, no copy
        self._labels = labels[self._rows]
        self._lock = threading.Lock()
        self._images: np.ndarray | UserError | None = None
        try:
            beside = repr((arrays.images, arrays.labels, split, self.class_names)).encode()
            self.fingerprint, self.cache_key = fingerprints([arrays.file], beside)
        except OSError as error:
            raise UserError(f"{arrays.file}: {error.strerror}") from None

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> tuple[bytes, Label]:
        """See `Source`. The bytes are those of a PNG, which loses nothing."""
        buffer = io.BytesIO()
        pixels = self._pixels()[index]
        Image.fromarray(pixels[..., 0] if self.channels == 1 else pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), self.label(index)

    def labels(self) -> np.ndarray:
        """See `Source`."""
        return self._labels

    def image_name(self, index: int) -> str:
        """The file, the array and the row in it."""
        return f"{self._arrays.where}[{self._rows[index]}]"

    def _pixels(self) -> np.ndarray:
        """uint8 `(N, H, W, C)`; raises UserError if the array cannot be read, at each call the same one."""
        with self._lock:
            images = self._images
            if images is None:
                try:
                    whole = read_array(self._arrays.file, self._arrays.images)
                    images = whole.reshape(-1, *self._shape)[self._taken]
                except UserError as error:
                    images = error
                self._images = images
        if isinstance(images, UserError):
            raise images
        return images
