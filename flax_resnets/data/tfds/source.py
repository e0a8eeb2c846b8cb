"""A split of a prepared TFDS dataset."""

import hashlib
import resource
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.data.fingerprint import fingerprints
from flax_resnets.data.labels import Label, multi_hot
from flax_resnets.data.source import Source
from flax_resnets.data.tfds.array_record import ArrayRecords
from flax_resnets.data.tfds.builder import copy_records, how_to_prepare_again
from flax_resnets.data.tfds.features import image_and_label, inside, name_key, skipping_images
from flax_resnets.data.tfds.splits import selected
from flax_resnets.data.tfds.tfrecord import TfRecords
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

READERS = {"array_record": ArrayRecords, "tfrecord": TfRecords}
"""Readers of records by index, by TFDS's name of the files' format."""


class TfdsSource(Source):
    """A split that TFDS has prepared, or the part of it that the configuration chooses.

    Args:
        config: names the dataset, its splits and its features.
        split: `train` or `validation`.
        builder: builder of the dataset, which must be prepared.

    Raises:
        UserError: the files have a format that cannot be read by index, are damaged, or hold no images; or there is no
            such split or feature.
    """

    def __init__(self, config: DataConfig, split: Literal["train", "validation"], builder: "DatasetBuilder"):
        info = builder.info
        self.dataset = config.dataset
        self._labelled = labelled = image_and_label(config, info.features)
        self.class_names = labelled.class_names
        self.multilabel = labelled.multilabel
        self.image_shape = tuple(labelled.image.shape)
        self.channels = labelled.image.shape[2]
        self.version = str(builder.version)
        self.directory = Path(builder.data_dir).resolve()
        file_format = info.file_format.value if info.file_format else "an unknown format"
        if file_format not in READERS:
            raise UserError(
                f"dataset={config.dataset!r} in {self.directory}: prepared as {file_format}, which cannot be read by "
                f"index; {how_to_prepare_again(builder)}"
            )
        self.split, numbers = selected(config, split, info.splits)
        if not len(numbers):
            raise UserError(f"dataset={config.dataset!r} in {self.directory}: its split {self.split!r} has no images")
        self._files, self._counts, self._numbers = _only_files_of(numbers, info.splits)
        copy_records(config.data_dir, builder, self._files)
        self._starts = list(accumulate(self._counts, initial=0))
        _allow_open_files(len(self._files))
        self._records = READERS[file_format](self._files, self._counts)
        self.fingerprint, self.cache_key = _fingerprints(
            self._files, self.directory, self._records.layout, self._marks()
        )
        self._features: Any = info.features
        self._decoders = skipping_images(info.features)
        self._name_key = name_key(info.features)

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, index: int) -> tuple[bytes, Label]:
        """See `Source`; raises errors of the files' reader, protobuf and TFDS."""
        example = self._read(index)
        label = inside(example, self._labelled.label_path)
        label = multi_hot([label], self.num_classes)[0] if self.multilabel else int(label)
        return bytes(inside(example, self._labelled.image_path)), label

    def image_name(self, index: int) -> str:
        """See `Source`. TFDS shuffled the examples when it wrote them, so the index says nothing about the original."""
        file, record = self._place(index)
        where = f"{self._files[file]}, record {record}"
        if self._name_key is None:
            return where
        try:
            name = self._read(index)[self._name_key]
        except Exception:  # the record is damaged, which may be why the name is asked for
            return where
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return f"{where}, {self._name_key} {text[:200]!r}"

    def _read(self, index: int) -> Any:
        return self._features.deserialize_example_np(self._records.read(*self._place(index)), decoders=self._decoders)

    def _place(self, index: int) -> tuple[int, int]:
        """The numbers of an image's file and of its record in that file."""
        number = int(self._numbers[index])
        file = bisect_right(self._starts, number) - 1
        return file, number - self._starts[file]

    def _marks(self) -> str:
        """Tells this source from others of the same files; empty for all images, in order, with the usual features."""
        whole = np.arange(self._starts[-1])
        rows = "" if np.array_equal(self._numbers, whole) else hashlib.sha256(self._numbers.tobytes()).hexdigest()
        return f"{self._labelled.chosen_keys}{rows}"


def _fingerprints(files: list[Path], directory: Path, layout: bytes = b"", marks: str = "") -> tuple[str, str]:
    try:
        keys = fingerprints(files, (directory / "features.json").read_bytes() + layout)
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; delete its directory to have the dataset prepared again"
        ) from error
    if not marks:
        return keys
    fingerprint, cache_key = (hashlib.sha256(f"{key} {marks}".encode()).hexdigest() for key in keys)
    return fingerprint, cache_key


def _only_files_of(numbers: np.ndarray, splits: Mapping[str, Any]) -> tuple[list[Path], list[int], np.ndarray]:
    """The files that hold these records, their numbers of records, and the numbers counted in these files alone."""
    pairs = [pair for each in splits.values() for pair in zip(each.filepaths, each.shard_lengths, strict=True)]
    counts = np.array([count for _, count in pairs], np.int64)
    starts = np.cumsum(counts) - counts
    file_of = np.searchsorted(starts + counts, numbers, side="right")
    used = np.unique(file_of)
    shift = np.zeros(len(pairs), np.int64)
    shift[used] = starts[used] - (np.cumsum(counts[used]) - counts[used])
    paths = [Path(pairs[file][0]).resolve() for file in used]
    return paths, counts[used].tolist(), numbers - shift[file_of]


def _allow_open_files(files: int) -> None:
    """Raises the process's limit on open files, often 1024, if that may be too low: ImageNet has a thousand files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files > soft // 4:
        wanted = soft + 2 * files
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
