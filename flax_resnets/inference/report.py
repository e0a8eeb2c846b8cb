"""A page about one run: what it learnt, where it errs, and how to repeat it.

A report is a list of sections. To add one: a function from the `Subject` to HTML, and its line in `SECTIONS`.
"""

import dataclasses
import datetime
import json
import os
import platform
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import jax
import numpy as np

from flax_resnets import __version__
from flax_resnets.errors import UserError
from flax_resnets.fields import field_types
from flax_resnets.figures import svg
from flax_resnets.inference import evaluation_figures
from flax_resnets.inference.charts import Line, line_chart
from flax_resnets.inference.class_names import in_words
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.evaluation import Evaluation, Outcome
from flax_resnets.inference.load import load_classifier
from flax_resnets.inference.multilabel_evaluation import OF_SEVERAL_CLASSES
from flax_resnets.inference.network_figures import activations_figure, filters_figure
from flax_resnets.inference.page import Html, charts, details, element, joined, page, picture, table, tiles
from flax_resnets.inference.recorded import Recorded, Stretch, read_recorded
from flax_resnets.machine import describe_machine, library_versions
from flax_resnets.training.activations import FILE as ACTIVATIONS
from flax_resnets.training.activations import read_activations
from flax_resnets.training.devices import devices_in_words
from flax_resnets.training.finetune import FineTuneConfig, phase_schedules
from flax_resnets.training.schedule import ScheduleConfig
from flax_resnets.training.timeline import Timeline
from flax_resnets.weights import hub

_CLASSES = 50  # in the table of classes; of more, those with the lowest F1
_EXAMPLES = 6  # pictures of a class
_WORST = 20  # mistakes that are shown
_PICTURES = 10  # in the other galleries
_PAIRS = 20  # of classes that are confused
_EPOCHS = 30  # rows up to which the table of epochs is open
_POINTS = 400  # of the schedule's curves


@dataclass(frozen=True)
class Subject:
    """What a report is about. A part that is not at hand is None, and a note says why.

    Attributes:
        name: of the run or the saved folder.
        run: what the run recorded; None for a saved folder.
        classifier: its network; None if it has no checkpoint yet.
        evaluation: the network on the validation split; None if there is no network, or its pictures are not at hand.
        notes: what is missing, and what a reader has to know.
    """

    name: str
    run: Recorded | None
    classifier: Classifier | None
    evaluation: Evaluation | None
    notes: tuple[str, ...] = ()


def report(
    source: str | os.PathLike[str],
    *,
    checkpoint: Literal["best", "last"] | int = "best",
    average: bool | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """A report on a run, as an HTML page that is one file.

    It evaluates the network on the run's validation split. What is not at hand (checkpoint, pictures, finished epochs)
    is named at the top of the page, and the rest is there. The run may be under way.

    Args:
        source: as for `load_classifier`.
        checkpoint: see `load_classifier`.
        average: see `load_classifier`.
        class_names: see `load_classifier`.
        data_dir: directory of the dataset; None for the run's.
        progress: see `Classifier.evaluate`.

    Raises:
        UserError: the source is no run and no saved folder, or a file in it is damaged.

    Example:
        >>> page = report("runs/quickstart")  # doctest: +SKIP
        >>> Path("report.html").write_text(page, encoding="utf-8")  # doctest: +SKIP
    """
    from_hub = isinstance(source, str) and source.startswith(hub.PREFIX)
    run = None if from_hub else read_recorded(source)
    notes: list[str] = []
    classifier = evaluation = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", RuntimeWarning)
        try:
            classifier = load_classifier(source, checkpoint=checkpoint, average=average, class_names=class_names)
        except UserError as error:
            if run is None:
                raise
            notes.append(f"No network: {error}")
        if classifier is not None:
            try:
                found = classifier.evaluate(split="validation", data_dir=data_dir, progress=progress)
                if isinstance(found, Evaluation):
                    evaluation = found
                else:
                    notes.append(f"No mistakes: {OF_SEVERAL_CLASSES}")
            except UserError as error:
                notes.append(f"No evaluation, and no pictures: {error}")
    for each in caught:
        notes.append(str(each.message))
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
    if run is not None:
        notes += [f"The run was amended {each}." for each in run.amended]
    if run is not None and not run.epochs:
        notes.append("No curves: the run has not finished an epoch yet.")
    name = str(source) if run is None else run.name
    return page_of(Subject(name, run, classifier, evaluation, tuple(notes)))


def page_of(subject: Subject) -> str:
    """The page about a subject."""
    sections = [(title, section(subject)) for title, section in SECTIONS.items()]
    made = f"{datetime.datetime.now():%Y-%m-%d %H:%M}"
    return page(
        subject.name,
        _in_a_line(subject),
        [(title, content) for title, content in sections if content is not None],
        f"Made by flax-resnets report {__version__}, {made}.",
    )


def _in_a_line(subject: Subject) -> str:
    run, classifier = subject.run, subject.classifier
    if run is None:
        return f"A saved network: {classifier.settings.model}" if classifier else ""
    data = run.identity.in_words(run.config["image_size"]) if run.identity else str(run.config["dataset"])
    return f"{run.config['model']} on {data}"


def result(subject: Subject) -> Html:
    """The most important figures, and what is missing."""
    run, evaluation, classifier = subject.run, subject.evaluation, subject.classifier
    figures: list[tuple[str, str]] = []
    if evaluation is not None:
        lower, upper = evaluation.accuracy_interval
        figures.append(
            (_percent(evaluation.accuracy), f"accuracy, 95 % interval {_percent(lower)} to {_percent(upper)}")
        )
        if len(evaluation.class_names) > 5:
            figures.append((_percent(evaluation.top5_accuracy), "top-5 accuracy"))
        figures += [
            (f"{evaluation.loss:.4f}", "loss, in nats"),
            (_percent(evaluation.calibration_error), "calibration error"),
            (f"{evaluation.images:,}", "validation images"),
        ]
    elif run is not None and run.best is not None:
        by = {"loss": ", that of the lowest validation loss", "metric": ", that of the highest metric"}
        which = f"after epoch {run.best.epoch}{by.get(run.best_by, '')}, as the run recorded it"
        if run.best.mean_average_precision is not None:
            figures.append((_percent(run.best.mean_average_precision), f"mean average precision {which}"))
            figures.append((_percent(run.best.f1 or 0.0), "F1, mean of the classes"))
            figures.append((_percent(run.best.accuracy), "accuracy: share of right decisions"))
        else:
            figures.append((_percent(run.best.accuracy), f"accuracy {which}"))
    if classifier is not None:
        parameters = sum(leaf.size for leaf in jax.tree.leaves(classifier.variables["params"]))
        figures.append((f"{parameters:,}", "parameters"))
    if run is not None:
        last = run.epochs[-1].epoch if run.epochs else 0
        ended = "not done" if run.done is None else f"ended by {run.ended_by}" if run.ended_by else "done"
        figures.append((f"{last} of {run.config.get('epochs', '?')}", f"epochs, {ended}"))
        if run.epochs:
            figures.append((_duration(run.seconds), "training time, without evaluation"))
    what = []
    if evaluation is not None and classifier is not None:
        tta = f", with a test-time augmentation ({evaluation.tta})" if evaluation.tta else ""
        what.append(
            element(
                "p",
                f"The network is {classifier.source}. It was evaluated on {evaluation.dataset}{tta}. The interval "
                "covers the choice of these images, not that of the training's seed.",
                class_="soft",
            )
        )
    notes = (element("p", each, class_="note") for each in subject.notes)
    return joined([*notes, tiles(figures), *what])


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


def classes(subject: Subject) -> Html | None:
    """Figures and examples of each class."""
    evaluation, run = subject.evaluation, subject.run
    if evaluation is None:
        return _classes_of_data(run)
    counts = run.identity.class_counts if run and run.identity else None
    train = counts["train"] if counts and len(counts["train"]) == len(evaluation.class_names) else None
    numbers = [label for label, each in enumerate(evaluation.per_class) if each.support]
    few = sorted(numbers, key=lambda label: evaluation.per_class[label].f1)[:_CLASSES]
    shown = numbers if len(numbers) <= _CLASSES else few
    first = {label: np.flatnonzero(evaluation.labels == label)[:_EXAMPLES] for label in shown}
    rows = []
    for label in shown:
        each = evaluation.per_class[label]
        images = [str(each.support)] if train is None else [f"{train[label]:,}", f"{each.support:,}"]
        pictures = element("span", *(_picture(evaluation, int(row), 44) for row in first[label]), class_="row")
        shares = (f"{share:.3f}" for share in (each.precision, each.recall, each.f1))
        rows.append([each.class_name, pictures, *images, *shares])
    header = ["class", "validation images", *([] if train is None else ["training"]), "validation"]
    drawn = table([*header, "precision", "recall", "F1"], rows, left=2)
    if len(shown) == len(numbers):
        return drawn
    return joined([element("p", f"The {_CLASSES} classes with the lowest F1 of {len(numbers):,}."), drawn])


def _classes_of_data(run: Recorded | None) -> Html | None:
    if run is None or run.identity is None or run.identity.class_counts is None:
        return None
    counts = run.identity.class_counts
    rows = zip(run.identity.class_names, counts["train"], counts["validation"], strict=True)
    cells = [[in_words(name), f"{train:,}", f"{validation:,}"] for name, train, validation in rows]
    note = [element("p", f"The first {_CLASSES} of {len(cells):,}.")] if len(cells) > _CLASSES else []
    return joined([*note, table(["class", "training images", "validation images"], cells[:_CLASSES])])


def confusion(subject: Subject) -> Html | None:
    """The confusion matrix."""
    evaluation = subject.evaluation
    if evaluation is None:
        return None
    return element("div", Html(svg(lambda: evaluation_figures.confusion_figure(evaluation))), class_="scroll")


def pairs(subject: Subject) -> Html | None:
    """The most frequent mistakes, by class and predicted class."""
    if subject.evaluation is None:
        return None
    frequent = subject.evaluation.most_confused(_PAIRS)
    support = {each.class_name: each.support for each in subject.evaluation.per_class}
    rows = [
        [name, predicted, f"{count:,}", f"{count / support[name]:.1%}" if support.get(name) else ""]
        for name, predicted, count in frequent
    ]
    if not rows:
        return element("p", "No mistakes.")
    return table(["class", "predicted", "images", "share of the class"], rows, left=2)


def worst(subject: Subject) -> Html | None:
    """The mistakes with the highest losses."""
    if subject.evaluation is None:
        return None
    mistakes = subject.evaluation.worst(_WORST)
    if not mistakes:
        return element("p", "No mistakes.")
    count = int((~subject.evaluation.correct).sum())
    note = f"The {len(mistakes)} of {count:,} mistakes with the highest losses."
    return gallery(subject, mistakes, note)


def mislabelled(subject: Subject) -> Html | None:
    """Images whose label is probably wrong."""
    if subject.evaluation is None:
        return None
    suspects = subject.evaluation.likely_mislabelled(_PICTURES)
    if not suspects:
        return element("p", "None: no mistake is as certain as the right answers are.")
    note = (
        "Mistakes of which the network is as certain as it is of its right answers: the label may be wrong, or the "
        "image may show both. See Evaluation.likely_mislabelled."
    )
    return gallery(subject, suspects, note)


def best(subject: Subject) -> Html | None:
    """The images with the lowest losses."""
    if subject.evaluation is None:
        return None
    return gallery(subject, subject.evaluation.best(_PICTURES), "The images with the lowest losses.")


def gallery(subject: Subject, entries: Sequence[Outcome], note: str) -> Html:
    """Pictures with their class, what was predicted and why, and where they are.

    Beside each picture is what the network sees of it, with the regions that speak for the predicted class (Grad-CAM).
    """
    evaluation = subject.evaluation
    assert evaluation is not None, "pictures are those of an evaluation"
    overlays, reason = _overlays(subject, entries)

    def figure(entry: Outcome, overlay: np.ndarray | None) -> Html:
        predicted = element("span", "predicted ", element("b", entry.predicted), f" {entry.probability:.1%}")
        caption = (element("b", entry.class_name), element("br"), predicted, element("br"))
        where = element("span", _place(entry.image_name), class_="soft")
        return element(
            "figure",
            element(
                "div",
                _picture(evaluation, entry.index, 120),
                None if overlay is None else picture(overlay, 120, f"what speaks for {entry.predicted}"),
                class_="pair",
            ),
            element("figcaption", *caption, where),
        )

    if reason is None:
        note += " Beside each, in colours from blue to red, the regions that speak for the predicted class (Grad-CAM)."
    return joined(
        [
            element("p", note),
            None if reason is None else element("p", f"Without Grad-CAM: {reason}", class_="soft"),
            element("div", *map(figure, entries, overlays), class_="gallery"),
        ]
    )


def _overlays(subject: Subject, entries: Sequence[Outcome]) -> tuple[list[np.ndarray | None], str | None]:
    """The explanation of each picture's prediction, or None for all and the reason."""
    none: list[np.ndarray | None] = [None] * len(entries)
    if subject.classifier is None or subject.evaluation is None or subject.evaluation.image is None:
        return none, "the network or the pictures are not at hand"
    try:
        pictures = [subject.evaluation.image(entry.index) for entry in entries]
        return [each.overlay() for each in subject.classifier.explain(pictures)], None
    except (UserError, OSError) as error:  # a network without feature maps, or a picture that is gone
        return none, str(error)[:200]


def _picture(evaluation: Evaluation, row: int, side: int) -> Html:
    """A picture, or why it cannot be shown."""
    if evaluation.image is None:
        return Html("")
    name = evaluation.class_names[evaluation.labels[row]]
    try:
        return picture(evaluation.image(row), side, name)
    except (UserError, OSError) as error:  # gone or changed since the evaluation
        return element("span", f"cannot be read: {str(error)[:200]}", class_="soft")


def _place(image_name: str) -> str:
    """Where a picture is, without the directories that all have in common."""
    return "/".join(image_name.split("/")[-2:])


def calibration(subject: Subject) -> Html | None:
    """The reliability diagram."""
    evaluation = subject.evaluation
    if evaluation is None:
        return None
    return charts([svg(lambda: evaluation_figures.reliability_figure(evaluation))])


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


SECTIONS: Mapping[str, Callable[[Subject], Html | None]] = {
    "Result": result,
    "Curves": curves,
    "Learning rate and momentum": schedule,
    "Epochs": epochs,
    "Classes": classes,
    "Confusion matrix": confusion,
    "Most confused classes": pairs,
    "Worst mistakes": worst,
    "Likely mislabelled": mislabelled,
    "Best": best,
    "Calibration": calibration,
    "First filters": filters,
    "Activations": activations,
    "Configuration": configuration,
    "Data": data,
    "Lineage": lineage,
    "Environment": environment,
    "Repeat": repeat,
}
"""The sections of a report, in order. One that has nothing to show gives None, and is left out."""


def _of_two(facts: Mapping[str, str]) -> Html:
    return table(["", ""], facts.items(), left=2)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
