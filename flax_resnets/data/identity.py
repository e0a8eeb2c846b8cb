"""What tells a run's data from other data: version, content, counts and classes, as `data.json` keeps them."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from flax_resnets.data.source import DataDir, Source, check_data_dir, kind_of
from flax_resnets.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """A dataset by what is in it. Where it lies, and when it came there, is no part of it.

    Attributes:
        dataset: its name, without a version.
        version: such as `1.0.0`.
        fingerprint: 64 hex digits for the content of both splits' files, see `Source`.
        counts: how many images `train` and `validation` have, before any are left out as broken.
        splits: the dataset's own names of the two.
        channels: 1 for grey images, 3 for colour.
        class_names: the classes, in the order of their labels.
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
        """The name that opens this version and no other: `cifar10:3.0.2`."""
        return f"{self.dataset}:{self.version}"

    def in_words(self, size: int) -> str:
        """A line for people, with the side of the images that a network sees, in pixels."""
        train, validation = self.counts["train"], self.counts["validation"]
        colour = "grey" if self.channels == 1 else "colour"
        return (
            f"{self.dataset} {self.version}: {train:,} training and {validation:,} validation images, "
            f"{size} px, {colour}, {len(self.class_names):,} classes"
        )

    def to_json(self) -> str:
        """As indented JSON, for `data.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    def difference(self, other: "Identity") -> str | None:
        """What tells another from this one, in words; None where nothing does."""
        if (self.dataset, self.version) != (other.dataset, other.version):
            return f"{other.dataset} {other.version}, not {self.dataset} {self.version}"
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
    """The identity of a dataset by its two splits."""
    return Identity(
        dataset=train.dataset.partition(":")[0],
        version=train.version,
        fingerprint=hashlib.sha256(f"{train.fingerprint} {validation.fingerprint}".encode()).hexdigest(),
        counts={"train": len(train), "validation": len(validation)},
        splits={"train": train.split, "validation": validation.split},
        channels=train.channels,
        class_names=train.class_names,
    )


def read_identity(path: Path) -> Identity | None:
    """What a `data.json` says; None where there is none.

    Raises:
        UserError: it says no such thing.
    """
    if not os.path.exists(path):  # which takes any text, as Path.exists does not
        return None
    try:
        record = json.loads(path.read_text())
        record["class_names"] = tuple(record["class_names"])
        identity = Identity(**record)
        _check_types(identity)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: is no record of a run's data ({str(error)[:200]}); put it back, or delete it if the data is the "
            "run's"
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


def newest_version(dataset: str, data_dir: DataDir) -> str:
    """The version that a name without one opens; errors as `open_source`'s."""
    check_data_dir(data_dir)
    return kind_of(dataset).newest_version(dataset, data_dir)


def is_prepared(dataset: str, data_dir: DataDir) -> bool:
    """Whether a dataset, by its name with a version, is there."""
    return kind_of(dataset).is_prepared(dataset, data_dir)
