"""Hugging Face's image datasets as parquet files: `dataset=parquet`, as a `flax_resnets.data.source.Kind`.

`data_dir` holds files such as `train-00000-of-00002.parquet` and `test-00000-of-00001.parquet`, perhaps in `data/`.
They have a column of images (`{bytes, path}` or bytes) and one of labels (a ClassLabel, whole numbers or text).
"""

from typing import TYPE_CHECKING

from flax_resnets.data.config import DataConfig, Part, data_directory
from flax_resnets.data.parquet import hub
from flax_resnets.data.parquet.files import EXPECTED, Shards, shards_in
from flax_resnets.data.parquet.require import require

if TYPE_CHECKING:
    from flax_resnets.data.source import Source

__all__ = ["EXPECTED", "hub", "is_prepared", "metadata", "newest_version", "open_split"]


def open_split(config: DataConfig, split: Part) -> "Source":
    """See `flax_resnets.data.source.open_source`."""
    require("pyarrow", "parquet", config.dataset)
    from flax_resnets.data.parquet.opening import open_shards

    return open_shards(config, split, _shards(config))


def metadata(config: DataConfig) -> tuple[int, int, bool]:
    """Numbers of classes and channels, and whether an image may have several classes."""
    require("pyarrow", "parquet", config.dataset)
    from flax_resnets.data.parquet.opening import metadata_of_shards

    return metadata_of_shards(config, _shards(config))


def _shards(config: DataConfig) -> Shards:
    return shards_in(data_directory(config, EXPECTED), config)


def newest_version(config: DataConfig) -> str:
    """Parquet files have no versions."""
    return ""


def is_prepared(config: DataConfig) -> bool:
    """There is nothing to prepare."""
    return True
