"""Pictures of an evaluation, as PNG files: confusion matrix or figures of each class, mistakes, reliability diagram."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from flax_resnets.confusion_matrix import NAMED, draw_matrix, matrix_figure, side_of
from flax_resnets.figures import new_figure, plain, png, short
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CONFUSED = 50  # classes that the confusion matrix shows of more
_PAIRS = 40  # mistakes in the list
_COLUMNS = 5  # pictures in a row
_MOST_BARS = 60  # classes that the figures of each class show


def pictures(evaluation: Evaluation | MultilabelEvaluation) -> dict[str, bytes]:
    """The pictures that an evaluation has, by the names of their files."""
    if isinstance(evaluation, MultilabelEvaluation):
        return {"classes.png": draw_classes(evaluation), "mistakes.png": draw_worst(evaluation)}
    return {
        "confusion.png": draw_confusion(evaluation),
        "mistakes.png": draw_worst(evaluation),
        "reliability.png": draw_reliability(evaluation),
    }


def draw_confusion(evaluation: Evaluation) -> bytes:
    """Draws the confusion matrix as a PNG; see `confusion_figure`."""
    return png(confusion_figure(evaluation))


def confusion_figure(evaluation: Evaluation) -> "Figure":
    """Draws the confusion matrix; the colour is the share of the class's images.

    Of more than 60 classes it shows the 50 of the most frequent mistakes, and lists these mistakes beside the matrix.
    Up to 30 classes each cell shows its number of images.
    """
    classes = len(evaluation.class_names)
    shown = range(classes) if classes <= NAMED else _most_confused_classes(evaluation)
    counts = evaluation.confusion[np.ix_(shown, shown)]
    if classes > NAMED:
        side = side_of(len(shown))
        figure = new_figure(side + 6, side + 1)
        axes, beside = figure.subplots(1, 2, width_ratios=(side, 5))
        _list_mistakes(beside, evaluation)
    else:
        figure, axes = matrix_figure(len(shown))
    names = [evaluation.class_names[each] for each in shown]
    draw_matrix(figure, axes, counts, names, evaluation.confusion.sum(1)[shown])
    part = f", the {len(shown)} most confused of {classes:,} classes" if classes > NAMED else ""
    title = f"{evaluation.dataset}: {evaluation.images:,} images, accuracy {evaluation.accuracy:.2%}{part}"
    axes.set_title(plain(title), fontsize=10)
    return figure


def _most_confused_classes(evaluation: Evaluation) -> list[int]:
    """The classes of the most frequent mistakes, in the order of the labels."""
    mistakes = evaluation.confusion.copy()
    np.fill_diagonal(mistakes, 0)
    classes: dict[int, None] = {}
    for flat in np.argsort(-mistakes, axis=None, kind="stable"):
        pair = divmod(int(flat), len(mistakes))
        if not mistakes[pair] or len({*classes, *pair}) > _CONFUSED:
            break
        classes.update(dict.fromkeys(pair))
    return sorted(classes) or list(range(_CONFUSED))


def _list_mistakes(axes: Any, evaluation: Evaluation) -> None:
    axes.set_axis_off()
    axes.set_title("most frequent mistakes: class → predicted", fontsize=10, loc="left")
    lines = [
        f"{count:>5,}  {short(name, 26)} → {short(predicted, 26)}"
        for name, predicted, count in evaluation.most_confused(_PAIRS)
    ]
    text = "\n".join(lines) or "none"
    axes.text(0, 0.99, text, transform=axes.transAxes, va="top", fontsize=8, family="monospace", linespacing=1.5)


def draw_worst(evaluation: Evaluation | MultilabelEvaluation, number: int = 20) -> bytes:
    """Draws the mistakes with the highest losses, each with its class, the predicted class and its probability.

    If an image may have any number of classes, each has the classes that are missed, and those that are predicted
    wrongly.

    Args:
        evaluation: the evaluation, whose `image` gives the pixels.
        number: how many mistakes to draw.
    """
    if isinstance(evaluation, MultilabelEvaluation):
        mistakes = evaluation.worst(number)
        titles = [_in_signs(each.missed, each.wrong) for each in mistakes]
        count, of = int((evaluation.predicted != evaluation.labels).any(1).sum()), "images with wrong decisions"
        what = "- is a class that is missed, + one that is predicted wrongly"
    else:
        mistakes = evaluation.worst(number)
        titles = [
            f"{short(each.class_name, 30)}\n{short(each.predicted, 24)} {each.probability:.0%}" for each in mistakes
        ]
        count, of = int((~evaluation.correct).sum()), "mistakes"
        what = "the class, and below it what was predicted"
    return _grid(evaluation, [each.index for each in mistakes], titles, f"of {count:,} {of}; {what}")


def _in_signs(missed: Sequence[str], wrong: Sequence[str]) -> str:
    lines = [f"- {short(name, 26)}" for name in missed] + [f"+ {short(name, 26)}" for name in wrong]
    return "\n".join(lines if len(lines) < 5 else [*lines[:3], f"and {len(lines) - 3} more"])


def _grid(
    evaluation: Evaluation | MultilabelEvaluation, indices: Sequence[int], titles: Sequence[str], what: str
) -> bytes:
    """Draws images of an evaluation, each below its title."""
    assert evaluation.image is not None, "an evaluation whose images are at hand"
    columns = min(max(len(indices), 1), _COLUMNS)
    rows = -(-max(len(indices), 1) // columns)
    lines = max((title.count("\n") for title in titles), default=0)  # beyond the first
    figure = new_figure(max(2.3 * columns, 6), (2.6 + 0.15 * lines) * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index, title in zip(grid.flat, indices, titles, strict=False):
        axes.imshow(evaluation.image(index), cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=8)
        where = _place(index, evaluation.image_name(index))
        axes.text(0.5, -0.03, where, transform=axes.transAxes, ha="center", va="top", fontsize=7, color="0.4")
    shown = f"the {len(indices)} worst {what}" if indices else "no mistakes"
    figure.suptitle(f"{plain(evaluation.dataset)}: {shown}", fontsize=10)
    return png(figure)


def _place(index: int, image_name: str) -> str:
    """An image's index, and the end of its file's name if it has one."""
    where, file = f"image {index}", image_name.rpartition("/")[2]
    if file == where:
        return where
    return f"{where}, {plain(file if len(file) <= 26 else '…' + file[-25:])}"


def draw_classes(evaluation: MultilabelEvaluation) -> bytes:
    """Draws average precision and F1 of each class as bars, the class of the lowest precision first. Returns a PNG.

    Of more than 60 classes it shows the 60 of the lowest precision. Classes without images are left out.
    """
    there = [each for each in evaluation.per_class if each.support]
    shown = sorted(there, key=lambda each: each.average_precision)[:_MOST_BARS][::-1]
    figure = new_figure(8, 1.8 + 0.34 * max(len(shown), 1))
    axes = figure.subplots()
    places = np.arange(len(shown))
    axes.barh(
        places + 0.2, [each.average_precision for each in shown], 0.4, color="tab:blue", label="average precision"
    )
    axes.barh(places - 0.2, [each.f1 for each in shown], 0.4, color="tab:orange", label="F1 at 0.5")
    axes.axvline(evaluation.mean_average_precision, color="tab:blue", linestyle="--", linewidth=1)
    axes.axvline(evaluation.f1, color="tab:orange", linestyle="--", linewidth=1)
    axes.set_yticks(places, [f"{short(each.class_name, 30)} ({each.support:,})" for each in shown], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set_xlabel("figures of each class, with its number of images; dashed: their means")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.55 / (0.34 * max(len(shown), 1))), ncols=2)
    part = f", the {len(shown)} classes of the lowest of {len(there):,}" if len(shown) < len(there) else ""
    title = (
        f"{evaluation.dataset}: {evaluation.images:,} images, mean average precision "
        f"{evaluation.mean_average_precision:.2%}, F1 {evaluation.f1:.2%}{part}"
    )
    axes.set_title(plain(title), fontsize=10)
    return png(figure)


def draw_reliability(evaluation: Evaluation) -> bytes:
    """Draws the reliability diagram as a PNG; see `reliability_figure`."""
    return png(reliability_figure(evaluation))


def reliability_figure(evaluation: Evaluation) -> "Figure":
    """Draws the reliability diagram: accuracy by confidence, above the number of images in each bin."""
    figure = new_figure(6, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [each for each in evaluation.reliability if each.images]
    centres = [(each.lower + each.upper) / 2 for each in filled]
    width = 1 / len(evaluation.reliability)
    above.plot([0, 1], [0, 1], color="0.6", linestyle="--", label="perfectly calibrated")
    above.bar(centres, [each.accuracy for each in filled], width * 0.95, color="tab:blue", label="accuracy")
    above.plot([each.confidence for each in filled], [each.accuracy for each in filled], "o", color="tab:orange")
    above.set_ylim(0, 1)
    above.set_ylabel("accuracy in the bin")
    above.legend(loc="upper left", fontsize=8)
    above.set_title(
        f"{plain(evaluation.dataset)}: expected calibration error {evaluation.calibration_error:.2%}", fontsize=10
    )
    below.bar(centres, [each.images for each in filled], width * 0.95, color="0.6")
    below.set_xlim(0, 1)
    below.set_xlabel("confidence: the highest probability")
    below.set_ylabel("images")
    return figure
