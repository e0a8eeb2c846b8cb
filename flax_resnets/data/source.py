"""What any kind of dataset offers: one split of labelled images, by index; and how one is opened by its name."""

import abc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from flax_resnets.data import tfds
from flax_resnets.data.decode import decode
from flax_resnets.errors import UserError

SAMPLE = tfds.SAMPLE
"""Name of the dataset that comes with the package and needs no `data_dir`."""


class Source(abc.ABC):
    """One split of an image-classification dataset, by index. `open_source` makes it.

    A kind of dataset derives from it and gives `__len__`, `read`, `image_name` and the attributes. Every method may be
    called from several threads at once.

    Attributes:
        dataset: the name it was opened by.
        split: the split's own name: `test` where a dataset has no `validation`.
        version: of the dataset, such as `1.0.0`.
        class_names: the classes, in the order of their labels.
        channels: 1 for grey images, 3 for colour.
        image_shape: `(height, width, channels)` that every image has; None in the place of what differs.
        directory: where its files lie.
        fingerprint: 64 hex digits that stand for what the files hold, wherever they lie; a run is known by it.
        cache_key: the same for what is decoded from the files. Where `fingerprint` takes samples of large files, their
            times are in it too.
    """

    dataset: str
    split: str
    version: str
    class_names: tuple[str, ...]
    channels: int
    image_shape: tuple[int | None, int | None, int | None] = (None, None, None)
    directory: Path
    fingerprint: str
    cache_key: str

    @abc.abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abc.abstractmethod
    def read(self, index: int) -> tuple[bytes, int]:
        """An image's bytes as they are stored, and its label.

        Args:
            index: in `range(len(self))`.

        Raises:
            Exception: of any kind: the record is damaged.
        """

    @abc.abstractmethod
    def image_name(self, index: int) -> str:
        """Where a person finds an image: its file, its place there, the name it has."""

    @property
    def num_classes(self) -> int:
        """How many classes the labels tell apart."""
        return len(self.class_names)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}({self.dataset!r}, {self.split!r}, {len(self)} images of {self.num_classes} classes)"

    def encoded(self, index: int) -> bytes:
        """The image as it is stored: the bytes of a JPEG or PNG file."""
        return self._example(index)[0]

    def label(self, index: int) -> int:
        """The image's class, in `range(num_classes)`."""
        return self._example(index)[1]

    def image(self, index: int) -> np.ndarray:
        """The decoded image, uint8, `(height, width, channels)`."""
        return self[index][0]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The decoded image and its class.

        Raises:
            IndexError: `index` is not in `range(len(self))`.
            UserError: the record or the image in it is damaged; the message names both.
        """
        encoded, label = self._example(index)
        try:
            image = decode(encoded, self.channels)
            if any(want not in (None, have) for want, have in zip(self.image_shape, image.shape, strict=True)):
                raise ValueError(f"its shape is {image.shape}, the dataset's is {self.image_shape}")
        except ValueError as error:
            raise UserError(f"{self._where(index)} (class {self.class_names[label]!r}): {error}") from error
        return image, label

    def _example(self, index: int) -> tuple[bytes, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in range({len(self)})")
        try:
            encoded, label = self.read(index)
        except Exception as error:
            raise UserError(f"{self._where(index)}: the record is damaged ({error})") from error
        if not 0 <= label < self.num_classes:
            raise UserError(f"{self._where(index)}: label {label} is not in range({self.num_classes})")
        return encoded, label

    def _where(self, index: int) -> str:
        return f"dataset {self.dataset!r}, split {self.split!r}, image {index} in {self.image_name(index)}"


class Metadata(NamedTuple):
    """The properties of a dataset that a network needs.

    Attributes:
        num_classes: number of classes.
        channels: 1 for grey images, 3 for colour.
    """

    num_classes: int
    channels: int


DataDir = str | os.PathLike[str] | None


class Kind(Protocol):
    """A kind of dataset: a module with these functions. Each raises UserError where there is no such dataset."""

    def open_split(self, dataset: str, split: Literal["train", "validation"], data_dir: DataDir) -> Source:
        """See `open_source`."""
        ...

    def metadata(self, dataset: str, data_dir: DataDir) -> tuple[int, int]:
        """Classes and channels, as far as they are known before anything is downloaded."""
        ...

    def newest_version(self, dataset: str, data_dir: DataDir) -> str:
        """The version that a name without one opens."""
        ...

    def is_prepared(self, dataset: str, data_dir: DataDir) -> bool:
        """Whether the dataset, by its name with a version, is there."""
        ...


KINDS: Mapping[str, Kind] = {}
"""The kinds of datasets by the names that open them. Every other name is TFDS's."""


def kind_of(dataset: str) -> Kind:
    """The kind of dataset that a name opens."""
    return KINDS.get(dataset.partition(":")[0], tfds)


def open_source(dataset: str, split: Literal["train", "validation"], data_dir: DataDir = None) -> Source:
    """Opens one split of a dataset.

    A TFDS dataset that is not prepared under `data_dir` yet is downloaded and prepared there first. TensorFlow is not
    needed for any of it.

    Args:
        dataset: TFDS's name, such as `imagenette/160px-v2`, `fashion_mnist` or `cifar10:3.0.2`; or
            `fashion_mnist_sample`. It must have the features `image` and `label`.
        split: `validation` means the split of that name, or `test` where there is none.
        data_dir: where TFDS keeps datasets; None is TFDS's own default, `~/tensorflow_datasets`.

    Returns:
        The split, its record files checked for length but not read through.

    Raises:
        UserError: no such dataset or directory, not a set of labelled images, a damaged file, or no way to get it.

    Example:
        >>> source = open_source("fashion_mnist_sample", "train")
        >>> source.image(0).shape, source.class_names[:2]
        ((28, 28, 1), ('T-shirt/top', 'Trouser'))
    """
    if split not in ("train", "validation"):
        raise UserError(f"split={split!r}: must be 'train' or 'validation'")
    check_data_dir(data_dir)
    return kind_of(dataset).open_split(dataset, split, data_dir)


def dataset_metadata(dataset: str, data_dir: DataDir = None) -> Metadata:
    """Number of classes and channels as the dataset declares them; nothing is downloaded, prepared or opened.

    Args:
        dataset: see `open_source`.
        data_dir: where a dataset lies that only its own files describe; for other datasets it need not exist.

    Raises:
        UserError: there is no such dataset, or it is not a set of labelled images.

    Example:
        >>> dataset_metadata("fashion_mnist_sample")
        Metadata(num_classes=10, channels=1)
    """
    return Metadata(*kind_of(dataset).metadata(dataset, data_dir))


def check_data_dir(data_dir: DataDir) -> None:
    """Raises UserError where a directory is named and there is none."""
    if data_dir is not None:
        directory = os.path.expanduser(data_dir)  # pathlib's raises for a user there is not
        if not os.path.isdir(directory):  # and here for a name too long
            raise UserError(f"data_dir={directory!r}: no such directory; name an existing one")
