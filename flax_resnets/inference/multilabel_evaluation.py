"""What the logits of a labelled set say about a classifier whose images may have any number of classes."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from flax_resnets.data.labels import classes_of
from flax_resnets.errors import UserError
from flax_resnets.inference.evaluation import finite
from flax_resnets.training.multilabel import (
    MultilabelFigures,
    average_precisions,
    decisions,
    f1_scores,
    multilabel_figures,
)


class LabelFigures(NamedTuple):
    """The figures of one class, each from 0 to 1. The class is predicted where its probability is above 0.5.

    Attributes:
        class_name: its name.
        support: number of its images.
        average_precision: see `flax_resnets.training.multilabel.average_precisions`; 0 if it has no images.
        precision: share of the images predicted to have it that have it; 0 if none are.
        recall: share of its images that are predicted to have it; 0 if it has none.
        f1: harmonic mean of precision and recall; 0 if both are 0.
    """

    class_name: str
    support: int
    average_precision: float
    precision: float
    recall: float
    f1: float


@dataclasses.dataclass(frozen=True)
class MultilabelMistake:
    """An image of which at least one class is decided wrongly.

    Attributes:
        index: of the image in the set.
        image_name: tells a person where the image is.
        missed: its classes that are not predicted.
        wrong: the classes that are predicted and are not its own.
        loss: binary cross-entropy in nats, averaged over the classes.
    """

    index: int
    image_name: str
    missed: tuple[str, ...]
    wrong: tuple[str, ...]
    loss: float

    def as_dict(self) -> dict[str, Any]:
        """The mistake as values that JSON can hold: None for a loss that is not finite."""
        return vars(self) | {"loss": finite(self.loss)}


@dataclasses.dataclass(frozen=True, eq=False)
class MultilabelEvaluation:
    """The result of a classifier on a set whose images may have any number of classes, also none.

    All figures are computed from the logits, when they are asked for. There is no confusion matrix: a class that is
    missed is not exchanged for another one.

    Attributes:
        dataset: describes the set.
        class_names: in the order of the labels.
        logits: float32 `(N, classes)`.
        labels: int8 `(N, classes)`, 0 or 1.
        mean_loss: mean binary cross-entropy, as the evaluation summed it; None to compute it from the logits.
        image_name: a function from an image's index to words that say where it is.
        image: a function from an image's index to its pixels, uint8 `(H, W, C)`; None if they are not at hand.
        tta: the test-time augmentation, such as `flip`; None for none.
        fingerprint: of the set's files, see `Source`; empty if it is not known.
        image_size: side of the images that the network saw, in pixels; None if it is not known.
        crop_pct: share of an image's shorter side that it saw; None if it is not known.

    Raises:
        UserError: there are no images.

    Example:
        >>> logits = np.array([[2.0, -1.0], [1.0, 3.0], [-2.0, -3.0]], np.float32)
        >>> labels = np.array([[1, 0], [0, 1], [1, 1]], np.int8)
        >>> evaluation = MultilabelEvaluation("three images", ("cat", "dog"), logits, labels)
        >>> round(evaluation.mean_average_precision, 3), round(evaluation.f1, 3), evaluation.accuracy
        (0.833, 0.583, 0.5)
        >>> evaluation.worst(1)[0].missed
        ('cat', 'dog')
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
        figure = f"mean average precision {self.mean_average_precision:.4f}"
        return f"MultilabelEvaluation({self.dataset!r}, {self.images:,} images, {figure})"

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.labels)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Sigmoid of the logits, float32 `(N, classes)`; those of an image need not sum to 1."""
        return np.asarray(jax.nn.sigmoid(self.logits))

    @cached_property
    def losses(self) -> np.ndarray:
        """Binary cross-entropy of each image in nats, averaged over the classes, float32 `(N,)`."""
        return np.asarray(optax.sigmoid_binary_cross_entropy(self.logits, self.labels.astype(np.float32))).mean(-1)

    @property
    def loss(self) -> float:
        """Mean binary cross-entropy, in nats."""
        return float(self.losses.astype(np.float64).mean()) if self.mean_loss is None else self.mean_loss

    @cached_property
    def _figures(self) -> MultilabelFigures:
        return multilabel_figures(self.logits, self.labels)

    @property
    def accuracy(self) -> float:
        """Share of right decisions over images times classes, 0 to 1: see `MultilabelFigures`."""
        return self._figures.accuracy

    @property
    def mean_average_precision(self) -> float:
        """Mean average precision of the classes that have images, 0 to 1: see `MultilabelFigures`."""
        return self._figures.mean_average_precision

    @property
    def f1(self) -> float:
        """Mean F1 of the classes that have images (macro), 0 to 1, where probabilities above 0.5 are predictions."""
        return self._figures.f1

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together, 0 to 1: frequent classes count more."""
        predicted, there = self.predicted, self.labels > 0
        return 2 * int((predicted & there).sum()) / max(int(predicted.sum() + there.sum()), 1)

    @property
    def exact_match(self) -> float:
        """Share of the images of which all classes are decided rightly, 0 to 1."""
        return int(self.correct.sum()) / self.images

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether all classes of an image are decided rightly, bool `(N,)`."""
        return (self.predicted == self.labels).all(1)

    @cached_property
    def predicted(self) -> np.ndarray:
        """Which classes have a probability above 0.5, bool `(N, classes)`."""
        return decisions(self.logits)

    @cached_property
    def per_class(self) -> tuple[LabelFigures, ...]:
        """The figures of each class, in the order of the labels."""
        there = self.labels > 0
        hits, support, guessed = (self.predicted & there).sum(0), there.sum(0), self.predicted.sum(0)
        columns = (
            average_precisions(self.logits, self.labels),
            hits / np.maximum(guessed, 1),
            hits / np.maximum(support, 1),
            f1_scores(self.logits, self.labels),
        )
        return tuple(
            LabelFigures(name, int(support[i]), *(float(column[i]) for column in columns))
            for i, name in enumerate(self.class_names)
        )

    def worst(self, number: int = 10) -> tuple[MultilabelMistake, ...]:
        """The images with a wrong decision that have the highest losses, highest first."""
        wrong = np.flatnonzero(~self.correct)
        # Equal losses stay in the order of the images; not-a-number counts as the highest.
        order = wrong[np.argsort(-np.nan_to_num(self.losses[wrong], nan=np.inf), kind="stable")[:number]]
        return tuple(
            MultilabelMistake(
                int(i),
                self.image_name(int(i)),
                self.names((self.labels[i] > 0) & ~self.predicted[i]),
                self.names(self.predicted[i] & (self.labels[i] == 0)),
                float(self.losses[i]),
            )
            for i in order
        )

    def names(self, chosen: np.ndarray) -> tuple[str, ...]:
        """The names of some classes, which are given as bool or int8 `(classes,)`."""
        return tuple(self.class_names[number] for number in classes_of(chosen))

    def as_dict(self) -> dict[str, Any]:
        """The figures as values that JSON can hold; without logits."""
        return {
            "dataset": self.dataset,
            "images": self.images,
            "tta": self.tta,
            "image_size": self.image_size,
            "crop_pct": self.crop_pct,
            "accuracy": self.accuracy,
            "mean_average_precision": self.mean_average_precision,
            "f1": self.f1,
            "micro_f1": self.micro_f1,
            "exact_match": self.exact_match,
            "loss": finite(self.loss),
            "per_class": [each._asdict() for each in self.per_class],
        }
