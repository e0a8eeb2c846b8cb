"""Amendments: a run goes on under a changed configuration (`--amend`). Decides what may change, and records it.

An amendment begins from the last checkpoint. Its row in `metrics.jsonl` has the step, and each changed field's value
before and after it. `config.json` has the values after it. So the configuration of every checkpoint can be told.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole

EVENT = "amended"

# Why a field must stay; the others may change.
_MUST_STAY: Mapping[str, str] = {
    **dict.fromkeys(("model", "model_options"), "the weights are those of this network"),
    **dict.fromkeys(
        (
            "dataset",
            "train_split",
            "validation_split",
            "validation_share",
            "image_key",
            "label_key",
            "label_separator",
            "broken_images",
            "exif_orientation",
        ),
        "other images or classes would be another run",
    ),
    **dict.fromkeys(("mean", "std"), "the network has learned from images that are normalised so"),
    "seed": "it decides the order of the images and every draw from the run's beginning",
    **dict.fromkeys(("weights", "weights_head", "freeze_epochs"), "it says how the run began"),
    "metric": "the rows of earlier epochs have its figures; metric=none leaves it out",
}


class Amendment(NamedTuple):
    """A change of a run's configuration.

    Attributes:
        step: of the checkpoint from which the run goes on.
        epoch: number of epochs that had ended by then.
        epoch_step: number of steps in those epochs.
        changes: for each changed field its value before and after, as JSON holds them.
    """

    step: int
    epoch: int
    epoch_step: int
    changes: Mapping[str, tuple[Any, Any]]

    def in_words(self) -> str:
        """The changes in a line."""
        return ", ".join(f"{name} {_short(old)} -> {_short(new)}" for name, (old, new) in self.changes.items())

    def line(self) -> str:
        """The amendment's line in `metrics.jsonl`."""
        return json.dumps({"event": EVENT, **self._asdict()}) + "\n"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def amendment_of(row: Mapping[str, Any]) -> Amendment:
    """The amendment in a row of `metrics.jsonl`.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is no such row.
    """
    changes = {str(name): (old, new) for name, (old, new) in row["changes"].items()}
    amendment = Amendment(row["step"], row["epoch"], row["epoch_step"], changes)
    if not all(type(number) is int and number >= 0 for number in amendment[:3]):
        raise TypeError("step, epoch and epoch_step are whole numbers from 0 up")
    return amendment


def read_amendments(workdir: Path) -> list[Amendment]:
    """The amendments in a run's `metrics.jsonl`, in order; none if there is no such file.

    Raises:
        UserError: a row of the file is damaged.
    """
    path = workdir / "metrics.jsonl"
    found: list[Amendment] = []
    try:
        lines = (storage.read(path) or b"").decode().split("\n")[:-1]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if row["event"] == EVENT:
                found.append(amendment_of(row))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not a row of this run ({str(error)[:200]})") from None
    return found


def in_force(amendments: Sequence[Amendment], config: Mapping[str, Any]) -> list[Amendment]:
    """The amendments without a last one that was recorded, but not completed by writing the configuration.

    Args:
        amendments: as `read_amendments` returns them.
        config: the values in `config.json`.
    """
    if amendments and any(config.get(name) != new for name, (_, new) in amendments[-1].changes.items()):
        return list(amendments[:-1])
    return list(amendments)


def config_before(amendments: Sequence[Amendment], config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration before these amendments, which are the last ones.

    Example:
        >>> config_before([Amendment(10, 1, 10, {"epochs": (5, 8)})], {"epochs": 8, "seed": 0})
        {'epochs': 5, 'seed': 0}
    """
    before = dict(config)
    for amendment in reversed(amendments):
        before.update({name: old for name, (old, _) in amendment.changes.items()})
    return before


def check_amendable(changes: Mapping[str, tuple[Any, Any]], workdir: Path) -> None:
    """Raises UserError if a changed field is one that must stay."""
    for name, (old, new) in changes.items():
        if _must_stay(name, old, new):
            raise UserError(
                f"--amend: {name}={_short(new)}: {workdir} has {_short(old)}, and {_MUST_STAY[name]}; "
                f"pick another workdir, which may begin with this run's weights: --config.weights={workdir}"
            )


def is_amendable(changes: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether all of these fields may change."""
    return not any(_must_stay(name, old, new) for name, (old, new) in changes.items())


def _must_stay(name: str, old: Any, new: Any) -> bool:
    # A column of rows can begin and end, but must not hold the figures of two metrics.
    return name in _MUST_STAY and (name != "metric" or None not in (old, new))


def record(amendment: Amendment, kept: Sequence[Amendment], workdir: Path) -> None:
    """Writes the amendment's row into `metrics.jsonl`, and removes the rows of what comes after its step.

    Args:
        amendment: is recorded as the last one.
        kept: the amendments before it.
        workdir: the run's directory.
    """
    path = workdir / "metrics.jsonl"
    lines = []
    for line in (storage.read(path) or b"").decode().split("\n")[:-1]:
        row = json.loads(line)
        is_kept = row["step"] <= amendment.step if row["event"] == "epoch" else row["event"] == EVENT
        if is_kept and (row["event"] == "epoch" or amendment_of(row) in kept):
            lines.append(line + "\n")
    write_whole(path, "".join([*lines, amendment.line()]).encode())
