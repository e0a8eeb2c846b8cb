"""`Source`, the interface of datasets: one split of labelled images, read by index. `open_source` opens it by name."""

import abc
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np

from flax_resnets.data import folder, npz, parquet, tfds
from flax_resnets.data.config import DataConfig, Part, existing_directory
from flax_resnets.data.decode import decode
from flax_resnets.data.labels import Label, in_words, new_labels
from flax_resnets.errors import UserError
from flax_resnets.machine import cores

SAMPLE = tfds.SAMPLE
"""Name of the dataset that comes with the package and needs no `data_dir`."""


class Source(abc.ABC):
    """One split of an image-classification dataset, read by index. `open_source` returns it.

    Each kind of dataset has a subclass, which defines `__len__`, `read`, `image_name` and the attributes. All methods
    may be called from several threads at once.

    Attributes:
        dataset: the name by which the dataset was opened.
        split: name of the split in the dataset, such as `test` if it was opened as `validation`, or a part in words.
        version: version of the dataset, such as `1.0.0`; empty if it has none.
        class_names: names of the classes, in the order of their labels.
        channels: 1 for grey images, 3 for colour.
        image_shape: `(height, width, channels)` of every image; None for a number that differs between images.
        directory: directory of the dataset's files.
        fingerprint: 64 hex digits computed from the content of the files, independent of their location. A run
            recognises its data by it.
        cache_key: like `fingerprint`, for caches of decoded images. If the files are too large to be hashed whole,
            their modification times are included.
        exif_orientation: whether images are turned as their EXIF data say, see `decode`. Kinds whose images are
            people's own files set it. TFDS's images never were turned, and stay as they are.
        white_background: whether transparent images are put on white, see `decode`; set by the same kinds.
        draft: whether large JPEGs are decoded at a part of their size if they are to become small, see `shrunk`. Kinds
            whose images may be photos of many megapixels set it. With TFDS's it would change the numbers of old runs.
        notes: what a person should know about the files, such as that some are left out; a sentence each.
        labels_at_hand: whether `labels` costs little. Otherwise it reads every record.
        multilabel: whether an image may have any number of classes, see `flax_resnets.data.labels`.
        is_share: whether the images were drawn, because the files have no validation split. TFDS's never are.
        keys: the configuration's `image_key` and `label_key`; empty for the usual ones. Caches of the same split with
            other keys are kept beside each other.
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
    exif_orientation: bool = False
    white_background: bool = False
    draft: bool = False
    notes: tuple[str, ...] = ()
    labels_at_hand: bool = False
    multilabel: bool = False
    is_share: bool = False
    keys: str = ""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abc.abstractmethod
    def read(self, index: int) -> tuple[bytes, Label]:
        """The stored bytes of an image, and its label: a number; of a multi-label dataset, int8 `(classes,)`.

        Args:
            index: in `range(len(self))`.

        Raises:
            Exception: an exception of any class means that the record is damaged.
        """

    @abc.abstractmethod
    def image_name(self, index: int) -> str:
        """Tells a person where an image is: its file, its place in the file, and its name if it has one."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"{kind}({self.dataset!r}, {self.split!r}, {len(self)} images of {self.num_classes} classes)"

    def encoded(self, index: int) -> bytes:
        """The stored bytes of an image, such as those of a JPEG or PNG file."""
        return self.example(index)[0]

    def label(self, index: int) -> Label:
        """The image's class, in `range(num_classes)`; of a multi-label dataset, int8 `(classes,)`: 0 or 1 for each."""
        if not self.labels_at_hand:
            return self.example(index)[1]
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in range({len(self)})")
        label = self.labels()[index]
        return label if self.multilabel else int(label)

    def labels(self) -> np.ndarray:
        """The classes of all images, int32 `(N,)`; of a multi-label dataset, int8 `(N, classes)`.

        Here every record is read. A subclass that has the labels apart from the images overrides this, and sets
        `labels_at_hand`.

        Raises:
            UserError: a record is damaged.
        """
        with ThreadPoolExecutor(cores()) as pool:
            labels = new_labels(self, len(self))
            for row, label in enumerate(pool.map(self.label, range(len(self)))):
                labels[row] = label
            return labels

    def image(self, index: int) -> np.ndarray:
        """The decoded image, uint8, `(height, width, channels)`."""
        return self[index][0]

    def __getitem__(self, index: int) -> tuple[np.ndarray, Label]:
        """The decoded image and its label.

        Raises:
            IndexError: `index` is not in `range(len(self))`.
            UserError: the record or the image in it is damaged; the message names both.
        """
        return self._decoded(index)

    def shrunk(self, index: int, size: int) -> tuple[np.ndarray, Label]:
        """Like `source[index]`, for an image that will be resized to `size`: if `draft` is true, it may be smaller.

        Args:
            index: in `range(len(self))`.
            size: height and width in pixels after resizing, see `decode`'s `shrink_for`.
        """
        return self._decoded(index, size if self.draft else None)

    def _decoded(self, index: int, shrink_for: int | None = None) -> tuple[np.ndarray, Label]:
        encoded, label = self.example(index)
        try:
            image = decode(
                encoded,
                self.channels,
                exif_orientation=self.exif_orientation,
                white_background=self.white_background,
                shrink_for=shrink_for,
            )
            if any(want not in (None, have) for want, have in zip(self.image_shape, image.shape, strict=True)):
                raise ValueError(f"its shape is {image.shape}, the dataset's is {self.image_shape}")
        except ValueError as error:
            name = in_words(label, self.class_names)
            raise UserError(f"{self._where(index)} (class {name[:100]!r}): {error}") from error
        return image, label

    def example(self, index: int) -> tuple[bytes, Label]:
        """The stored bytes of an image, and its label.

        Raises:
            IndexError: `index` is not in `range(len(self))`.
            UserError: the record is damaged or may not be read; the message names it.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in range({len(self)})")
        try:
            encoded, label = self.read(index)
        except Exception as error:
            unread = error.strerror if isinstance(error, OSError) else None  # such as "Permission denied"
            raise UserError(f"{self._where(index)}: {unread or f'the record is damaged ({error})'}") from error
        if not self.multilabel and not 0 <= label < self.num_classes:
            raise UserError(f"{self._where(index)}: label {label} is not in range({self.num_classes})")
        return encoded, label

    def _where(self, index: int) -> str:
        return f"dataset {self.dataset!r}, split {self.split!r}, image {index} in {self.image_name(index)}"


class Metadata(NamedTuple):
    """The properties of a dataset that a network needs.

    Attributes:
        num_classes: number of classes.
        channels: 1 for grey images, 3 for colour.
        multilabel: whether an image may have any number of classes.
    """

    num_classes: int
    channels: int
    multilabel: bool = False


DataDir = str | os.PathLike[str] | None


class Kind(Protocol):
    """A kind of dataset: a module with these functions. They raise UserError if there is no such dataset.

    Attributes:
        EXPECTED: what `data_dir` must be, in words that follow "expected is".
    """

    EXPECTED: str

    def open_split(self, config: DataConfig, split: Part) -> Source:
        """See `open_source`."""
        ...

    def metadata(self, config: DataConfig) -> tuple[int, int, bool]:
        """The values of `Metadata`; see `dataset_metadata`."""
        ...

    def newest_version(self, config: DataConfig) -> str:
        """The version that is opened if the name has none; empty if this kind of dataset has no versions."""
        ...

    def is_prepared(self, config: DataConfig) -> bool:
        """Whether the dataset is prepared. Its name must include the version."""
        ...


KINDS: Mapping[str, Kind] = {"folder": folder, "parquet": parquet, "npz": npz, "hf": parquet.hub}
"""Kinds of datasets, by the names that open them. All other names are TFDS's."""


def kind_of(dataset: str) -> Kind:
    """The kind of dataset that this name opens."""
    return KINDS.get(dataset.partition(":")[0], tfds)


def open_source(dataset: str, split: Part, data_dir: DataDir = None, **fields: Any) -> Source:
    """Opens one split of a dataset.

    If a TFDS dataset is not yet prepared in `data_dir`, it is downloaded and prepared there first. TensorFlow is needed
    only if the dataset's builder uses more of it than file functions and image codecs. Reading never needs it.

    Args:
        dataset: TFDS's name, such as `imagenette/160px-v2`, `fashion_mnist` or `cifar10:3.0.2`; or
            `fashion_mnist_sample`. It must have the features `image` and `label`, or those that `fields` name. Or
            `folder`, `parquet`, `npz` or `hf:owner/name`, which docs/data.md describes.
        split: `validation` means the split of that name, or `test` if there is none, unless `fields` name another one;
            `all` means all images of pictures, parquet files or arrays that have one split, and of TFDS's all splits.
        data_dir: directory of TFDS's datasets, None for TFDS's default, `~/tensorflow_datasets`; or that of the
            pictures, parquet files or arrays.
        fields: other fields of `flax_resnets.data.config.DataConfig`, such as `validation_split`.

    Returns:
        The split. The lengths of its record files are checked, but the files are not read through.

    Raises:
        UserError: there is no such dataset, directory or split; it is not a set of labelled images; a file is damaged;
            or the dataset cannot be downloaded or prepared.

    Example:
        >>> source = open_source("fashion_mnist_sample", "train")
        >>> source.image(0).shape, source.class_names[:2]
        ((28, 28, 1), ('T-shirt/top', 'Trouser'))
    """
    return open_split(_config(dataset, data_dir, fields), split)


def open_split(config: DataConfig, split: Part) -> Source:
    """Like `open_source`, for the dataset that a configuration names."""
    if split not in get_args(Part):
        raise UserError(f"split={split!r}: must be 'train', 'validation' or 'all'")
    check_data_dir(config)
    opened = kind_of(config.dataset).open_split(config, split)
    _check_classes(config, opened.num_classes)
    opened.keys = " ".join(key for key in (config.image_key, config.label_key) if key)
    return opened


def dataset_metadata(dataset: str, data_dir: DataDir = None, **fields: Any) -> Metadata:
    """Numbers of classes and channels, and the form of the labels, as the dataset declares them.

    Nothing is downloaded, prepared or opened, except that a dataset of the Hugging Face hub is downloaded.

    Args:
        dataset: see `open_source`.
        data_dir: see `open_source`. It is read, and must exist, only if nothing but the dataset's files describes it.
        fields: see `open_source`.

    Raises:
        UserError: there is no such dataset, or it is not a set of labelled images.

    Example:
        >>> dataset_metadata("fashion_mnist_sample")
        Metadata(num_classes=10, channels=1, multilabel=False)
    """
    return metadata_of(_config(dataset, data_dir, fields))


def metadata_of(config: DataConfig) -> Metadata:
    """Like `dataset_metadata`, for the dataset that a configuration names."""
    metadata = Metadata(*kind_of(config.dataset).metadata(config))
    _check_classes(config, metadata.num_classes)
    return metadata


def _check_classes(config: DataConfig, found: int) -> None:
    if config.num_classes not in (None, found):
        raise UserError(f"num_classes={config.num_classes}: {config.dataset} has {found}; leave the field out")


def _config(dataset: str, data_dir: DataDir, fields: Mapping[str, Any]) -> DataConfig:
    return DataConfig(dataset=dataset, data_dir=None if data_dir is None else os.fspath(data_dir), **fields)


def check_data_dir(config: DataConfig) -> None:
    """Raises UserError if `data_dir` is given and there is no such directory."""
    if config.data_dir is not None:
        existing_directory(config.data_dir, kind_of(config.dataset).EXPECTED)
