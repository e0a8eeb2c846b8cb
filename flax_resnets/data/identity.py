"""The identity of a run's data, which `data.json` holds: version, content, counts and classes."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

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
    """

    dataset: str
    version: str
    fingerprint: str
    counts: dict[str, int]
    splits: dict[str, str]
    channels: int
    class_names: tuple[str, ...]

    @property
    def pinned(self) -> str:
        """The name with the version, such as `cifar10:3.0.2`, which opens only this version."""
        return f"{self.dataset}:{self.version}" if self.version else self.dataset

    @property
    def name(self) -> str:
        """The name and the version in words, such as `cifar10 3.0.2`."""
        return f"{self.dataset} {self.version}".rstrip()

    def in_words(self, size: int) -> str:
        """Describes the data in one line. `size` is the side of the images that the network sees, in pixels."""
        train, validation = self.counts["train"], self.counts["validation"]
        colour = "grey" if self.channels == 1 else "colour"
        return (
            f"{self.name}: {train:,} training and {validation:,} validation images, "
            f"{size} px, {colour}, {len(self.class_names):,} classes"
        )

    def to_json(self) -> str:
        """The identity as indented JSON, for `data.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

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
        if self.channels != other.channels:
            return f"images of {other.channels} channels, not {self.channels}"
        if (self.splits, self.fingerprint) != (other.splits, other.fingerprint):
            return f"other images or labels (fingerprint {other.fingerprint[:8]}, not {self.fingerprint[:8]})"
        return None


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
    )


def read_identity(path: Path) -> Identity | None:
    """The identity in a `data.json`; None if there is no such file.

    Raises:
        UserError: the file does not hold an identity.
    """
    if not os.path.exists(path):  # Path.exists raises an error for some paths
        return None
    try:
        record = json.loads(path.read_text())
        record["class_names"] = tuple(record["class_names"])
        identity = Identity(**record)
        _check_types(identity)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: is no record of a run's data ({str(error)[:200]}); restore it, or delete it if the data is "
            "still the same"
        ) from None
    return identity


def _check_types(identity: Identity) -> None:
    both = {"train", "validation"}

    def all_are(kind: type, values: Any) -> bool:
        return all(type(value) is kind for value in values)

    right = (
        all_are(str, (identity.dataset, identity.version, identity.fingerprint, *identity.class_names))
        and all_are(int, (identity.channels, *identity.counts.values()))
        and all_are(str, identity.splits.values())
        and identity.counts.keys() == identity.splits.keys() == both
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
