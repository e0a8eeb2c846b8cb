"""What a run has recorded beside its weights: configuration, figures of each epoch, data."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.errors import UserError
from flax_resnets.inference.load import local_directory, read_json
from flax_resnets.training.amendments import Amendment, config_before, in_force, read_amendments
from flax_resnets.training.best import BestBy, best_by_of, best_of
from flax_resnets.training.config import DEFAULTS
from flax_resnets.training.metrics import ENDED_BY, EpochMetrics, read_rows
from flax_resnets.training.timeline import Timeline


class Stretch(NamedTuple):
    """A part of a run under one configuration.

    Attributes:
        begin: number of steps before it: 0, or those at which the run was amended.
        timeline: which steps make up which epoch.
        config: the configuration.
    """

    begin: int
    timeline: Timeline
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Recorded:
    """A run without its weights. It may be under way.

    Attributes:
        directory: its workdir, on this machine.
        config: content of `config.json`; fields that an early version did not have have their defaults. If the run was
            amended, it is that of the last steps.
        epochs: the rows of `metrics.jsonl`, in order.
        done: the last row; None if the run is not done.
        best_by: which of the epochs is the best, see `flax_resnets.training.best.BestConfig`.
        identity: content of `data.json`; None if there is none.
        lineage: content of `lineage.json`, the weights that the run began with; empty if there is none.
        machine: content of `machine.json`, see `MachineRecord`; empty if there is none.
        amendments: how the configuration was changed (`--amend`), in order.
    """

    directory: Path
    config: Mapping[str, Any]
    epochs: tuple[EpochMetrics, ...]
    done: Mapping[str, Any] | None
    best_by: BestBy
    identity: Identity | None
    lineage: Mapping[str, Any]
    machine: Mapping[str, Any]
    amendments: tuple[Amendment, ...] = ()

    @property
    def name(self) -> str:
        """The last part of the workdir's path."""
        return self.directory.resolve().name

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch by `best_by`; None if no epoch is finished."""
        return best_of(self.epochs, self.best_by)

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of classes, and so the rows other figures."""
        return bool(self.epochs) and self.epochs[-1].mean_average_precision is not None

    @property
    def ended_by(self) -> str | None:
        """What ended the run before its last epoch; None if nothing did, or it is not done."""
        return self.done.get(ENDED_BY) if self.done else None

    @property
    def changed(self) -> dict[str, Any]:
        """The fields without a default, and those whose value is not the default."""
        defaults = {"model_options": {}, **DEFAULTS}
        return {name: value for name, value in self.config.items() if name not in defaults or value != defaults[name]}

    @property
    def amended(self) -> list[str]:
        """When and how the run was amended, a text for each time, such as `after epoch 3: flip True -> False`."""

        def place(each: Amendment) -> str:
            return f"epoch {each.epoch}" if each.step == each.epoch_step else f"step {each.step:,}"

        return [f"after {place(each)}: {each.in_words()}" for each in self.amendments]

    def config_at(self, step: int) -> Mapping[str, Any]:
        """The configuration under which the last one of so many steps was taken."""
        return config_before([each for each in self.amendments if each.step >= step], self.config)

    def steps_of_epoch(self, batch_size: Any) -> int | None:
        """Steps of an epoch with this batch size; None if neither a row nor `data.json` tells."""
        ends = [(0, 0), *((row.epoch, row.step) for row in self.epochs)]
        for (before, start), (epoch, step) in pairwise(ends):
            if self.config_at(step).get("batch_size") == batch_size:
                return (step - start) // (epoch - before)
        if self.identity is None or not isinstance(batch_size, int) or batch_size < 1:
            return None
        return self.identity.used["train"] // batch_size or None

    @property
    def stretches(self) -> list[Stretch] | None:
        """The run's parts between its amendments; None if it is not known how many steps an epoch has."""
        found = []
        for number, each in enumerate([None, *self.amendments]):
            config = config_before(self.amendments[number:], self.config)
            steps = self.steps_of_epoch(config.get("batch_size"))
            if steps is None:
                return None
            begin, past = (each.step, (each.epoch, each.epoch_step)) if each else (0, ())
            found.append(Stretch(begin, Timeline(steps, *past), config))
        return found

    @property
    def seconds(self) -> float:
        """Training time of the epochs so far, without evaluation.

        The row of an epoch in which a run was resumed has only the seconds after that; its speed is used for the whole
        epoch.
        """
        before = [0, *(row.step for row in self.epochs)]
        return sum(
            (row.step - start) * (self.config_at(row.step).get("batch_size") or 0) / row.images_per_second
            if row.images_per_second
            else row.seconds
            for row, start in zip(self.epochs, before, strict=False)
        )


def read_recorded(source: str | os.PathLike[str]) -> Recorded | None:
    """What the run in a workdir has recorded.

    Args:
        source: the workdir, also `gs://BUCKET/PATH`.

    Returns:
        The record; None if it is a saved folder, which holds no run.

    Raises:
        UserError: there is no such directory, or a file in it is not as a run writes it.
    """
    directory = local_directory(source)
    config = read_json(directory / "config.json", str(directory / "config.json"))
    if "architecture" in config:
        return None
    if not {"model", "dataset"} <= config.keys():
        raise UserError(f"{directory / 'config.json'}: is neither a run's configuration nor a saved folder's")
    for name in ("data.json", "metrics.jsonl"):
        if os.path.lexists(directory / name) and not os.path.isfile(directory / name):
            raise UserError(f"{directory / name}: must be a file")
    try:
        best_by = best_by_of(config)
    except UserError as error:
        raise UserError(f"{directory / 'config.json'}: {error}") from None
    epochs, done = read_rows(directory / "metrics.jsonl", best_by=best_by)

    def if_there(name: str) -> dict[str, Any]:
        path = directory / name
        return read_json(path, str(path)) if os.path.isfile(path) else {}

    whole = {**DEFAULTS, **config}
    return Recorded(
        directory,
        whole,
        tuple(epochs),
        done,
        best_by,
        read_identity(directory / "data.json"),
        if_there("lineage.json"),
        if_there("machine.json"),
        tuple(in_force(read_amendments(directory), whole)),
    )
