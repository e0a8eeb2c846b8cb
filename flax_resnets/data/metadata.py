"""What is known of a dataset before any of it is here."""

import os
from typing import NamedTuple

from flax_resnets.data.prepare import quiet_tfds
from flax_resnets.data.source import image_and_label, make_builder, where_it_lies


class Metadata(NamedTuple):
    """What a network has to know of a dataset.

    Attributes:
        num_classes: how many classes the labels tell apart.
        channels: 1 for grey images, 3 for colour.
    """

    num_classes: int
    channels: int


def dataset_metadata(dataset: str, data_dir: str | os.PathLike[str] | None = None) -> Metadata:
    """Classes and channels as TFDS declares them; nothing is downloaded, prepared or opened.

    Args:
        dataset: see `open_source`.
        data_dir: where TFDS may find a dataset that only its own files describe; need not exist for the others.

    Raises:
        UserError: no such dataset, or not a set of labelled images.

    Example:
        >>> dataset_metadata("fashion_mnist_sample")
        Metadata(num_classes=10, channels=1)
    """
    builder = make_builder(dataset, where_it_lies(dataset, data_dir))
    with quiet_tfds():
        image, label = image_and_label(dataset, builder.info.features)
    return Metadata(label.num_classes, image.shape[2])
