"""The figures of images that may have any number of classes: accuracy, mean average precision, F1.

Each class is decided by itself: it is predicted if its logit is above 0, which is a probability above 0.5.
"""

from typing import NamedTuple

import numpy as np

OF_EACH_CLASS = ("bce",)
"""Losses that treat each class by itself: an image may have any number of classes, and a class's probability is the
sigmoid of its logit."""


class MultilabelFigures(NamedTuple):
    """Figures over a whole split, each from 0 to 1.

    Attributes:
        accuracy: share of right decisions, over images times classes; fastai's `accuracy_multi`. It is high whenever
            most images lack most classes: judge by the others.
        mean_average_precision: mean of `average_precisions` over the classes that have images; 0 if none has.
        f1: mean of `f1_scores` over the classes that have images (macro); 0 if none has.
    """

    accuracy: float
    mean_average_precision: float
    f1: float


def multilabel_figures(logits: np.ndarray, labels: np.ndarray) -> MultilabelFigures:
    """The figures of all images together.

    Args:
        logits: float32 `(N, classes)`.
        labels: int8 `(N, classes)`, 0 or 1.

    Example:
        >>> logits = np.array([[2.0, -1.0], [1.0, 3.0], [-2.0, -3.0]], np.float32)
        >>> figures = multilabel_figures(logits, np.array([[1, 0], [0, 1], [1, 1]], np.int8))
        >>> [round(figure, 3) for figure in figures]
        [0.5, 0.833, 0.583]
    """
    return MultilabelFigures(
        accuracy=int((decisions(logits) == labels).sum()) / labels.size,
        mean_average_precision=mean_of_classes(average_precisions(logits, labels), labels),
        f1=mean_of_classes(f1_scores(logits, labels), labels),
    )


def decisions(logits: np.ndarray) -> np.ndarray:
    """Which classes are predicted, bool `(N, classes)`."""
    return logits > 0


def mean_of_classes(figures: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the classes' figures over the classes that have images; 0 if none has.

    Args:
        figures: float64 `(classes,)`.
        labels: int8 `(N, classes)`.
    """
    there = labels.any(0)
    return float(figures[there].mean()) if there.any() else 0.0


def average_precisions(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The average precision of each class: the mean of precision over the steps of recall, as the threshold falls.

    It is the sum of (R_n - R_(n-1)) P_n over the distinct scores n, from the highest to the lowest, without
    interpolation: scikit-learn's `average_precision_score`. Images of equal scores count together, so their order does
    not matter.

    Args:
        scores: float `(N, classes)`, such as logits; not-a-number counts as the lowest.
        labels: int8 `(N, classes)`, 0 or 1.

    Returns:
        float64 `(classes,)`; 0 for a class without images.

    Example:
        >>> average_precisions(np.array([[0.9], [0.8], [0.7]]), np.array([[1], [0], [1]])).round(4).tolist()
        [0.8333]
    """
    precisions = np.zeros(labels.shape[1])
    for number, (column, positive) in enumerate(zip(scores.T, labels.T, strict=True)):
        if not positive.any():
            continue
        column = np.where(np.isnan(column), -np.inf, column)
        order = np.argsort(-column, kind="stable")
        column, hits = column[order], np.cumsum(positive[order], dtype=np.int64)
        ends = np.append(np.flatnonzero(column[1:] != column[:-1]), len(column) - 1)  # the last of each score
        precisions[number] = np.diff(hits[ends], prepend=0) @ (hits[ends] / (ends + 1)) / hits[-1]
    return precisions


def f1_scores(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The F1 of each class: harmonic mean of precision and recall; 0 if it is neither predicted nor there.

    Args:
        logits: float32 `(N, classes)`.
        labels: int8 `(N, classes)`, 0 or 1.

    Returns:
        float64 `(classes,)`.
    """
    predicted, there = decisions(logits), labels > 0
    hits, both = (predicted & there).sum(0), predicted.sum(0) + there.sum(0)
    return 2 * hits / np.maximum(both, 1)
