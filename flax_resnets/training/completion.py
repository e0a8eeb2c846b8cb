"""Puts numbers into a configuration where it leaves them to the data: `mean`, `std` and `class_weights`."""

import dataclasses
from typing import Any

from flax_resnets.augment.normalise import statistics_of
from flax_resnets.data.batches import Split
from flax_resnets.data.labels import class_counts
from flax_resnets.data.statistics import (
    MOST_IMAGES,
    PixelStatistics,
    balanced_weights,
    pixel_statistics,
)
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display


def completed(
    config: Config,
    train: Split,
    num_classes: int,
    *,
    statistics: PixelStatistics | None = None,
    display: Display | None = None,
) -> Config:
    """The configuration with numbers for the compiled steps in `mean`, `std` and `class_weights`.

    The run's `config.json` keeps what the user asked for.

    Args:
        config: the run; it is returned as it is if it leaves nothing to the data.
        train: training split.
        num_classes: number of classes.
        statistics: mean and standard deviation, if they are already known.
        display: shows the progress.

    Raises:
        UserError: a training image cannot be read, or all pixels are equal.
    """
    display = display or Display(silent=True)
    changes: dict[str, Any] = {}
    if config.mean is None:
        changes.update((statistics or statistics_with_bar(train, display))._asdict())
    elif "imagenet" in (config.mean, config.std):
        changes.update(zip(("mean", "std"), statistics_of(config), strict=True))
    if "balanced" in (config.sampler, config.class_weights) and not train.labels_at_hand:
        display.say(f"reading {len(train):,} records for their labels, which balanced needs")
        _ = train.labels  # it keeps them, so that a damaged record is found now and not in a step
    if config.class_weights == "balanced":
        changes["class_weights"] = balanced_weights(class_counts(train.labels, num_classes))
    return dataclasses.replace(config, **changes) if changes else config


def statistics_with_bar(train: Split, display: Display) -> PixelStatistics:
    """`pixel_statistics`, with a bar that shows the progress."""
    with display.bar("mean and std of the training images", min(len(train), MOST_IMAGES), "images/s") as bar:
        return pixel_statistics(train, bar.to)


def placeholder(config: Config, channels: int, num_classes: int) -> Config:
    """Like `completed`, without data: with any numbers, for programs that are compiled and not run.

    Args:
        config: the run.
        channels: of the images.
        num_classes: number of classes.
    """
    changes: dict[str, Any] = {}
    if config.mean is None:
        changes = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    if config.class_weights == "balanced":
        changes["class_weights"] = (1.0,) * num_classes
    return dataclasses.replace(config, **changes) if changes else config
