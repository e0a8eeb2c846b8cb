"""What TFDS knows about a dataset before it is downloaded."""

import os
from typing import NamedTuple

from flax_resnets.data.prepare import quiet_tfds
from flax_resnets.data.source import image_and_label, make_builder, where_it_lies


class Metadata(NamedTuple):
    """The properties of a dataset that a network needs.

    Attributes:
        num_classes: number of classes.
        channels: 1 for grey images, 3 for colour.
    """

    num_classes: int
    channels: int


def dataset_metadata(dataset: str, data_dir: str | os.PathLike[str] | None = None) -> Metadata:
    """Number of classes and channels as TFDS declares them; nothing is downloaded, prepared or opened.

    Args:
        dataset: see `open_source`.
        data_dir: where TFDS may find a dataset that only its own files describe; for other datasets it need not exist.

    Raises:
        UserError: there is no such dataset, or it is not a set of labelled images.

    Example:
        >>> dataset_metadata("fashion_mnist_sample")
        Metadata(num_classes=10, channels=1)
    """
    builder = make_builder(dataset, where_it_lies(dataset, data_dir))
    with quiet_tfds():
        image, label = image_and_label(dataset, builder.info.features)
    return Metadata(label.num_classes, image.shape[2])
