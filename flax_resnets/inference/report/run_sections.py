"""The sections about the run itself: its course, its settings and data, and where it was made."""

import dataclasses
import json
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from flax_resnets import __version__
from flax_resnets.errors import UserError
from flax_resnets.fields import field_types
from flax_resnets.figures import svg
from flax_resnets.inference.charts import Line, line_chart
from flax_resnets.inference.network_figures import activations_figure, filters_figure
from flax_resnets.inference.page import Html, charts, details, element, joined, table
from flax_resnets.inference.recorded import Stretch
from flax_resnets.inference.report.subject import Subject
from flax_resnets.machine import describe_machine, library_versions
from flax_resnets.training.activations import FILE as ACTIVATIONS
from flax_resnets.training.activations import read_activations
from flax_resnets.training.devices import devices_in_words
from flax_resnets.training.finetune import FineTuneConfig, phase_schedules
from flax_resnets.training.schedule import ScheduleConfig
from flax_resnets.training.timeline import Timeline

_EPOCHS = 30  # rows up to which the table of epochs is open
_POINTS = 400  # of the schedule's curves


def curves(subject: Subject) -> Html | None:
    """Losses, accuracies and a metric of the recipe's own by epoch."""
    if subject.run is None or not subject.run.epochs:
        return None
    rows = [row.as_row() for row in subject.run.epochs]

    def line(name: str, key: str, colour: int, scale: float = 1) -> Line:
        there = [row for row in rows if key in row]
        return Line(name, [row["epoch"] for row in there], [scale * row[key] for row in there], colour)

    losses = [line("train", "train_loss", 0), line("valid", "valid_loss", 1), line("valid, EMA", "ema_valid_loss", 2)]
    accuracies = [
        line("top-1", "accuracy", 0, 100),
        *([line("top-5", "top5_accuracy", 1, 100)] if "top5_accuracy" in _columns(rows) else []),
        line("top-1, EMA", "ema_accuracy", 2, 100),
    ]
    what = "accuracy"
    if subject.run.multilabel:
        what = "mAP, F1, accuracy"
        accuracies = [
            line("mAP", "mean_average_precision", 0, 100),
            line("F1", "f1", 1, 100),
            line("accuracy", "accuracy", 3, 100),
            line("mAP, EMA", "ema_mean_average_precision", 2, 100),
        ]
    metrics = [line("metric", "metric", 0), line("metric, EMA", "ema_metric", 2)]
    flip = ", with a test-time flip" if subject.run.config.get("eval_flip") else ""
    drawn = [
        line_chart(there, "epoch", label)
        for lines, label in (
            *((losses, "loss (nats)"), (accuracies, f"valid {what} (%){flip}")),
            (metrics, "valid metric"),
        )
        if (there := [each for each in lines if each.x])
    ]
    note = "The training loss is a mean over the epoch, with augmentation and label smoothing; the others are not."
    return joined([charts(drawn), element("p", note, class_="soft")])


def schedule(subject: Subject) -> Html | None:
    """Learning rate and momentum over all steps of the run, as its configuration plans them."""
    run = subject.run
    if run is None or run.stretches is None:
        return None
    try:
        timeline, steps, curves = _schedules(run.stretches)
    except (UserError, TypeError, KeyError):  # a schedule of another version
        return None
    now = run.epochs[-1].step if run.epochs and (run.ended_by or not run.done) else None
    drawn = [
        line_chart([Line(None, *curve, colour)], "step", label, now)
        for colour, (label, curve) in enumerate(zip(("learning rate", "momentum"), curves, strict=True))
    ]
    since = " since it was last amended" if run.amendments else ""
    note = f"As config.json plans them: {steps:,} steps, {timeline.steps_per_epoch:,} in an epoch{since}."
    if now is not None:
        note += f" The dotted line is the end of the last finished epoch, step {now:,}."
    return joined([charts(drawn), element("p", note, class_="soft")])


@dataclass(frozen=True, kw_only=True)
class _Plan(ScheduleConfig, FineTuneConfig):
    """The fields that decide the schedules."""


def _schedules(stretches: Sequence[Stretch]) -> tuple[Timeline, int, list[tuple[list[int], list[float]]]]:
    """The last timeline, the number of steps, and the curves of learning rate and momentum, by step."""
    timeline = stretches[-1].timeline
    total = timeline.end_of(stretches[-1].config["epochs"])
    every = np.unique(np.linspace(0, total - 1, min(total, _POINTS)).astype(int))
    ends = [each.begin for each in stretches[1:]] + [total]
    values: tuple[list[float], list[float]] = ([], [])
    for (begin, each, config), end in zip(stretches, ends, strict=True):
        plan = _Plan(**{name: config[name] for name in field_types(_Plan) if name in config})
        steps = each.end_of(config["epochs"]) - begin
        epochs, position = each.place(begin)
        past = epochs + position / each.steps_per_epoch
        phases = phase_schedules(cast(Any, plan), steps, each.steps_per_epoch, past)
        at = every[(every >= begin) & (every < end)] - begin
        alone = at < (0 if past else plan.freeze_epochs * each.steps_per_epoch)
        for line, (first, second) in zip(values, zip(*phases, strict=True), strict=True):
            line += np.where(alone, first(at), second(at)).tolist()
    return timeline, total, [(every.tolist(), line) for line in values]


_COLUMNS: Mapping[str, tuple[str, str]] = {
    "epoch": ("epoch", ",d"),
    "step": ("step", ",d"),
    "train_loss": ("train loss", ".4f"),
    "valid_loss": ("valid loss", ".4f"),
    "accuracy": ("accuracy", ".2%"),
    "top5_accuracy": ("top-5", ".2%"),
    "mean_average_precision": ("mAP", ".2%"),
    "f1": ("F1", ".2%"),
    "metric": ("metric", ".4g"),
    "ema_valid_loss": ("valid loss, EMA", ".4f"),
    "ema_accuracy": ("accuracy, EMA", ".2%"),
    "ema_mean_average_precision": ("mAP, EMA", ".2%"),
    "ema_f1": ("F1, EMA", ".2%"),
    "ema_metric": ("metric, EMA", ".4g"),
    "seconds": ("seconds", ",.1f"),
    "images_per_second": ("images/s", ",.0f"),
    "skipped_steps": ("skipped steps", ",d"),
}


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that say something about these epochs."""
    there = {name for row in rows for name in row}  # an amendment adds columns and ends them
    if all(row.get("top5_accuracy") == 1 for row in rows):  # as with up to five classes
        there.discard("top5_accuracy")
    return [name for name in _COLUMNS if name in there and (name != "skipped_steps" or rows[-1][name])]


def epochs(subject: Subject) -> Html | None:
    """The row of each epoch."""
    if subject.run is None or not subject.run.epochs:
        return None
    rows = [row.as_row() for row in subject.run.epochs]
    names = _columns(rows)
    cells = [[format(row[name], _COLUMNS[name][1]) if name in row else "" for name in names] for row in rows]
    drawn = table([_COLUMNS[name][0] for name in names], cells, left=0)
    return drawn if len(rows) <= _EPOCHS else details(f"{len(rows):,} epochs", drawn)


def filters(subject: Subject) -> Html | None:
    """The filters of the layer that sees the image."""
    if subject.classifier is None:
        return None
    classifier = subject.classifier
    try:
        return element("div", Html(svg(lambda: filters_figure(classifier))), class_="scroll")
    except UserError:  # no convolution sees the image
        return None


def activations(subject: Subject) -> Html | None:
    """Mean, standard deviation and share near zero of each layer's output, if the run recorded them."""
    if subject.run is None or not (rows := read_activations(subject.run.directory / ACTIVATIONS)):
        return None
    return element("div", Html(svg(lambda: activations_figure(rows))), class_="scroll")


def configuration(subject: Subject) -> Html | None:
    """What differs from the defaults, then everything."""
    if subject.run is None:
        if subject.classifier is None:
            return None
        fields: Mapping[str, Any] = dataclasses.asdict(subject.classifier.settings)
        return _of_two({name: _value(value) for name, value in fields.items()})
    changed = subject.run.changed
    whole = json.dumps(dict(subject.run.config), indent=2)
    return joined(
        [
            element("p", "The fields that differ from their defaults, and those that have none."),
            _of_two({name: _value(value) for name, value in changed.items()}),
            details(f"config.json: all {len(subject.run.config)} fields", element("pre", whole)),
        ]
    )


def data(subject: Subject) -> Html | None:
    """Which images the run was trained and evaluated on."""
    if subject.run is None or (identity := subject.run.identity) is None:
        return None
    splits = {
        f"{split} split": f"{identity.splits[split]}: {count:,} images" for split, count in identity.counts.items()
    }
    facts = {
        "dataset": identity.name,
        "data_dir": _value(subject.run.config.get("data_dir")),
        **splits,
        "classes": f"{len(identity.class_names):,}",
        "channels": str(identity.channels),
        "fingerprint": identity.fingerprint,
    }
    for name in ("mean", "std"):
        if (values := getattr(identity, name)) is not None:
            facts[f"{name} of the pixels"] = ", ".join(f"{value:.4f}" for value in values)
    remarks = [element("p", f"{each}.", class_="note") for each in identity.remarks()]
    return joined([*remarks, _of_two(facts)])


def lineage(subject: Subject) -> Html | None:
    """The weights that the run began with."""
    if subject.run is None or not subject.run.lineage:
        return None
    return _of_two({name: _value(value) for name, value in subject.run.lineage.items() if value is not None})


def environment(subject: Subject) -> Html:
    """The program and machine that made the report; a run that has a machine.json was made on the one it describes."""
    tables = []
    recorded = None if subject.run is None else subject.run.machine
    if recorded:
        tables += [element("h3", "Of the run"), _of_two({name: _value(each) for name, each in recorded.items()})]
    here = describe_machine()
    facts = {
        "devices": devices_in_words(),
        "CPU": f"{here['cpu']}, {here['cores']} cores",
        "system": here["platform"],
        "Python": platform.python_version(),
        "flax_resnets": __version__,
        **library_versions(),
        **here["environment"],
    }
    return joined([*tables, element("h3", "Of this report"), _of_two(facts)])


def repeat(subject: Subject) -> Html | None:
    """The commands that repeat the run and use its network."""
    if subject.run is None:
        return None
    workdir = str(subject.run.directory)
    again = f"flax-resnets train --config {shlex.quote(os.path.join(workdir, 'config.json'))}"
    lines = [
        "# repeats the run in a new workdir",
        again,
        "# resumes it, if it is not done",
        f"{again} --workdir {shlex.quote(workdir)}",
        "# classifies pictures",
        f"flax-resnets predict {shlex.quote(workdir)} picture.jpg",
    ]
    digest = subject.run.done and subject.run.done["state_digest"]
    note = f"The finished run's state_digest is {digest}." if digest else None
    return joined([element("pre", "\n".join(lines)), note and element("p", note, class_="soft")])


def _of_two(facts: Mapping[str, str]) -> Html:
    return table(["", ""], facts.items(), left=2)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
