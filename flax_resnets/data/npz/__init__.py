"""NumPy's arrays as a dataset: `dataset=npz`, as a `flax_resnets.data.source.Kind`.

`data_dir` holds one `.npz` file with the arrays of all splits, as MedMNIST's and Keras's files are, or one for each
split. Nothing in them is executed: arrays of Python objects, which are pickles, are refused.
"""

from typing import TYPE_CHECKING

from flax_resnets.data.config import DataConfig, Part, data_directory
from flax_resnets.data.npz.arrays import EXPECTED, find_arrays, image_shape
from flax_resnets.data.npz.classes import classes_of, read_labels
from flax_resnets.data.shares import part_of
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from flax_resnets.data.source import Source

__all__ = ["EXPECTED", "is_prepared", "metadata", "newest_version", "open_split"]


def open_split(config: DataConfig, split: Part) -> "Source":
    """See `flax_resnets.data.source.open_source`."""
    from flax_resnets.data.npz.source import NpzSource

    root = data_directory(config, EXPECTED)
    found, names = find_arrays(root, config)
    own = found[(split == "validation" and names[1]) or names[0]]
    classes = classes_of(found[names[0]], config)
    channels, expected = image_shape(own)[3], image_shape(found[names[0]])[3]
    if channels != expected:
        raise UserError(f"{own.where}: has {channels} channels, the training images have {expected}")
    labels = classes.numbers(read_labels(own), own)
    rows, name = part_of(labels, names, config, split, str(root))
    return NpzSource(config.dataset, name, own, classes.names, labels, rows)


def metadata(config: DataConfig) -> tuple[int, int, bool]:
    """Numbers of classes and channels, and whether an image may have several classes. No image is read."""
    found, names = find_arrays(data_directory(config, EXPECTED), config)
    train = found[names[0]]
    classes = classes_of(train, config)
    return len(classes.names), image_shape(train)[3], classes.values is None


def newest_version(config: DataConfig) -> str:
    """Arrays have no versions."""
    return ""


def is_prepared(config: DataConfig) -> bool:
    """There is nothing to prepare."""
    return True
