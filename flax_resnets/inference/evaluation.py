"""What the logits of a labelled set say about a classifier: accuracies, figures of each class, calibration."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_resnets.errors import UserError

BINS = 15
"""Number of bins of equal width in the calibration error, as in Guo et al. 2017."""

Z = 1.959963984540054
"""The normal distribution's 97.5 % quantile, for intervals of 95 %."""


class ClassFigures(NamedTuple):
    """The figures of one class, each from 0 to 1.

    Attributes:
        class_name: its name.
        support: number of its images.
        precision: share of the images predicted as this class that belong to it; 0 if none are.
        recall: share of its images that are predicted as this class; 0 if it has none.
        f1: harmonic mean of precision and recall; 0 if both are 0.
    """

    class_name: str
    support: int
    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What is predicted for one image of the set.

    Attributes:
        index: of the image in the set.
        image_name: tells a person where the image is.
        class_name: its own class.
        predicted: the class with the highest logit.
        probability: of the predicted class.
        loss: cross-entropy, in nats.
    """

    index: int
    image_name: str
    class_name: str
    predicted: str
    probability: float
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """The outcome as values that JSON can hold: None for a number that is not finite."""
        return vars(self) | {"probability": finite(self.probability), "loss": finite(self.loss)}


class ReliabilityBin(NamedTuple):
    """The images whose highest probability lies in one interval.

    Attributes:
        lower, upper: the interval; a probability equal to `upper` belongs to it, one equal to `lower` does not.
        images: their number.
        confidence: mean of their highest probabilities; 0 if there are none.
        accuracy: share of them that are predicted right; 0 if there are none.
    """

    lower: float
    upper: float
    images: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The result of a classifier on a labelled set. All figures are computed from the logits, when they are asked for.

    Attributes:
        dataset: describes the set.
        class_names: in the order of the labels.
        logits: float32 `(N, classes)`.
        labels: int `(N,)`, each in `range(classes)`.
        mean_loss: mean cross-entropy, as the evaluation summed it; None to compute it from the logits.
        image_name: a function from an image's index to words that say where it is.
        image: a function from an image's index to its pixels, uint8 `(H, W, C)`; None if they are not at hand.
        tta: the test-time augmentation, such as `flip`; None for none.
        fingerprint: of the set's files, see `Source`; empty if it is not known.
        image_size: side of the images that the network saw, in pixels; None if it is not known.
        crop_pct: share of an image's shorter side that it saw; None if it is not known.

    Raises:
        UserError: there are no images.

    Example:
        >>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]], np.float32)
        >>> evaluation = Evaluation("three images", ("cat", "dog"), logits, np.array([0, 1, 1]))
        >>> round(evaluation.accuracy, 3), evaluation.confusion.tolist()
        (0.667, [[1, 0], [1, 1]])
        >>> evaluation.worst(1)[0].predicted
        'cat'
    """

    dataset: str
    class_names: tuple[str, ...]
    logits: np.ndarray
    labels: np.ndarray
    mean_loss: float | None = None
    image_name: Callable[[int], str] = "image {}".format
    image: Callable[[int], np.ndarray] | None = None
    tta: str | None = None
    fingerprint: str = ""
    image_size: int | None = None
    crop_pct: float | None = None

    def __post_init__(self):
        if not len(self.labels):
            raise UserError(f"dataset={self.dataset}: has no images to evaluate")

    def __repr__(self) -> str:
        return f"Evaluation({self.dataset!r}, {self.images:,} images, accuracy {self.accuracy:.4f})"

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @cached_property
    def first_five(self) -> np.ndarray:
        """The classes with the five highest logits, highest first, `(N, 5)`; of equal logits the first class."""
        # The training's evaluation uses top_k too, so it decides about equal logits and not-a-number in the same way.
        return np.asarray(jax.lax.top_k(self.logits, min(5, self.logits.shape[1]))[1])

    @property
    def predicted(self) -> np.ndarray:
        """The class with the highest logit, `(N,)`."""
        return self.first_five[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """Whether each image is predicted right, bool `(N,)`."""
        return self.predicted == self.labels

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits, float32 `(N, classes)`."""
        return np.asarray(jax.nn.softmax(self.logits, axis=-1))

    @cached_property
    def losses(self) -> np.ndarray:
        """Cross-entropy of each image in nats, float32 `(N,)`."""
        normalizers = np.asarray(jax.nn.logsumexp(self.logits, axis=-1))
        return normalizers - self.logits[np.arange(self.images), self.labels]

    @property
    def loss(self) -> float:
        """Mean cross-entropy, in nats."""
        return float(self.losses.astype(np.float64).mean()) if self.mean_loss is None else self.mean_loss

    @property
    def accuracy(self) -> float:
        """Share of the images that are predicted right, 0 to 1."""
        return int(self.correct.sum()) / self.images

    @property
    def top5_accuracy(self) -> float:
        """Share of the images whose class is among the five highest logits, 0 to 1."""
        return int((self.first_five == self.labels[:, None]).any(1).sum()) / self.images

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The accuracy's 95 % interval by Wilson's score (Wilson 1927), which needs no normal approximation of shares.

        It covers the choice of the images, not that of the training's seed.
        """
        return wilson(int(self.correct.sum()), self.images)

    @cached_property
    def confusion(self) -> np.ndarray:
        """Number of images by class (rows) and predicted class (columns), int64 `(classes, classes)`."""
        classes = len(self.class_names)
        pairs = self.labels.astype(np.int64) * classes + self.predicted
        return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    @cached_property
    def per_class(self) -> tuple[ClassFigures, ...]:
        """The figures of each class, in the order of the labels."""
        hits = np.diagonal(self.confusion)
        support, guessed = self.confusion.sum(1), self.confusion.sum(0)
        precision, recall = _share(hits, guessed), _share(hits, support)
        f1 = _share(2 * hits, support + guessed)
        return tuple(
            ClassFigures(name, int(support[i]), float(precision[i]), float(recall[i]), float(f1[i]))
            for i, name in enumerate(self.class_names)
        )

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have images, 0 to 1."""
        return float(np.mean([each.recall for each in self.per_class if each.support]))

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that have images, 0 to 1."""
        return float(np.mean([each.f1 for each in self.per_class if each.support]))

    @cached_property
    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """The images grouped by their highest probability, in `BINS` intervals of equal width."""
        confidence = np.nan_to_num(self.probabilities.max(1).astype(np.float64))  # not-a-number is no confidence
        numbers = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        images = np.bincount(numbers, minlength=BINS)
        means = _share(np.bincount(numbers, confidence, BINS), images)
        accuracies = _share(np.bincount(numbers, self.correct, BINS), images)
        return tuple(
            ReliabilityBin(i / BINS, (i + 1) / BINS, int(images[i]), float(means[i]), float(accuracies[i]))
            for i in range(BINS)
        )

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: mean distance of confidence and accuracy over the bins, weighted by images.

        Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599, equation 3.
        """
        return sum(each.images * abs(each.confidence - each.accuracy) for each in self.reliability) / self.images

    def worst(self, number: int = 10) -> tuple[Outcome, ...]:
        """The mistakes with the highest losses, highest first."""
        wrong = np.flatnonzero(~self.correct)
        # Equal losses stay in the order of the images; not-a-number counts as the highest.
        return self._outcomes(wrong[np.argsort(-np.nan_to_num(self.losses[wrong], nan=np.inf), kind="stable")][:number])

    def best(self, number: int = 10) -> tuple[Outcome, ...]:
        """The images with the lowest losses, lowest first."""
        return self._outcomes(np.argsort(self.losses, kind="stable")[:number])  # not-a-number comes last

    def likely_mislabelled(self, number: int = 10) -> tuple[Outcome, ...]:
        """The images whose label is probably wrong, the most probable first. Look at them before you believe it.

        An image is one of them if another class than its own is predicted, with at least the probability that this
        class has on average for the images that are labelled with it: Northcutt et al. 2019, "Confident Learning:
        Estimating Uncertainty in Dataset Labels", arXiv:1911.00068, section 3.1. The order is that of this probability.
        `worst` differs: it has all mistakes, also those of which the network is not certain, in the order of the
        label's own probability.

        The network must not have been trained on these images, or it may have learned the wrong labels by heart.
        """
        of_label = self.probabilities[np.arange(self.images), self.labels]
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        # No image is suspected for a class without images: there is nothing to compare with, and nothing exceeds NaN.
        usual = np.bincount(self.labels, of_label, len(self.class_names)) / np.where(counts, counts, np.nan)
        predicted = self.probabilities[np.arange(self.images), self.predicted]
        suspects = np.flatnonzero(~self.correct & (predicted >= usual[self.predicted]))
        return self._outcomes(suspects[np.argsort(-predicted[suspects], kind="stable")][:number])

    def _outcomes(self, rows: np.ndarray) -> tuple[Outcome, ...]:
        return tuple(
            Outcome(
                int(i),
                self.image_name(int(i)),
                self.class_names[self.labels[i]],
                self.class_names[self.predicted[i]],
                float(self.probabilities[i, self.predicted[i]]),
                float(self.losses[i]),
            )
            for i in rows
        )

    def most_confused(self, number: int = 10) -> tuple[tuple[str, str, int], ...]:
        """The most frequent mistakes: class, predicted class, number of images."""
        mistakes = self.confusion.copy()
        np.fill_diagonal(mistakes, 0)
        order = np.argsort(-mistakes, axis=None, kind="stable")[:number]
        rows, columns = np.unravel_index(order, mistakes.shape)
        return tuple(
            (self.class_names[row], self.class_names[column], int(mistakes[row, column]))
            for row, column in zip(rows, columns, strict=True)
            if mistakes[row, column]
        )

    def as_dict(self) -> dict[str, Any]:
        """The figures as values that JSON can hold; without logits."""
        return {
            "dataset": self.dataset,
            "images": self.images,
            "tta": self.tta,
            "image_size": self.image_size,
            "crop_pct": self.crop_pct,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "top5_accuracy": self.top5_accuracy,
            "loss": finite(self.loss),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "calibration_error": self.calibration_error,
            "per_class": [each._asdict() for each in self.per_class],
            "confusion": self.confusion.tolist(),
        }


def finite(number: float) -> float | None:
    """The number, or None if it is not finite, for which JSON has no word."""
    return number if math.isfinite(number) else None


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share by Wilson's score (Wilson 1927, "Probable Inference").

    Args:
        hits: number of successes.
        trials: at least 1.

    Example:
        >>> lower, upper = wilson(9, 10)
        >>> round(lower, 3), round(upper, 3)
        (0.596, 0.982)
    """
    share, weight = hits / trials, Z * Z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = Z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _share(part: Sequence[float] | np.ndarray, whole: Sequence[float] | np.ndarray) -> np.ndarray:
    """Elementwise quotient, 0 where the divisor is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
