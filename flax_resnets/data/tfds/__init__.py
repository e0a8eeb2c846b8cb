"""TFDS's datasets, as a `flax_resnets.data.source.Kind`. All code that depends on TFDS is in this folder."""

from typing import TYPE_CHECKING, Literal

from flax_resnets.data.config import DataConfig
from flax_resnets.data.tfds.builder import SAMPLE, SAMPLE_DIR, make_builder, where_it_lies
from flax_resnets.data.tfds.features import image_and_label
from flax_resnets.data.tfds.patches import quiet_tfds
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

    from flax_resnets.data.source import Source

__all__ = ["SAMPLE", "SAMPLE_DIR", "is_prepared", "metadata", "newest_version", "open_split"]


def open_split(config: DataConfig, split: Literal["train", "validation"]) -> "Source":
    """See `flax_resnets.data.source.open_source`."""
    from flax_resnets.data.tfds.prepare import prepare
    from flax_resnets.data.tfds.source import TfdsSource

    dataset, builder = config.dataset, _builder(config)
    with quiet_tfds():
        prepared = builder.is_prepared()
    if not prepared:
        prepare(builder)
        builder = _builder(config)
    with quiet_tfds():
        return TfdsSource(dataset, _split_in_tfds(dataset, split, list(builder.info.splits)), builder)


def _split_in_tfds(dataset: str, split: str, splits: list[str]) -> str:
    for name in ("validation", "test") if split == "validation" else (split,):
        if name in splits:
            return name
    known = "'train'" if split == "train" else "'validation' or 'test'"
    raise UserError(f"dataset={dataset!r}: has no {split} split, only {', '.join(splits) or 'none'}; needs {known}")


def metadata(config: DataConfig) -> tuple[int, int]:
    """Numbers of classes and channels, as TFDS declares them."""
    builder = _builder(config)
    with quiet_tfds():
        image, label = image_and_label(config.dataset, builder.info.features)
    return label.num_classes, image.shape[2]


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


def _builder(config: DataConfig) -> "DatasetBuilder":
    return make_builder(config.dataset, where_it_lies(config.dataset, config.data_dir))
