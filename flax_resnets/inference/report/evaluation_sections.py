"""The sections about what the network makes of the images on which it is evaluated."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.figures import svg
from flax_resnets.inference import evaluation_figures
from flax_resnets.inference.class_names import in_words
from flax_resnets.inference.evaluation import Evaluation, Outcome
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation, MultilabelMistake
from flax_resnets.inference.page import Html, charts, element, joined, picture, table
from flax_resnets.inference.recorded import Recorded
from flax_resnets.inference.report.subject import Subject

_CLASSES = 50  # in the table of classes; of more, those with the lowest F1
_EXAMPLES = 6  # pictures of a class
_WORST = 20  # mistakes that are shown
_PICTURES = 10  # in the other galleries
_PAIRS = 20  # of classes that are confused


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
    of_one = isinstance(evaluation, Evaluation)
    rows = []
    for label in shown:
        each = evaluation.per_class[label]
        has = evaluation.labels == label if of_one else evaluation.labels[:, label] > 0
        examples = np.flatnonzero(has)[:_EXAMPLES]
        images = [str(each.support)] if train is None else [f"{train[label]:,}", f"{each.support:,}"]
        pictures = element("span", *(_picture(evaluation, int(row), 44) for row in examples), class_="row")
        shares = (f"{share:.3f}" for share in each[2:])
        rows.append([each.class_name, pictures, *images, *shares])
    header = ["class", "images", *([] if train is None else ["training"]), "evaluated"]
    drawn = table([*header, *([] if of_one else ["AP"]), "precision", "recall", "F1"], rows, left=2)
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
    evaluation = subject.of_one_class
    if evaluation is None:
        return None
    return element("div", Html(svg(lambda: evaluation_figures.confusion_figure(evaluation))), class_="scroll")


def pairs(subject: Subject) -> Html | None:
    """The most frequent mistakes, by class and predicted class."""
    evaluation = subject.of_one_class
    if evaluation is None:
        return None
    frequent = evaluation.most_confused(_PAIRS)
    support = {each.class_name: each.support for each in evaluation.per_class}
    rows = [
        [name, predicted, f"{count:,}", f"{count / support[name]:.1%}" if support.get(name) else ""]
        for name, predicted, count in frequent
    ]
    if not rows:
        return element("p", "No mistakes.")
    return table(["class", "predicted", "images", "share of the class"], rows, left=2)


def worst(subject: Subject) -> Html | None:
    """The mistakes with the highest losses."""
    evaluation = subject.evaluation
    if evaluation is None:
        return None
    mistakes = evaluation.worst(_WORST)
    if not mistakes:
        return element("p", "No mistakes.")
    count = int((~evaluation.correct).sum())
    note = f"The {len(mistakes)} of {count:,} mistakes with the highest losses."
    if isinstance(evaluation, Evaluation):
        return gallery(subject, evaluation, cast(Sequence[Outcome], mistakes), note)
    pictures = (_figure(evaluation, each.index, each.image_name, _decisions(cast(Any, each))) for each in mistakes)
    return joined([element("p", note), element("div", *pictures, class_="gallery")])


def mislabelled(subject: Subject) -> Html | None:
    """Images whose label is probably wrong."""
    evaluation = subject.of_one_class
    if evaluation is None:
        return None
    suspects = evaluation.likely_mislabelled(_PICTURES)
    if not suspects:
        return element("p", "None: no mistake is as certain as the right answers are.")
    note = (
        "Mistakes of which the network is as certain as it is of its right answers: the label may be wrong, or the "
        "image may show both. See Evaluation.likely_mislabelled."
    )
    return gallery(subject, evaluation, suspects, note)


def best(subject: Subject) -> Html | None:
    """The images with the lowest losses."""
    evaluation = subject.of_one_class
    if evaluation is None:
        return None
    return gallery(subject, evaluation, evaluation.best(_PICTURES), "The images with the lowest losses.")


def gallery(subject: Subject, evaluation: Evaluation, entries: Sequence[Outcome], note: str) -> Html:
    """Pictures with their class, what was predicted and why, and where they are.

    Beside each picture is what the network sees of it, with the regions that speak for the predicted class (Grad-CAM).
    """
    overlays, reason = _overlays(subject, evaluation, entries)

    def figure(entry: Outcome, overlay: np.ndarray | None) -> Html:
        predicted = element("span", "predicted ", element("b", entry.predicted), f" {entry.probability:.1%}")
        caption = [element("b", entry.class_name), predicted]
        heat = None if overlay is None else picture(overlay, 120, f"what speaks for {entry.predicted}")
        return _figure(evaluation, entry.index, entry.image_name, caption, heat)

    if reason is None:
        note += " Beside each, in colours from blue to red, the regions that speak for the predicted class (Grad-CAM)."
    return joined(
        [
            element("p", note),
            None if reason is None else element("p", f"Without Grad-CAM: {reason}", class_="soft"),
            element("div", *map(figure, entries, overlays), class_="gallery"),
        ]
    )


def _decisions(mistake: MultilabelMistake) -> list[Html]:
    """Which classes of an image are missed, and which are predicted without being its own."""
    kinds = {"missed": mistake.missed, "wrong": mistake.wrong}
    return [element("span", f"{kind} ", element("b", ", ".join(names))) for kind, names in kinds.items() if names]


def _figure(
    evaluation: Evaluation | MultilabelEvaluation,
    index: int,
    image_name: str,
    caption: Sequence[Html],
    heat: Html | None = None,
) -> Html:
    """A picture of a gallery, with the lines of its caption and where it is."""
    lines = [part for line in caption for part in (line, element("br"))]
    return element(
        "figure",
        element("div", _picture(evaluation, index, 120), heat, class_="pair"),
        element("figcaption", *lines, element("span", _place(image_name), class_="soft")),
    )


def _overlays(
    subject: Subject, evaluation: Evaluation, entries: Sequence[Outcome]
) -> tuple[list[np.ndarray | None], str | None]:
    """The explanation of each picture's prediction, or None for all and the reason."""
    none: list[np.ndarray | None] = [None] * len(entries)
    if subject.classifier is None or evaluation.image is None:
        return none, "the network or the pictures are not at hand"
    try:
        pictures = [evaluation.image(entry.index) for entry in entries]
        return [each.overlay() for each in subject.classifier.explain(pictures)], None
    except (UserError, OSError) as error:  # a network without feature maps, or a picture that is gone
        return none, str(error)[:200]


def _picture(evaluation: Evaluation | MultilabelEvaluation, row: int, side: int) -> Html:
    """A picture, or why it cannot be shown."""
    if evaluation.image is None:
        return Html("")
    label = evaluation.labels[row]
    name = evaluation.class_names[label] if isinstance(evaluation, Evaluation) else ", ".join(evaluation.names(label))
    try:
        return picture(evaluation.image(row), side, name)
    except (UserError, OSError) as error:  # gone or changed since the evaluation
        return element("span", f"cannot be read: {str(error)[:200]}", class_="soft")


def _place(image_name: str) -> str:
    """Where a picture is, without the directories that all have in common."""
    return "/".join(image_name.split("/")[-2:])


def calibration(subject: Subject) -> Html | None:
    """The reliability diagram."""
    evaluation = subject.of_one_class
    if evaluation is None:
        return None
    return charts([svg(lambda: evaluation_figures.reliability_figure(evaluation))])
