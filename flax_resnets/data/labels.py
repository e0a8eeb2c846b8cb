"""The two forms of labels: one class for each image, or any number of classes (multi-label).

Labels of one class are int32 `(N,)`. Labels of any number of classes are int8 `(N, classes)`: 1 for each class of the
image, otherwise 0. In both forms −1 stands for an image that has no label because it is none: it pads a batch, or its
record cannot be read. All that depends on the form is decided here, by the number of axes.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Label = int | np.ndarray
"""The label of one image: the number of its class, or int8 `(classes,)`."""


class Form(Protocol):
    """What decides the form of a dataset's labels: a `Source`, or the `Metadata` of a dataset."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of classes."""
        ...


def is_multilabel(labels: Any) -> bool:
    """Whether images may have any number of classes."""
    return labels.ndim == 2


def new_labels(form: Form, images: int) -> np.ndarray:
    """Labels for images of a dataset, in its form, all of them −1.

    Args:
        form: a split of the dataset, or its metadata.
        images: how many.
    """
    if form.multilabel:
        return np.full((images, form.num_classes), -1, np.int8)
    return np.full(images, -1, np.int32)


def multi_hot(classes: Sequence[Sequence[int] | np.ndarray], num_classes: int) -> np.ndarray:
    """Labels of any number of classes.

    Args:
        classes: the numbers of each image's classes; a number that occurs twice counts once.
        num_classes: number of classes.

    Returns:
        int8 `(N, num_classes)`.

    Raises:
        ValueError: a number is not in `range(num_classes)`.

    Example:
        >>> multi_hot([[0, 2], [], [1, 1]], num_classes=3).tolist()
        [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    """
    labels = np.zeros((len(classes), num_classes), np.int8)
    images = np.repeat(np.arange(len(classes)), [len(each) for each in classes])
    numbers = np.concatenate([np.zeros(0, np.int64), *(np.asarray(each, np.int64) for each in classes)])
    if len(wrong := numbers[(numbers < 0) | (numbers >= num_classes)]):
        raise ValueError(f"label {wrong[0]} is not in range({num_classes})")
    labels[images, numbers] = 1
    return labels


def is_real(labels: Any) -> Any:
    """Whether each of these labels is an image's, bool `(N,)`; the others are −1.

    Example:
        >>> is_real(np.array([3, -1])).tolist(), is_real(np.array([[0, 0], [-1, -1]])).tolist()
        ([True, False], [True, False])
    """
    return labels[:, 0] >= 0 if is_multilabel(labels) else labels >= 0


def classes_of(label: Label) -> list[int]:
    """The numbers of one image's classes, in rising order.

    Example:
        >>> classes_of(3), classes_of(np.array([1, 0, 1], np.int8)), classes_of(-1)
        ([3], [0, 2], [])
    """
    if np.ndim(label):
        return np.flatnonzero(np.asarray(label) > 0).tolist()
    return [int(label)] if int(label) >= 0 else []


def in_words(label: Label, class_names: Sequence[str]) -> str:
    """The names of one image's classes.

    Example:
        >>> in_words(1, ["cat", "dog"]), in_words(np.array([0, 0]), ["cat", "dog"])
        ('dog', 'no label')
    """
    return ", ".join(class_names[number] for number in classes_of(label)) or "no label"


def has_class(labels: np.ndarray, number: int) -> np.ndarray:
    """Whether each image is of a class, bool `(N,)`."""
    return labels[:, number] > 0 if is_multilabel(labels) else labels == number


def class_counts(labels: np.ndarray, num_classes: int) -> tuple[int, ...]:
    """The number of images of each class.

    Args:
        labels: in either form, without −1.
        num_classes: number of classes.

    Example:
        >>> class_counts(np.array([0, 2, 2]), num_classes=4)
        (1, 0, 2, 0)
        >>> class_counts(np.array([[1, 1], [0, 1]], np.int8), num_classes=2)
        (1, 2)
    """
    counts = labels.sum(0, dtype=np.int64) if is_multilabel(labels) else np.bincount(labels, minlength=num_classes)
    return tuple(counts.tolist())


def images_by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of each class's images, in rising order; classes without images are left out.

    Args:
        labels: in either form. An image of several classes is in the list of each of them.

    Example:
        >>> [images.tolist() for images in images_by_class(np.array([3, 0, 3]))]
        [[1], [0, 2]]
    """
    if is_multilabel(labels):
        each = (np.flatnonzero(column > 0) for column in labels.T)
        return [images for images in each if len(images)]
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def strata(labels: np.ndarray) -> np.ndarray:
    """A number for each image, from 0: a drawn share of the images takes its part of those of each number.

    It is the image's class; of several classes, the one with the fewest images; without any, the number of classes.

    Args:
        labels: in either form, without −1.

    Returns:
        int `(N,)`.

    Example:
        >>> strata(np.array([[1, 1], [1, 0], [0, 0]], np.int8)).tolist()
        [1, 0, 2]
    """
    if not is_multilabel(labels):
        return labels
    # The last column stands for images without a class.
    frequent = np.append(labels.sum(0, dtype=np.int64), len(labels) + 1)
    padded = np.pad(labels, ((0, 0), (0, 1)), constant_values=1)
    return np.where(padded > 0, frequent, len(labels) + 2).argmin(1)


def renumbered(labels: np.ndarray, numbers: np.ndarray, num_classes: int) -> np.ndarray:
    """The same labels with other numbers for the classes.

    Args:
        labels: in either form.
        numbers: int `(classes,)`: the new number of each class.
        num_classes: of the new numbering.

    Example:
        >>> renumbered(np.array([1, -1, 0], np.int32), np.array([5, 2]), num_classes=6).tolist()
        [2, -1, 5]
    """
    if not is_multilabel(labels):
        return np.where(labels >= 0, numbers[labels], -1).astype(np.int32)
    new = np.where(is_real(labels)[:, None], 0, -1).repeat(num_classes, 1).astype(np.int8)
    new[:, numbers] = labels
    return new


def targets(labels: jax.Array, num_classes: int) -> jax.Array:
    """What the network's outputs are compared with: 1 for each class of an image, otherwise 0. For compiled functions.

    Args:
        labels: in either form, without −1.
        num_classes: number of classes.

    Returns:
        float32 `(N, num_classes)`.
    """
    return labels.astype(jnp.float32) if is_multilabel(labels) else jax.nn.one_hot(labels, num_classes)
