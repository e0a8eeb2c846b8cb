"""The identity of a run's data, which `data.json` holds: version, content, counts and classes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flax_resnets import storage
from flax_resnets.data.config import DataConfig, name_and_version
from flax_resnets.data.source import Source, check_data_dir, kind_of
from flax_resnets.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """The content of a dataset. The location and the times of its files do not matter.

    Attributes:
        dataset: name of the dataset, without a version.
        version: version of the dataset, such as `1.0.0`; empty if it has none.
        fingerprint: 64 hex digits for the content of both splits' files, see `Source`.
        counts: number of images of `train` and of `validation`, including broken ones.
        splits: the dataset's names of the two splits.
        channels: 1 for grey images, 3 for colour.
        class_names: names of the classes, in the order of their labels.
        mean, std: those of the training images' pixels for each channel, see `pixel_statistics`, if the run normalises
            by them; otherwise None.
        class_counts: number of images of each class, of `train` and of `validation`, without broken images. None where
            it is not known without reading all images.
        multilabel: true if an image may have any number of classes; otherwise None.
        in_both: number of validation images that are also training images, pixel by pixel; None if not known.
    """

    dataset: str
    version: str
    fingerprint: str
    counts: dict[str, int]
    splits: dict[str, str]
    channels: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_counts: dict[str, tuple[int, ...]] | None = None
    in_both: int | None = None
    multilabel: bool | None = None

    @property
    def pinned(self) -> str:
        """The name with the version, such as `cifar10:3.0.2`, which opens only this version."""
        return f"{self.dataset}:{self.version}" if self.version else self.dataset

    @property
    def name(self) -> str:
        """The name and the version in words, such as `cifar10 3.0.2`."""
        return f"{self.dataset} {self.version}".rstrip()

    @property
    def used(self) -> dict[str, int]:
        """Like `counts`, but without broken images, if `class_counts` tells how many these are."""
        if self.class_counts is None or self.multilabel:
            return self.counts
        return {split: sum(counts) for split, counts in self.class_counts.items()}

    @property
    def split_seed(self) -> int | None:
        """The seed that chose which images are for validation; None if none did, see `share_of`."""
        _, drawn, seed = self.splits["validation"].rpartition(" by seed ")
        return int(seed) if drawn and seed.isdecimal() else None

    def in_words(self, size: int) -> str:
        """Describes the data in one line. `size` is the side of the images that the network sees, in pixels."""
        train, validation = self.used["train"], self.used["validation"]
        colour = "grey" if self.channels == 1 else "colour"
        return (
            f"{self.name}: {train:,} training and {validation:,} validation images, "
            f"{size} px, {colour}, {len(self.class_names):,} classes"
            + (", any number of them an image" if self.multilabel else "")
            + (f", pixels of mean {_short(self.mean)} and std {_short(self.std)}" if self.mean and self.std else "")
        )

    def remarks(self, evened: bool = False) -> list[str]:
        """What a user should know of the classes and the splits, a line each; empty if there is nothing to say.

        Args:
            evened: whether the run evens out the classes already.
        """
        lines = []
        for split, counts in (self.class_counts or {}).items():
            empty = [self._class(label) for label, count in enumerate(counts) if not count]
            if empty:
                names = ", ".join(empty[:3]) + (f" and {len(empty) - 3} others" if empty[3:] else "")
                lines.append(f"no {_IN_WORDS[split]} images of class {names}")
            there = sorted((count, label) for label, count in enumerate(counts) if count)
            if split == "train" and there and there[-1][0] > _UNBALANCED * there[0][0]:
                (few, smallest), (many, largest) = there[0], there[-1]
                names = f"largest class {self._class(largest)} {many:,}, smallest {self._class(smallest)} {few:,}"
                ways = "sampler=balanced" if self.multilabel else "class_weights=balanced or sampler=balanced"
                remedy = "" if evened else f"; {ways} evens it out"
                lines.append(f"unbalanced: {names} ({many / few:.0f} to 1){remedy}")
        if self.in_both:
            lines.append(
                f"{self.in_both:,} of the {self.used['validation']:,} validation images are training images too, "
                "pixel by pixel; on them the accuracy says nothing about new images"
            )
        return lines

    def _class(self, label: int) -> str:
        return repr(self.class_names[label][:50])

    def to_json(self) -> str:
        """The identity as indented JSON, for `data.json`; without what is not known."""
        known = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return json.dumps(known, indent=2) + "\n"

    def difference(self, other: "Identity") -> str | None:
        """The first difference of another identity from this one, in words; None if they are equal."""
        if (self.dataset, self.version) != (other.dataset, other.version):
            return f"{other.name}, not {self.name}"
        if self.class_names != other.class_names:
            pairs = zip(self.class_names, other.class_names, strict=False)
            number = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
            if number is None:
                return f"{len(other.class_names)} classes, not {len(self.class_names)}"
            return f"{other.class_names[number][:50]!r} as class {number}, not {self.class_names[number][:50]!r}"
        for split, count in self.counts.items():
            if other.counts[split] != count:
                return f"{other.counts[split]} {split} images, not {count}"
        if self.multilabel != other.multilabel:
            forms = {True: "any number of classes an image", None: "one class an image"}
            return f"{forms[other.multilabel]}, not {forms[self.multilabel]}"
        if self.channels != other.channels:
            return f"images of {other.channels} channels, not {self.channels}"
        if (self.splits, self.fingerprint) != (other.splits, other.fingerprint):
            return f"other images or labels (fingerprint {other.fingerprint[:8]}, not {self.fingerprint[:8]})"
        return None


_IN_WORDS = {"train": "training", "validation": "validation"}
_UNBALANCED = 3  # a larger class may have this many times the images of a smaller one without a remark


def _short(values: Sequence[float]) -> str:
    return ",".join(f"{value:.3f}" for value in values)


def identity_of(train: Source, validation: Source) -> Identity:
    """The identity of a dataset, computed from its two splits."""
    return Identity(
        dataset=name_and_version(train.dataset)[0],
        version=train.version,
        fingerprint=hashlib.sha256(f"{train.fingerprint} {validation.fingerprint}".encode()).hexdigest(),
        counts={"train": len(train), "validation": len(validation)},
        splits={"train": train.split, "validation": validation.split},
        channels=train.channels,
        class_names=train.class_names,
        multilabel=train.multilabel or None,
    )


def read_identity(path: Path) -> Identity | None:
    """The identity in a `data.json`; None if there is no such file.

    Raises:
        UserError: the file cannot be read, or does not hold an identity.
    """
    try:
        if (content := storage.read(path)) is None:
            return None
        record = json.loads(content)
        for name in ("class_names", "mean", "std"):
            if record.get(name) is not None:
                record[name] = tuple(record[name])
        if record.get("class_counts") is not None:
            record["class_counts"] = {split: tuple(counts) for split, counts in record["class_counts"].items()}
        identity = Identity(**record)
        _check_types(identity)
    except OSError as error:
        right = "; whoever reads the run must be allowed to" if isinstance(error, PermissionError) else ""
        raise UserError(f"{path}: {error.strerror or error}{right}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: is no record of a run's data ({str(error)[:200]}); restore it, or delete it if the data is "
            "still the same"
        ) from None
    return identity


def _check_types(identity: Identity) -> None:
    both = {"train", "validation"}

    def all_are(kind: type, values: Any) -> bool:
        return all(type(value) is kind for value in values)

    numbers = *(identity.mean or ()), *(identity.std or ())
    counts = identity.class_counts or {}
    right = (
        isinstance(identity.class_names, tuple)
        and all_are(str, (identity.dataset, identity.version, identity.fingerprint, *identity.class_names))
        and all_are(int, (identity.channels, *identity.counts.values()))
        and all_are(str, identity.splits.values())
        and identity.counts.keys() == identity.splits.keys() == both
        and all_are(float, numbers)
        and all(0 <= number <= 1 for number in numbers)
        and {identity.mean and len(identity.mean), identity.std and len(identity.std)} in ({None}, {identity.channels})
        and all(std > 0 for std in identity.std or ())
        and type(identity.in_both) in (int, type(None))
        and identity.multilabel in (True, None)
        and (identity.class_counts is None or counts.keys() == both)
        and all(len(each) == len(identity.class_names) for each in counts.values())
        and all(type(count) is int and count >= 0 for each in counts.values() for count in each)
    )
    if not right:
        raise TypeError("a value is of another type")


def newest_version(config: DataConfig) -> str:
    """The version that is opened if the dataset's name has none; raises the errors of `open_source`."""
    check_data_dir(config)
    return kind_of(config.dataset).newest_version(config)


def is_prepared(config: DataConfig) -> bool:
    """Whether the dataset is prepared. Its name must include the version."""
    return kind_of(config.dataset).is_prepared(config)
