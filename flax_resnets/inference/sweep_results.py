"""What a sweep found: the results of its settings as a table, as rows and as a picture."""

import csv
import io
import json
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_resnets.errors import UserError
from flax_resnets.figures import new_figure, plain, png
from flax_resnets.inference.compare import Group, Member
from flax_resnets.inference.compare_page import result_columns, result_rows
from flax_resnets.inference.recorded import read_recorded
from flax_resnets.training.best import score
from flax_resnets.training.sweep import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEGEND = 10  # settings of the other fields up to which a legend names them
_TICKS = 6  # values up to which each one has a tick


@dataclass(frozen=True)
class Outcome:
    """A run of a sweep.

    Attributes:
        point: its settings.
        member: what it recorded; None if it has not begun.
        diverged: whether its loss was not finite.
    """

    point: Point
    member: Member | None
    diverged: bool

    @property
    def state(self) -> str:
        """`done`, `diverged`, `unfinished` or `not begun`."""
        if self.member is not None and self.member.run.done is not None:
            return "done"
        return "diverged" if self.diverged else "not begun" if self.member is None else "unfinished"

    @property
    def score(self) -> float | None:
        """Of the last finished epoch, by the recipe's `best_by`; see `flax_resnets.training.best.score`."""
        if self.member is None or not self.member.run.epochs:
            return None
        return score(self.member.run.epochs[-1], self.member.run.best_by)

    def as_dict(self) -> dict[str, Any]:
        """The run as values that JSON can hold."""
        found = {} if self.member is None else self.member.as_dict()
        left_out = ("run", "seed", "done")
        figures = {name: value for name, value in found.items() if name not in left_out}
        return {"run": self.point.name, "settings": self.point.settings, "state": self.state, **figures}


@dataclass(frozen=True)
class Setting:
    """The runs of a sweep that differ in nothing but the seed.

    Attributes:
        values: of the swept fields without the seed, as JSON holds them.
        outcomes: its runs.
    """

    values: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]

    @cached_property
    def group(self) -> Group:
        """Its runs as those of a comparison; only those that have begun."""
        return Group("", tuple(each.member for each in self.outcomes if each.member is not None))

    @property
    def score(self) -> float | None:
        """Mean over the seeds; None unless all runs are done."""
        if any(each.state != "done" for each in self.outcomes):
            return None
        return statistics.mean(each.score for each in self.outcomes if each.score is not None)


@dataclass(frozen=True)
class Results:
    """The results of a sweep, as far as it has come.

    Attributes:
        directory: of the sweep.
        outcomes: of each run, in order.
    """

    directory: Path
    outcomes: tuple[Outcome, ...]

    @property
    def fields(self) -> list[str]:
        """The swept fields."""
        return list(self.outcomes[0].point.overrides)

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings, in order of their first runs."""
        found: dict[str, list[Outcome]] = {}
        for each in self.outcomes:
            found.setdefault(json.dumps(_without_seed(each.point.settings)), []).append(each)
        return [Setting(json.loads(values), tuple(outcomes)) for values, outcomes in found.items()]

    @cached_property
    def ranked(self) -> list[Setting]:
        """The settings whose runs are all done, the highest mean first."""
        done = [each for each in self.settings if each.score is not None]
        return sorted(done, key=lambda each: -(each.score or 0.0))

    @property
    def best(self) -> Setting | None:
        """The setting with the highest mean; None if no setting's runs are all done."""
        return self.ranked[0] if self.ranked else None

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The header of a table, and a row for each setting."""
        names = [field for field in self.fields if field != "seed"]
        groups = [each.group for each in self.settings]
        rows = []
        for each, (_, *figures) in zip(self.settings, result_rows(groups), strict=True):
            values = [_shown(each.values[name]) for name in names]
            states = [one.state for one in each.outcomes if one.state != "done"]
            counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
            rows.append([*values, *figures, "best" if each is self.best else ", ".join(counts)])
        return [*names, *result_columns(groups), ""], rows

    def as_dict(self) -> dict[str, Any]:
        """The results as values that JSON can hold."""
        settings = [
            {
                "settings": dict(each.values),
                "runs": [one.point.name for one in each.outcomes],
                **each.group.as_dict(),
                "best": each is self.best,
            }
            for each in self.settings
        ]
        return {"settings": settings, "runs": [each.as_dict() for each in self.outcomes]}

    def as_csv(self) -> str:
        """A row for each run, with a column for each swept field."""
        figures = ["finished_epochs", "accuracy", "best_accuracy", "valid_loss", "seconds"]
        rows = []
        for each in self.outcomes:
            row = each.as_dict()
            settings = {name: _shown(value) for name, value in row.pop("settings").items()}
            row["finished_epochs"] = row.pop("epochs", None)  # `epochs` may be a swept field
            rows.append(row | settings)
        names = dict.fromkeys(["run", *self.fields, "state", *figures, *(name for row in rows for name in row)])
        file = io.StringIO()
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return file.getvalue()

    def picture(self) -> bytes:
        """A PNG file with a panel for each swept field: the accuracy of each run, and the means over the seeds.

        If an image may have any number of classes, it is the mean average precision.

        A line connects settings that differ in the panel's field alone. The best setting is circled.
        """
        names = [field for field in self.fields if field != "seed"] or ["seed"]
        figure = new_figure(0.6 + 4.4 * len(names), 4.0)
        panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for name, axes in zip(names, panels, strict=True):
            self._draw(axes, name)
        what = "mAP" if any(each.group.multilabel for each in self.settings) else "accuracy"
        panels[0].set_ylabel(f"valid {what} (%)")
        return png(figure)

    @property
    def drawn(self) -> list[Outcome]:
        """The runs that `picture` shows: those that have a score and did not diverge."""
        return [each for each in self.outcomes if each.score is not None and each.state != "diverged"]

    def _draw(self, axes: "Axes", name: str) -> None:
        place = _places(axes, name, [each.point.settings[name] for each in self.drawn])
        lines: dict[str, list[Outcome]] = {}
        for each in self.drawn:
            others = {field: value for field, value in _without_seed(each.point.settings).items() if field != name}
            lines.setdefault(", ".join(f"{field}={_shown(value)}" for field, value in others.items()), []).append(each)
        for number, (label, outcomes) in enumerate(lines.items()):
            accuracies: dict[float, list[float]] = {}
            for each in outcomes:
                assert each.member is not None
                accuracies.setdefault(place(each.point.settings[name]), []).append(100 * (each.member.figure or 0.0))
            x = sorted(accuracies)
            colour = f"C{number % 10}"
            means = [statistics.mean(accuracies[at]) for at in x]
            axes.plot(x, means, "o-", color=colour, markersize=4, label=plain(label))
            points = [(at, one) for at in x for one in accuracies[at]]
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=3, alpha=0.4)
        if self.best is not None and name != "seed" and self.best.group.mean is not None:
            at = place(self.best.values[name]), 100 * self.best.group.mean
            axes.plot(*at, "o", color="black", markersize=12, fillstyle="none")
        connects = any(len({place(each.point.settings[name]) for each in outcomes}) > 1 for outcomes in lines.values())
        if connects and 1 < len(lines) <= _LEGEND:
            axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)


def read_results(directory: Path, points: Sequence[Point], diverged: Collection[str] = ()) -> Results:
    """The results of a sweep's runs.

    Args:
        directory: of the sweep.
        points: its runs.
        diverged: names of those whose loss was not finite.

    Raises:
        UserError: a file of a run is damaged.
    """
    return Results(directory, tuple(Outcome(each, _member(directory, each), each.name in diverged) for each in points))


def _member(directory: Path, point: Point) -> Member | None:
    if not (directory / point.name / "config.json").is_file():
        return None
    run = read_recorded(directory / point.name)
    if run is None:
        raise UserError(f"{directory / point.name}: is a saved folder, no run; move it elsewhere")
    return Member(point.name, run, None)


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "seed"}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value).strip("[]")


def _places(axes: "Axes", name: str, values: Sequence[Any]) -> Any:
    """Sets a panel's x-axis; returns a function from a value of the field to its place there."""
    different = list({_shown(value): value for value in values}.values())
    names = [_shown(value) for value in different]
    if name != "seed" and all(isinstance(value, int | float) and not isinstance(value, bool) for value in different):
        if min(different) > 0 and max(different) >= 5 * min(different):
            axes.set_xscale("log")
        if len(different) <= _TICKS:
            axes.set_xticks(different, names)
            axes.set_xticks([], minor=True)
        return float
    axes.set_xticks(range(len(names)), [*map(plain, names)])
    return lambda value: float(names.index(_shown(value)))
