"""TFDS's datasets, as a `flax_resnets.data.source.Kind`. All code that depends on TFDS is in this folder."""

import dataclasses
from typing import TYPE_CHECKING

from flax_resnets.data.config import DataConfig, Part
from flax_resnets.data.found import found_in
from flax_resnets.data.tfds.builder import SAMPLE, SAMPLE_DIR, make_builder, where_it_lies
from flax_resnets.data.tfds.features import image_and_label
from flax_resnets.data.tfds.patches import quiet_tfds
from flax_resnets.data.tfds.splits import check_splits
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.storage import is_bucket

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

    from flax_resnets.data.source import Source
    from flax_resnets.data.tfds.prepare import Prepared

__all__ = [
    "EXPECTED",
    "SAMPLE",
    "SAMPLE_DIR",
    "is_prepared",
    "metadata",
    "newest_version",
    "open_split",
    "prepare_dataset",
]

EXPECTED: str = "an existing directory, in which TFDS keeps its datasets"


def open_split(config: DataConfig, split: Part) -> "Source":
    """See `flax_resnets.data.source.open_source`."""
    from flax_resnets.data.tfds.prepare import declared_splits, prepare
    from flax_resnets.data.tfds.source import TfdsSource

    if split == "all":  # which is TFDS's word, too
        config = dataclasses.replace(config, validation_split="all", validation_share=None)
        split = "validation"
    builder = _builder(config)
    with quiet_tfds():
        prepared = builder.is_prepared()
    if builder.name == SAMPLE:  # which needs no data_dir
        _check_no_other_kind(config.dataset, config.data_dir)
    if not prepared:
        _check_no_bucket(config.dataset, config.data_dir)
        _check_no_other_kind(config.dataset, config.data_dir)
        check_splits(config, split, declared_splits(builder))
        prepare(builder)
        builder = _builder(config)
    with quiet_tfds():
        return TfdsSource(config, split, builder)


def _check_no_bucket(dataset: str, data_dir: str | None) -> None:
    """Raises UserError if the dataset would be prepared in a bucket."""
    if data_dir is not None and is_bucket(data_dir):
        raise UserError(f"dataset={dataset!r}: is not prepared in data_dir={data_dir}; prepare it on a disk, copy it")


def _check_no_other_kind(dataset: str, data_dir: str | None) -> None:
    """Raises UserError if the directory holds a user's own data: `dataset=folder`, or another kind, was forgotten.

    One file of arrays or of a table may well lie among TFDS's datasets. With the sample, which needs no directory, it
    is what the directory was given for.
    """
    root = None if data_dir is None else expanded(data_dir, "data_dir", buckets=True)
    if root is None or is_bucket(root) or (found := found_in(root)) is None:
        return
    if found.dataset == "folder" or dataset.partition(":")[0] == SAMPLE:
        example = str(found.example.relative_to(root))[:100]
        raise UserError(
            f"data_dir={data_dir!r}: holds {found.what}, such as {example}, and not {dataset!r}; to train on them "
            f"write dataset={found.dataset}"
        )


def metadata(config: DataConfig) -> tuple[int, int, bool]:
    """Numbers of classes and channels, and whether an image may have several classes, as TFDS declares them."""
    builder = _builder(config)
    with quiet_tfds():
        labelled = image_and_label(config, builder.info.features)
    return len(labelled.class_names), labelled.image.shape[2], labelled.multilabel


def newest_version(config: DataConfig) -> str:
    """The version that TFDS opens if the name has none."""
    return str(_builder(config).version)


def is_prepared(config: DataConfig) -> bool:
    """Whether the dataset is prepared. Its name must include the version."""
    try:
        builder = _builder(config)
    except UserError:  # TFDS knows no such version
        return False
    with quiet_tfds():
        return builder.is_prepared()


def prepare_dataset(dataset: str, data_dir: str | None) -> "Prepared":
    """Downloads and prepares a dataset, if it is not yet prepared. It need not be a set of labelled images.

    Args:
        dataset: TFDS's name.
        data_dir: directory of TFDS's datasets; None for TFDS's default.

    Raises:
        UserError: see `flax_resnets.data.tfds.prepare.prepare`.
    """
    from flax_resnets.data.tfds.prepare import Prepared, prepare

    where = where_it_lies(dataset, data_dir)
    builder = make_builder(dataset, where)
    with quiet_tfds():
        before = builder.is_prepared()
    if not before:
        _check_no_bucket(dataset, data_dir)
        prepare(builder)
        builder = make_builder(dataset, where)
    with quiet_tfds():
        info = builder.info
        return Prepared(
            name=info.full_name,
            directory=str(builder.data_dir),
            file_format=info.file_format.value if info.file_format else "",
            splits={name: each.num_examples for name, each in info.splits.items()},
            before=before,
        )


def _builder(config: DataConfig) -> "DatasetBuilder":
    """TFDS's builder of a set of labelled images."""
    builder = make_builder(config.dataset, where_it_lies(config.dataset, config.data_dir))
    with quiet_tfds():
        image_and_label(config, builder.info.features)
    return builder
