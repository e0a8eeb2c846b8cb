"""Opens the data of a run and compares it with the identity that the run has recorded."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from flax_resnets.data.batches import Split
from flax_resnets.data.cache import CachedImages
from flax_resnets.data.identity import Identity, identity_of, is_prepared, newest_version
from flax_resnets.data.labels import class_counts
from flax_resnets.data.source import Source
from flax_resnets.data.statistics import images_of_both
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.completion import statistics_with_bar
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.splits import open_split
from flax_resnets.training.workdir import check_data, other_data, recorded_data


def record_data(data: Identity, workdir: Path, step: int, say: Callable[[str], None]) -> None:
    """Writes the identity of the run's data to `data.json`, unless the file exists.

    Args:
        data: the identity of the data.
        workdir: the run's directory.
        step: the step from which the run resumes. If it is not 0, an earlier version, which wrote no `data.json`, began
            the run, and `say` gets a message.
        say: is called with a message for the user.
    """
    if recorded_data(workdir) is not None:
        return
    write_whole(workdir / "data.json", data.to_json().encode())
    if step:
        counts = " and ".join(f"{count:,} {split}" for split, count in data.counts.items())
        say(f"{workdir}: had no record of its data; taken to be {data.name}, {counts} images")


def open_data(config: Config, workdir: Path, say: Callable[[str], None]) -> tuple[Source, Source, Identity]:
    """Opens the training and the validation split, without decoding images.

    If the dataset's name has no version, TFDS opens the newest one. A run that resumes opens the version that it began
    with, if it is still there.

    Args:
        config: the run's configuration.
        workdir: the run's directory, which need not exist.
        say: is called with a message if the run's version is not the one that TFDS would open.

    Returns:
        The training split, the validation split and their identity: the recorded one, if there is one.

    Raises:
        UserError: there is no such data, or it is not the data that the run began with.
    """
    recorded = recorded_data(workdir)
    opened = config
    if recorded is not None and config.dataset == recorded.dataset:
        newest = newest_version(config)
        if newest != recorded.version:
            opened = dataclasses.replace(config, dataset=recorded.pinned)
            if not is_prepared(opened):
                raise other_data(recorded, f"version {newest}", config, workdir)
            say(f"{workdir}: going on with {recorded.name}, as it began; {newest} is there too")
    # First the split that a dataset is more likely to lack: that is found out before anything is downloaded.
    validation, train = open_split(opened, "validation"), open_split(opened, "train")
    for note in dict.fromkeys((*train.notes, *validation.notes)):  # both have the same if one is a share of the other
        say(note)
    found = identity_of(train, validation)
    check_data(found, config, workdir)
    return train, validation, recorded or found


def described(
    data: Identity, config: Config, train: Split, validation: Split, display: Display, *, normalised: bool = False
) -> Identity:
    """The identity with what only the images tell and is not recorded yet.

    That is mean and standard deviation, if the configuration leaves them to the data; the number of images of each
    class, if the labels are at hand; and the number of validation images that are also training images, if both splits
    are cached.

    Args:
        data: as `open_data` returns it.
        config: the run's configuration.
        train: training split.
        validation: validation split.
        display: shows the progress.
        normalised: whether mean and standard deviation come with the weights that the run begins with.

    Raises:
        UserError: all training images are of one class; an image cannot be read; or all pixels are equal.
    """
    if data.class_counts is None and train.labels_at_hand and validation.labels_at_hand:
        classes = len(data.class_names)
        counts = {"train": class_counts(train.labels, classes), "validation": class_counts(validation.labels, classes)}
        data = dataclasses.replace(data, class_counts=counts)
    if data.class_counts is not None:
        there = [name for name, count in zip(data.class_names, data.class_counts["train"], strict=True) if count]
        if len(there) < 2:
            which = f"are of class {there[0][:50]!r}" if there else "have no label"
            raise UserError(
                f"dataset={config.dataset}: all training images {which}, so there is nothing to learn; training needs "
                "images of at least 2 classes"
            )
    if data.in_both is None and isinstance(train, CachedImages) and isinstance(validation, CachedImages):
        data = dataclasses.replace(data, in_both=images_of_both(train.images, validation.images))
    if data.mean is None and config.mean is None and not normalised:
        data = dataclasses.replace(data, **statistics_with_bar(train, display)._asdict())
    return data
