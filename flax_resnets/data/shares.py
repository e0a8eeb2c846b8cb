"""Finds the training and the validation split by their names, or divides one split in two by a seed."""

import math
from collections.abc import Collection
from typing import Literal

import numpy as np

from flax_resnets.data.config import DataConfig, Part
from flax_resnets.data.labels import strata
from flax_resnets.errors import UserError

VALIDATION = ("val", "valid", "validation", "test")
"""The names by which a validation split is found, in this order."""

DEFAULT_SHARE = 0.2
"""The share that becomes the validation split if the configuration names none."""


def choose_splits(there: Collection[str], config: DataConfig, where: str) -> tuple[str, str]:
    """The names of the two splits among those that there are.

    Args:
        there: names of the splits.
        config: may name the splits.
        where: the directory or file that has them, for messages.

    Returns:
        The training split, and the validation split; that is empty if it is to be a share of the training split.

    Raises:
        UserError: there is no such split; both are the same one; or there are both a validation split and a
            `validation_share`, and `train_split` does not say that a share is wanted all the same.

    Example:
        >>> choose_splits(["test", "train"], DataConfig(dataset="folder"), "photos")
        ('train', 'test')
    """
    train, share = config.train_split or "train", config.validation_share
    own = next((name for name in VALIDATION if name in there), "")
    validation = config.validation_split or (own if share is None else "")
    chosen = {"train_split": train, "validation_split": validation}
    # A name that the user gave is reported before one that is assumed.
    for field in sorted(chosen, key=lambda field: getattr(config, field) is None):
        name = chosen[field]
        if name and name not in there:
            known = ", ".join(map(repr, sorted(there)[:8]))[:150] or "none"
            raise UserError(f"{field}={name!r}: {where} has no such split; there is {known}")
    if train == validation:
        raise UserError(f"train_split and validation_split: both are {train!r}; they must have no images in common")
    if share is not None and validation:
        raise UserError(f"validation_share={share:g}, validation_split={validation!r}: give one of the two")
    if share is not None and own and config.train_split is None:
        raise UserError(
            f"validation_share={share:g}: {where} has a validation split, {own!r}; leave the share out, or take it "
            "from the training images on purpose by train_split=train"
        )
    return train, validation


def part_of(
    labels: np.ndarray, names: tuple[str, str], config: DataConfig, part: Part, where: str
) -> tuple[np.ndarray | None, str]:
    """The images of one of the parts of a set whose splits are found.

    Args:
        labels: int32 `(N,)` or int8 `(N, classes)`, of the split that has the part's images.
        names: see `choose_splits`.
        config: has the share and the seed, if a split is divided.
        part: which part.
        where: the directory or file that has the splits, for messages.

    Returns:
        Indices of the part's images, int64, in order, or None for all; and the part's name.

    Raises:
        UserError: all images are asked for of a set that has two splits, or no class has enough images to give one.
    """
    train, validation = names
    if part == "all" and validation:
        raise UserError(f"split='all': {where} has the splits {train!r} and {validation!r}; name one of them")
    if part == "all" or validation:
        return None, validation if part == "validation" else train
    return share_of(labels, config.validation_share or DEFAULT_SHARE, config.seed, part, train)


def share_of(
    labels: np.ndarray, share: float, seed: int, part: Literal["train", "validation"], name: str
) -> tuple[np.ndarray, str]:
    """The images of one of the two parts.

    A class of n images gives `n * share` of them to validation, rounded to the nearest whole number (a half is rounded
    up), but not its last one. Which ones depends on the seed, the class's place among the classes, and n. An image of
    several classes counts as one of the rarest of these; those without any class count as a class of their own.

    Args:
        labels: int32 `(N,)`, from 0, or int8 `(N, classes)`.
        share: above 0 and below 1.
        seed: from 0 to 2**32 - 1.
        part: which part.
        name: name of the split that is divided.

    Returns:
        Indices of the part's images, int64, in order; and the part's name, which tells it from all other parts.

    Raises:
        UserError: no class has enough images to give one.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
        >>> rows, name = share_of(labels, 0.2, seed=0, part="validation", name="train")
        >>> labels[rows].tolist(), name
        ([0, 1], '0.2 of train by seed 0')
    """
    held_out = np.zeros(len(labels), bool)
    classes = strata(labels)
    for label, count in enumerate(np.bincount(classes)):
        given = min(math.floor(count * share + 0.5), count - 1)
        if given > 0:
            random = np.random.Generator(np.random.Philox(key=[seed, label]))
            held_out[np.flatnonzero(classes == label)[random.permutation(count)[:given]]] = True
    if not held_out.any():
        raise UserError(
            f"validation_share={share:g}: of the {len(labels)} images of {name!r}, no class has enough to give one to "
            "validation; add images, or choose a larger share"
        )
    drawn = f"{share:g} of {name} by seed {seed}"
    if part == "validation":
        return np.flatnonzero(held_out), drawn
    return np.flatnonzero(~held_out), f"{name} without {drawn}"
