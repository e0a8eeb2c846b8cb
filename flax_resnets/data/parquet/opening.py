"""Opens a split of a dataset whose parquet files are found."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from flax_resnets.data.config import DataConfig, Part
from flax_resnets.data.parquet.columns import Columns, as_numbers, distinct, find_columns, read_labels
from flax_resnets.data.parquet.files import Shards
from flax_resnets.data.parquet.source import ParquetSource
from flax_resnets.data.shares import part_of
from flax_resnets.errors import UserError


def open_shards(config: DataConfig, split: Part, shards: Shards) -> ParquetSource:
    """Opens a split.

    Raises:
        UserError: the files are damaged, or are not images and labels.
    """
    columns, class_names, values = _classes(config, shards)
    own = 1 if split == "validation" and shards.validation else 0
    files, name = (shards.train, shards.validation)[own], shards.names[own]
    paths = _alike(config, shards, files, columns)
    labels = as_numbers(read_labels(paths, columns), values, f"split {name!r} in {shards.root}")
    if not len(labels):
        raise UserError(f"split {name!r} in {shards.root}: has no rows")
    rows, name = part_of(labels, shards.names, config, split, str(shards.root))
    return ParquetSource(config.dataset, name, shards.version, shards.root, paths, columns, class_names, labels, rows)


def metadata_of_shards(config: DataConfig, shards: Shards) -> tuple[int, int, bool]:
    """See `flax_resnets.data.source.Metadata`; raises UserError as `open_shards` does."""
    columns, class_names, _ = _classes(config, shards)
    return len(class_names), columns.channels, columns.multilabel


def _classes(config: DataConfig, shards: Shards) -> tuple[Columns, tuple[str, ...], list[Any]]:
    """The columns, the names of the classes, and the labels that mean them in the files."""
    columns = find_columns(shards.root / shards.train[0], config)
    if columns.class_names is not None and pa.types.is_integer(columns.label_type):
        return columns, columns.class_names, list(range(len(columns.class_names)))
    values = distinct(read_labels(_alike(config, shards, shards.train, columns), columns))
    if len(values) < 2:
        raise UserError(
            f"label_key={columns.label!r}: the training images in {shards.root} have {len(values)} classes; at least 2 "
            "are needed"
        )
    return columns, tuple(map(str, values)), values


def _alike(config: DataConfig, shards: Shards, files: tuple[str, ...], columns: Columns) -> list[Path]:
    """The paths of these files; raises UserError if one has other columns than the first of the training files."""
    paths = shards.paths(files)
    for path in paths:
        if (there := find_columns(path, config)) != columns:
            what = next(key for key in Columns._fields if getattr(there, key) != getattr(columns, key))
            raise UserError(
                f"{path}: its {what.replace('_', ' ')} is not that of {shards.train[0]}; both must be alike"
            )
    return paths
