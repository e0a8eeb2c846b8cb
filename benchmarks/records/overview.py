"""Draws every recipe's accuracy against its training time, with the results of others beside them."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flax_resnets.figures import new_figure

if TYPE_CHECKING:
    from benchmarks.records.results import Run

_SETS = {"imagenette": "Imagenette", "fashion_mnist": "Fashion-MNIST"}
"""A panel for each of these datasets, by how its name begins. Recipes that saw only a part of theirs are left out."""

_TICKS = {1 / 4: "15 s", 1: "1 min", 4: "4 min", 15: "15 min", 60: "1 h", 240: "4 h", 960: "16 h"}  # by minutes


class _Point(NamedTuple):
    name: str
    minutes: float
    accuracy: float
    reference: float | None


def draw_overview(recipes: Mapping[str, Sequence["Run"]], references: Mapping[str, Any], path: Path) -> None:
    """Draws the picture into a PNG file.

    A point is the mean accuracy of a recipe's seeds after the last epoch, over the CPU time of its fastest seed: its
    training time, times the cores. Recipes that have not had all their epochs yet are left out. A line leads to the
    recipe's reference, a short bar.
    """
    figure = new_figure(13, 5.5)
    for panel, (start, title) in zip(figure.subplots(1, len(_SETS)), _SETS.items(), strict=True):
        panel.set_title(title)
        panel.set_xscale("log")
        panel.set_xlabel("CPU time of training, all cores")
        panel.set_ylabel("accuracy after the last epoch (%)")
        panel.grid(alpha=0.3)
        points = [_point(name, runs, references) for name, runs in recipes.items() if _is_shown(runs, start)]
        points.sort(key=lambda point: point.minutes)
        for place, point in enumerate(points):
            _draw(panel, point, points[place + 1 :])
        if points:
            low, high = points[0].minutes / 2, points[-1].minutes * 4  # room for names
            panel.set_xlim(low, high)
            panel.set_xticks([each for each in _TICKS if low <= each <= high])
            panel.set_xticklabels([words for each, words in _TICKS.items() if low <= each <= high])
            panel.minorticks_off()
    figure.savefig(path, dpi=100, metadata={"Software": None})  # or bytes would depend on matplotlib's version


def _is_shown(runs: Sequence["Run"], start: str) -> bool:
    whole = all(run.done and not run.machine.get("data") for run in runs)
    return whole and runs[0].config["dataset"].startswith(start)


def _point(name: str, runs: Sequence["Run"], references: Mapping[str, Any]) -> _Point:
    minutes = min(run.seconds * _cores(run) for run in runs) / 60
    accuracy = 100 * statistics.mean(run.epochs[-1]["accuracy"] for run in runs)
    reference = 100 * references[name]["accuracy"] if name in references else None
    return _Point(name.removesuffix("_fashion_mnist"), minutes, accuracy, reference)


def _draw(panel: Any, point: _Point, later: Sequence[_Point]) -> None:
    x = point.minutes
    if point.reference is not None:
        panel.plot([x, x], [point.accuracy, point.reference], color="0.7", linewidth=1, zorder=1)
        panel.plot([x], [point.reference], color="0.4", marker="_", markersize=12, zorder=2)
    panel.plot([x], [point.accuracy], color="C0", marker="o", zorder=3)
    in_the_way = any(other.minutes < 2 * x and abs(other.accuracy - point.accuracy) < 1 for other in later)
    place: dict[str, Any] = {"xytext": (-8, -3), "ha": "right"} if in_the_way else {"xytext": (8, -3)}
    panel.annotate(point.name, (x, point.accuracy), textcoords="offset points", fontsize=9, **place)


def _cores(run: "Run") -> int:
    """The cores that a run used: as its hardware says in words, or else all of the machine."""
    words = str(run.machine.get("hardware") or "").split(" ")
    return int(words[0]) if words[0].isdecimal() else int(run.machine.get("cores", 1))
