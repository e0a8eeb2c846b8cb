"""Which records of a TFDS dataset are its training and its validation images.

The fields `train_split` and `validation_split` are in TFDS's own words, such as `train[:80%]` or `train+test`
(https://www.tensorflow.org/datasets/splits). `validation_share` draws the validation images from the training split.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.errors import UserError
from flax_resnets.fields import shown

if TYPE_CHECKING:
    from tensorflow_datasets.core.splits import SplitInfo

VALIDATION = ("validation", "val", "valid", "dev", "test")
"""Names of the split that is used for validation if the configuration names none; the first that there is."""

# In the key with which validation images are drawn. In those of the epochs' shuffles the epoch is at this place.
_SHARE = 2**64 - 1


def selected(
    config: DataConfig, split: Literal["train", "validation"], splits: Mapping[str, "SplitInfo"]
) -> tuple[str, np.ndarray]:
    """The images of a split.

    Args:
        config: chooses the splits. With `validation_share`, a permutation of the training split's records is drawn from
            Philox with the key `(seed, 2**64 - 1)`. The first of them, this share, are the validation images, and the
            others the training images. So the choice depends on the seed and the number of records alone. The classes
            have about the same shares in both, but not exactly.
        split: `train` or `validation`.
        splits: the dataset's splits by name, with their numbers of records.

    Returns:
        The split in words, and int64 numbers of its records. Records are counted over all splits, in their order here.

    Raises:
        UserError: there are no such splits; they have images in common, or one has an image twice; or the share leaves
            one of them without images.
    """
    check_splits(config, split, list(splits))
    words = _words(config, split, list(splits))
    numbers = _numbers(config, split, words, splits)
    if config.validation_share is not None:
        return _drawn(config, split, words, numbers)
    usual = config.train_split is None and config.validation_split is None
    if split == "train" and not usual and (other := _named(config, "validation", list(splits))):
        common = len(np.intersect1d(numbers, _numbers(config, "validation", other, splits)))
        if common:
            raise UserError(
                f"train_split={shown(words)}, validation_split={shown(other)}: have {common:,} images in common; must "
                "have none, as 'train[:80%]' and 'train[80%:]'"
            )
    return words, numbers


def check_splits(config: DataConfig, split: Literal["train", "validation"], names: Sequence[str] | None) -> None:
    """Checks what can be checked before the dataset is downloaded.

    Args:
        config: chooses the splits.
        split: the split that will be opened.
        names: names of the dataset's splits; None if they are not known yet.

    Raises:
        UserError: a field is not in TFDS's words or names a split that the dataset lacks; `validation_share` is given
            beside another validation split; or the dataset has no such split and the configuration names none.
    """
    for field in ("train_split", "validation_split"):
        if (words := getattr(config, field)) is not None:
            _check_words(config, field, words, names)
    if config.validation_share is not None:
        _check_share(config, names)
    if names is not None:
        _words(config, split, names)


def _check_words(config: DataConfig, field: str, words: str, names: Sequence[str] | None) -> None:
    import tensorflow_datasets as tfds

    try:
        tfds.core.ReadInstruction.from_spec(words)
    except Exception:  # ValueError, NotImplementedError, and others for numbers that are too long
        raise UserError(
            f"{field}={shown(words)}: must be the name of a split, or in TFDS's words a part of one or a sum, such as "
            "'train[:80%]', 'train[500:]' or 'train+test'"
        ) from None
    for part in words.split("+"):
        name = part.partition("[")[0].strip()
        if names is not None and name not in (*names, "all"):
            raise UserError(f"{field}={shown(words)}: {_has(config, name, names)}")


def _check_share(config: DataConfig, names: Sequence[str] | None) -> None:
    share = f"validation_share={config.validation_share}"
    if config.validation_split is not None:
        raise UserError(f"{share}, validation_split={shown(config.validation_split)}: give one of the two")
    own = next((name for name in VALIDATION if name in (names or ())), None)
    if own is not None and config.train_split is None:
        raise UserError(
            f"{share}: {config.dataset} has the split {own!r} for validation; leave the share out, or draw it from the "
            "training images on purpose by --config.train_split=train"
        )


def _words(config: DataConfig, split: str, names: Sequence[str]) -> str:
    """The split in TFDS's words; raises UserError if there is none."""
    if (words := _named(config, split, names)) is None:
        raise _missing(config, split, names)
    return words


def _named(config: DataConfig, split: str, names: Sequence[str]) -> str | None:
    """The split in TFDS's words; None if the dataset has no split of a usual name and the configuration names none.

    With `validation_share` both are the split from which the validation images are drawn.
    """
    if split == "train" or config.validation_share is not None:
        return config.train_split or next((name for name in names if name == "train"), None)
    return config.validation_split or next((name for name in VALIDATION if name in names), None)


def _missing(config: DataConfig, split: str, names: Sequence[str]) -> UserError:
    """The error for a dataset without a split of a usual name: it offers ways to name one."""
    base = "train" if "train" in names or not names else names[0]
    slices = f"--config.train_split='{base}[:80%]' --config.validation_split='{base}[80%:]'"
    there = f"only {_listed(names)}"
    if split == "train" or config.validation_share is not None:
        return UserError(
            f"dataset={config.dataset!r}: has no train split, {there}; needs 'train', or its parts named: {slices}"
        )
    from_base = "" if base == "train" else f"--config.train_split={base} "
    return UserError(
        f"dataset={config.dataset!r}: has no validation split, {there}; needs 'validation' or 'test', or a part of "
        f"{base}: {slices}, or {from_base}--config.validation_share=0.2"
    )


def _has(config: DataConfig, name: str, names: Sequence[str]) -> str:
    return f"{config.dataset} has no split {name!r}, only {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if names[8:] else "") or "none"


def _numbers(config: DataConfig, split: str, words: str, splits: Mapping[str, "SplitInfo"]) -> np.ndarray:
    import tensorflow_datasets as tfds

    field = "train_split" if split == "train" or config.validation_share is not None else "validation_split"
    starts, total = {}, 0
    for name, info in splits.items():
        starts[name], total = total, total + info.num_examples
    try:
        # Not `file_instructions`: they are wrong for a slice that ends before it begins.
        parts = tfds.core.ReadInstruction.from_spec(words).to_absolute(dict(splits))
    except Exception as error:
        raise UserError(f"{field}={shown(words)}: {str(error)[:200]}") from error
    numbers = [
        np.arange(part.from_ or 0, splits[part.splitname].num_examples if part.to is None else part.to)
        + starts[part.splitname]
        for part in parts
    ]
    joined = np.concatenate(numbers).astype(np.int64)
    twice = len(joined) - len(np.unique(joined))
    if twice:
        raise UserError(f"{field}={shown(words)}: has {twice:,} images twice; must have each image once")
    return joined


def _drawn(config: DataConfig, split: str, words: str, numbers: np.ndarray) -> tuple[str, np.ndarray]:
    """The training or the validation images, drawn from the records `numbers`; in words, and in the records' order."""
    share, images = config.validation_share or 0.0, len(numbers)
    count = round(images * share)
    if not 0 < count < images:
        raise UserError(
            f"validation_share={share}: is {count} of the {images:,} images; must leave images to both splits"
        )
    key = np.array([config.seed, _SHARE], np.uint64)
    order = np.random.Generator(np.random.Philox(key=key)).permutation(images)
    drawn = f"{share:g} of {words} by seed {config.seed}"
    if split == "validation":
        return drawn, numbers[np.sort(order[:count])]
    return f"{words} without {drawn}", numbers[np.sort(order[count:])]
