"""The fields that choose a run's images and how they are kept."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from flax_resnets.copies import copied_directory
from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, Rule
from flax_resnets.paths import expanded
from flax_resnets.storage import is_bucket, is_url, names

Part = Literal["train", "validation", "all"]
"""What is opened of a dataset: one of the two splits of a run, or all of its images."""

Sampler = Literal["shuffle", "balanced"]

# Besides, an image of more than 89 million pixels is not decoded.
LONGEST_SIDE = 8192

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".rar", ".7z")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Fields):
    """The fields that choose a run's images and how they are kept.

    Attributes:
        dataset: a TFDS name such as `imagenette/160px-v2`; `fashion_mnist_sample`, which is part of the package;
            `folder`; `parquet`; `npz`; or `hf:owner/name`, a dataset of the Hugging Face hub. docs/data.md describes
            the last four.
        data_dir: directory of TFDS's datasets, None for TFDS's default; or that of the pictures, parquet files or
            arrays.
        train_split, validation_split: the dataset's names of the two splits. For TFDS's datasets also parts and sums of
            splits, such as `train[:80%]`. None for `train`, and for the first that there is of `validation`, `val`,
            `valid`, `dev` and `test`; in a folder, of parquet files and of arrays, of `val`, `valid`, `validation` and
            `test`.
        validation_share: share of the training images that become the validation split, if the dataset has only one
            split. None if it has two, and for 0.2 if it is a folder, parquet files or arrays with one. Of these, each
            class gives its share; of TFDS's datasets all images are drawn from at once, so that the classes have about
            the same shares in both, but not exactly.
        image_key, label_key: names of the features or columns that hold the image and its class, such as
            `coarse_label`; of a feature inside another one, `outer/inner`. None for `image` and `label`; in a folder's
            `images.csv`, for `path` and `label`; of arrays, for `images` or `x`, and `labels` or `y`.
        label_separator: what stands between the labels of a picture in `images.csv`, such as `;` or a space. A picture
            may then have any number of labels, also none (multi-label). None for exactly one label.
        num_classes: number of classes, if the label is a number and the dataset does not say how many there are. Their
            names are then `0`, `1` and so on. None for the dataset's own number; another number is refused.
        store_size: side of the images that are kept, in pixels; from these the device crops or resizes. None for
            `image_size`.
        resize: how an image becomes square: `squash` ignores its aspect ratio, `crop` takes its centre.
        images: `cached` decodes all images once, before the run begins, and keeps them. `streamed` decodes an image
            each time it is used, ahead of the steps, on all CPU cores: for datasets too large to keep. The numbers are
            the same.
        sampler: how the training images are drawn. `shuffle`: in each epoch every image once, in random order.
            `balanced`: each class equally often, see `flax_resnets.data.batches.balanced_indices`.
        broken_images: what to do about images that cannot be decoded. `stop` ends the run with a message that names
            them: before the run begins, or, with streamed images, when the first one is read. `skip` leaves them out of
            training and evaluation, names them, and lists them in the workdir's `broken_images.txt`. It is not allowed
            with streamed images.
        seed: seed of the initial weights, the order of the images, the augmentation, and of the choice of validation
            images by `validation_share`.
    """

    dataset: str
    data_dir: str | None = None
    train_split: str | None = None
    validation_split: str | None = None
    validation_share: float | None = None
    image_key: str | None = None
    label_key: str | None = None
    label_separator: str | None = None
    num_classes: int | None = None
    store_size: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    images: Literal["cached", "streamed"] = "cached"
    sampler: Sampler = "shuffle"
    broken_images: Literal["stop", "skip"] = "stop"
    seed: int = 0

    RULES = (
        Rule("data_dir", lambda v: v != "", "a directory, or none for TFDS's own"),
        Rule("train_split validation_split", lambda v: v != "", "the name of a split, or none for the usual one"),
        Rule("validation_share", lambda v: 0 < v < 1, "above 0 and below 1"),
        Rule("image_key label_key", lambda v: v != "", "the name of a feature, or none for the usual one"),
        Rule("label_separator", lambda v: v != "", "the text between two labels, or none for one label a picture"),
        Rule("num_classes", lambda v: 2 <= v <= 10**6, "from 2 to 1000000"),
        Rule("store_size", lambda v: v >= 1, "at least 1"),
        Rule("store_size", lambda v: v <= LONGEST_SIDE, f"at most {LONGEST_SIDE} pixels"),
        Rule("seed", lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    )

    def check(self) -> None:
        """See `Fields.check`."""
        super().check()
        if self.label_separator is not None and self.dataset != "folder":
            raise UserError(
                f"label_separator={self.label_separator!r}: only with dataset=folder, whose images.csv holds labels as "
                "text; leave it out"
            )
        if self.images == "streamed" and self.broken_images == "skip":
            raise UserError("broken_images=skip: not with images=streamed, which finds them only during the run")


def name_and_version(dataset: str) -> tuple[str, str]:
    """Divides a dataset's name into the name itself and the version; the version is empty if the name has none.

    Example:
        >>> name_and_version("cifar10:3.0.2"), name_and_version("hf:owner/name")
        (('cifar10', '3.0.2'), ('hf:owner/name', ''))
    """
    hub = "hf:" if dataset.startswith("hf:") else ""
    name, _, version = dataset.removeprefix(hub).partition(":")
    return hub + name, version


def data_directory(config: DataConfig, expected: str) -> Path:
    """The directory that a configuration names as `data_dir`, for a kind of dataset that has no default.

    Args:
        config: the configuration.
        expected: what the directory must be, in words.

    Raises:
        UserError: `data_dir` names no directory.
    """
    name, version = name_and_version(config.dataset)
    if version:
        raise UserError(f"dataset={config.dataset!r}: has no versions; its name is {name!r}")
    if config.data_dir is None:
        raise UserError(f"dataset={config.dataset!r}: needs data_dir; expected is {expected}")
    directory = existing_directory(config.data_dir, expected)
    return _copied(config.data_dir) if is_bucket(directory) else directory.resolve()


@cache
def _copied(data_dir: str) -> Path:
    return copied_directory(expanded(data_dir, "data_dir", buckets=True), "data_dir").resolve()


def existing_directory(data_dir: str, expected: str) -> Path:
    """The directory `data_dir`, with `~` expanded; raises UserError, which says what is expected, if there is none.

    It may be in a bucket, `gs://BUCKET/PATH`.
    """
    if is_url(data_dir):
        in_bucket = expanded(data_dir, "data_dir", buckets=True)
        try:
            if names(in_bucket) is None:
                raise UserError(f"data_dir={data_dir}: no such directory in the bucket; expected is {expected}")
        except OSError as error:
            raise UserError(f"data_dir={data_dir}: {error.strerror}") from None
        return in_bucket
    directory = os.path.expanduser(data_dir)  # pathlib's expanduser raises an error if there is no such user
    if not os.path.isdir(directory):  # pathlib's is_dir raises an error if the name is too long
        problem = "no such directory"
        if os.path.isfile(directory):
            problem = f"is a file; name the directory that it lies in, {os.path.dirname(directory) or '.'!r}"
            if directory.lower().endswith(_ARCHIVES):
                problem = "is an archive; unpack it, and name the directory"
        raise UserError(f"data_dir={directory!r}: {problem}; expected is {expected}")
    return Path(directory)
