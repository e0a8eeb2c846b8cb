"""The classes of arrays of labels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.data.npz.arrays import Arrays, image_shape, names_in, read_array
from flax_resnets.errors import UserError

NAMES = "class_names"
"""The array of a file that names its classes."""


class Classes(NamedTuple):
    """The classes of a dataset.

    Attributes:
        names: in order.
        values: the label in the arrays that means each class, rising; None if an image may have any number of classes.
    """

    names: tuple[str, ...]
    values: np.ndarray | None

    def numbers(self, labels: np.ndarray, arrays: Arrays) -> np.ndarray:
        """Labels in one of the forms of `flax_resnets.data.labels`: int32 `(N,)` or int8 `(N, classes)`.

        Args:
            labels: as `read_labels` returns them.
            arrays: where they are, for messages.

        Raises:
            UserError: a label is none of the classes.
        """
        where = f"{arrays.file}, {arrays.labels}"
        if self.values is None:
            if labels.ndim != 2 or labels.shape[1] != len(self.names):
                raise UserError(
                    f"{where}: has the shape {labels.shape}; must be (N, {len(self.names)}), as in training"
                )
            if not np.isin(labels, (0, 1)).all():
                raise UserError(f"{where}: has other values than 0 and 1, of which an image has one for each class")
            return labels.astype(np.int8)
        if labels.ndim != 1 or labels.dtype.kind != self.values.dtype.kind:
            raise UserError(
                f"{where}: is {labels.dtype} of the shape {labels.shape}; the training labels are another kind"
            )
        found = np.minimum(np.searchsorted(self.values, labels), len(self.values) - 1)
        wrong = np.flatnonzero(self.values[found] != labels)
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"{where}: row {row} has the label {str(labels[row])[:60]!r}, which is none of the {len(self.names)} "
                "classes"
            )
        return found.astype(np.int32)


def classes_of(train: Arrays, config: DataConfig) -> Classes:
    """The classes of a dataset: those that `class_names` in the training split's file names, or its distinct labels.

    Args:
        train: of the training split.
        config: may have `num_classes`, if labels are numbers.

    Raises:
        UserError: the labels are no labels, or do not fit to the names; or there are fewer than 2 classes.
    """
    labels, where = read_labels(train), f"{train.file}, {train.labels}"
    given = _given(train)
    if labels.ndim == 2:
        if (labels.sum(1) == 1).all():
            raise UserError(f"{where}: has exactly one class in each row; give the numbers of the classes: y.argmax(1)")
        names = given or tuple(map(str, range(labels.shape[1])))
        if len(names) != labels.shape[1]:
            raise UserError(f"{train.file}, {NAMES}: has {len(names)} names, {train.labels} {labels.shape[1]} columns")
        return Classes(names, None)
    if labels.dtype.kind == "U":
        values = np.unique(labels)
        if given and given != tuple(values.tolist()):
            raise UserError(f"{train.file}, {NAMES}: must have the names in {train.labels}, sorted, or be left out")
        return _checked(Classes(tuple(values.tolist()), values), where)
    count = len(given) if given else config.num_classes
    values = np.unique(labels) if count is None else np.arange(count)
    return _checked(Classes(given or tuple(map(str, values.tolist())), values), where)


def _checked(classes: Classes, where: str) -> Classes:
    if len(classes.names) < 2:
        raise UserError(f"{where}: has {len(classes.names)} class; at least 2 are needed")
    return classes


def _given(train: Arrays) -> tuple[str, ...]:
    if NAMES not in names_in(train.file):
        return ()
    names = _read(train.file, NAMES)
    if names.ndim != 1 or names.dtype.kind != "U" or len({*names.tolist()}) < len(names):
        raise UserError(f"{train.file}, {NAMES}: must be a list of names, each of which is there once")
    return tuple(names.tolist())


def read_labels(arrays: Arrays) -> np.ndarray:
    """The labels of a split as they are: int64 or text `(N,)`, or integers `(N, classes)`; `(N, 1)` becomes `(N,)`.

    Raises:
        UserError: they are no whole numbers or text, or there are more or fewer than images.
    """
    labels, where = _read(arrays.file, arrays.labels), f"{arrays.file}, {arrays.labels}"
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in ("biuU" if labels.ndim == 1 else "biu"):
        right = "must be whole numbers or text, or 0 and 1 in (N, classes)"
        if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
            of_one = labels.ndim == 2 and (labels.sum(1) == 1).all()
            right += f"; {'y.argmax(1)' if of_one else 'y.astype(int)'} gives numbers"
        raise UserError(f"{where}: is {labels.dtype}; {right}")
    images = image_shape(arrays)[0]
    if labels.ndim not in (1, 2) or len(labels) != images:
        raise UserError(f"{where}: has the shape {labels.shape}; must be a label for each of the {images} images")
    return labels if labels.dtype.kind == "U" else labels.astype(np.int64)


def _read(file: Path, name: str) -> np.ndarray:
    """An array; bytes in it become text."""
    array = read_array(file, name)
    try:
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UnicodeDecodeError:
        raise UserError(
            f"{file}, {name}: has text that is not UTF-8; numpy.char.decode(x, 'latin1') reads it"
        ) from None
