"""The first section of a report: the most important figures."""

import jax

from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation
from flax_resnets.inference.page import Html, element, joined, tiles
from flax_resnets.inference.report.subject import Subject


def result(subject: Subject) -> Html:
    """The most important figures, and what is missing."""
    run, evaluation, classifier = subject.run, subject.evaluation, subject.classifier
    figures: list[tuple[str, str]] = []
    if evaluation is not None:
        of_one = isinstance(evaluation, Evaluation)
        figures += _of_images(evaluation) if of_one else _of_classes(evaluation)
        figures.append((f"{evaluation.images:,}", "images evaluated"))
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
        words = f"The network is {classifier.source}. It was evaluated on {evaluation.dataset}{tta}."
        if isinstance(evaluation, Evaluation):
            words += " The interval covers the choice of these images, not that of the training's seed."
        what.append(element("p", words, class_="soft"))
    notes = (element("p", each, class_="note") for each in subject.notes)
    return joined([*notes, tiles(figures), *what])


def _of_images(evaluation: Evaluation) -> list[tuple[str, str]]:
    lower, upper = evaluation.accuracy_interval
    top5 = [(_percent(evaluation.top5_accuracy), "top-5 accuracy")] if len(evaluation.class_names) > 5 else []
    return [
        (_percent(evaluation.accuracy), f"accuracy, 95 % interval {_percent(lower)} to {_percent(upper)}"),
        *top5,
        (f"{evaluation.loss:.4f}", "loss, in nats"),
        (_percent(evaluation.calibration_error), "calibration error"),
    ]


def _of_classes(evaluation: MultilabelEvaluation) -> list[tuple[str, str]]:
    return [
        (_percent(evaluation.mean_average_precision), "mean average precision"),
        (_percent(evaluation.f1), "F1, mean of the classes"),
        (_percent(evaluation.accuracy), "accuracy: share of right decisions"),
        (_percent(evaluation.exact_match), "exact match: share of images with right decisions alone"),
        (f"{evaluation.loss:.4f}", "loss, in nats"),
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"
