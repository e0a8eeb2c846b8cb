"""Finds the splits, the classes and the images of a directory of pictures."""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.data.file_names import is_hidden, is_picture
from flax_resnets.data.folder.names import Names
from flax_resnets.data.found import other_kind
from flax_resnets.data.shares import VALIDATION, choose_splits
from flax_resnets.errors import UserError

EXPECTED: str = (
    "a directory with train/ and one of val/, valid/, validation/ and test/, in each a directory for each class; or "
    "with the classes' directories alone; or with a list of the images, images.csv"
)
_SPLITS = frozenset(("train", "training", "dev", "eval", "testing", *VALIDATION))


class Pictures(NamedTuple):
    """Files of labelled pictures.

    Attributes:
        root: the directory that the names are relative to.
        names: the files, with `/` between directories.
        stats: int64 `(N, 3)`: size in bytes, and the times of the last change of the content and of the file, in
            nanoseconds. The size is −1 if there is no such file, or it is not a regular one.
        labels: int32 `(N,)` or int8 `(N, classes)`.
        notes: what a person should know about the files.
    """

    root: Path
    names: Names
    stats: np.ndarray
    labels: np.ndarray
    notes: tuple[str, ...] = ()


class Layout(NamedTuple):
    """Where a folder's two splits are.

    Attributes:
        train: directory of the training images.
        validation: directory of the validation images; None if they are a share of the training images.
        names: names of the two splits; the second is empty if `validation` is None.
        class_names: the training split's directories, in the order of code points.
    """

    train: Path
    validation: Path | None
    names: tuple[str, str]
    class_names: tuple[str, ...]


def find_layout(root: Path, config: DataConfig) -> Layout:
    """Finds the splits and classes. Only directories are listed; no image is looked at.

    Raises:
        UserError: this is not a folder of pictures; the message says what is expected.
    """
    for field in ("image_key", "label_key", "label_separator"):
        if (key := getattr(config, field)) is not None:
            raise UserError(f"{field}={key!r}: directories have no columns, only images.csv has; leave it out")
    directories = _visible_directories(root)
    if config.train_split is None and config.validation_split is None:
        others = [name for name in directories if name not in ("train", *VALIDATION)]
        has_validation = len(others) + 1 < len(directories)
        has_classes = "train" in directories and bool(_visible_directories(root / "train"))
        if "train" not in directories or not (has_classes or has_validation):
            _check_no_splits(root, directories)
            _check_classes(root, directories)
            return Layout(root, None, ("all", ""), tuple(directories))
        if has_classes and others and not has_validation:
            raise UserError(
                f"data_dir: {root} has train/ with directories in it, and beside it {_listed(others)}; "
                "train_split=train says that train/ holds the classes"
            )
    names = choose_splits(directories, config, str(root))
    train, validation = root / names[0], root / names[1] if names[1] else None
    class_names = _visible_directories(train)
    _check_classes(train, class_names)
    return Layout(train, validation, names, tuple(class_names))


def _check_no_splits(root: Path, directories: Sequence[str]) -> None:
    """Raises UserError if one of these directories is a split under another name, or holds a dataset of its own."""
    for name in directories:
        if name.lower() in _SPLITS and _visible_directories(root / name):
            raise UserError(
                f"data_dir: {root} has {name!r}, which looks like a split, but no 'train'; train_split and "
                f"validation_split name the splits' directories; expected is {EXPECTED}"
            )
        inside = root / name
        if os.path.isdir(inside / "train") and any(os.path.isdir(inside / split) for split in VALIDATION):
            raise UserError(f"data_dir: {inside} holds train/; perhaps you mean data_dir={inside}")


def _check_classes(directory: Path, classes: Sequence[str]) -> None:
    """Raises UserError unless these are at least two directories that may be classes."""
    if not classes:
        has_pictures = any(is_picture(entry.name) for entry in _entries(directory))
        inside = "pictures, but no directories" if has_pictures else "no directories with pictures"
        raise UserError(f"data_dir: {directory} has {inside}; {_right(directory)}")
    if len(classes) == 1:
        raise UserError(
            f"data_dir: {directory} has one class, {classes[0]!r}, and at least 2 are needed; {_right(directory)}"
        )


def _right(directory: Path) -> str:
    return other_kind(directory, "folder") or f"expected is {EXPECTED}"


def _entries(directory: Path | str) -> Iterator[os.DirEntry[str]]:
    """The entries of a directory, without hidden ones."""
    try:
        with os.scandir(directory) as entries:
            yield from (entry for entry in entries if not is_hidden(entry.name))
    except OSError as error:
        raise UserError(f"{directory}: {error.strerror}; expected is {EXPECTED}") from error


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Whether this is a directory or a link to one. A link to itself, for which Python raises an error, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _visible_directories(directory: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(directory) if _is_directory(entry))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:5]) + (", ..." if names[5:] else "")


def pictures(directory: Path, class_names: Sequence[str], is_train: bool) -> Pictures:
    """All pictures of a split. Each is in the directory of its class, or in a directory below it.

    They are ordered by class, and within a class by name, with `/` between directories, in the order of code points.
    Links to files and directories are followed, but no directory is read twice for the same class, so that a link that
    leads back does no harm.

    Args:
        directory: directory of the split.
        class_names: the training split's classes.
        is_train: whether every class must have pictures. In validation a class may lack them, and a note says so.

    Raises:
        UserError: a directory cannot be read; a class has no pictures; or there is a class that training does not have.
    """
    here = {*_visible_directories(directory)}
    if unknown := sorted(here - {*class_names}):
        raise UserError(
            f"data_dir: {directory} has the class {_listed(unknown)}, which the training images do not have; both "
            "splits must have directories of the same names"
        )
    passed_over: Counter[str] = Counter()
    names: list[str] = []
    stats, counts, empty = [], [], []
    for class_name in class_names:
        found = _below(directory, class_name, passed_over) if class_name in here else []
        if not found:
            empty.append(class_name)
        found.sort()
        names += [name for name, *_ in found]
        stats.append(np.array([numbers for _, numbers in found], np.int64).reshape(-1, 3))
        counts.append(len(found))
    if empty and (is_train or not names):
        raise UserError(
            f"data_dir: {directory} has no pictures of the class {_listed(empty)}; a picture's name ends in .jpg, "
            f".png or the like; delete an empty directory, or put pictures into it"
        )
    notes = []
    if empty:
        notes.append(f"{directory}: no pictures of the class {_listed(empty)}, which training has")
    if passed_over:
        endings = _listed([ending for ending, _ in passed_over.most_common()])
        notes.append(
            f"{directory}: files left out, whose endings are no picture's ({endings}): {passed_over.total():,}"
        )
    if beside := sum(is_picture(entry.name) and not _is_directory(entry) for entry in _entries(directory)):
        notes.append(f"{directory}: pictures left out, which are in no class's directory: {beside:,}")
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), counts)
    return Pictures(directory, Names(names), np.concatenate(stats), labels, tuple(notes))


def _below(root: Path, class_name: str, passed_over: Counter[str]) -> list[tuple[str, tuple[int, int, int]]]:
    """Names and `stats` of the pictures in and below a class's directory. Counts other files by their endings."""
    found: list[tuple[str, tuple[int, int, int]]] = []
    # The split's directory counts as read, or a link to it would make every picture one of this class.
    seen = {_identity(root)}
    waiting = [class_name]
    while waiting:
        inside = waiting.pop()
        directory = f"{root}/{inside}"
        if (identity := _identity(directory)) in seen:
            continue
        seen.add(identity)
        below = []
        for entry in _entries(directory):
            name = entry.name
            if _is_directory(entry):
                below.append(f"{inside}/{name}")
            elif is_picture(name):
                found.append((f"{inside}/{name}", file_stats(entry)))
            else:
                passed_over[os.path.splitext(name)[1].lower()[:20]] += 1
        waiting += sorted(below, reverse=True)
    return found


def _identity(directory: Path | str) -> tuple[int, int]:
    try:
        numbers = os.stat(directory)
    except OSError as error:
        raise UserError(f"{directory}: {error.strerror}; expected is {EXPECTED}") from error
    return numbers.st_dev, numbers.st_ino


def file_stats(file: os.DirEntry[str] | str) -> tuple[int, int, int]:
    """The row of `Pictures.stats` of a file. A link that leads nowhere is reported when the picture is read."""
    try:
        numbers = os.stat(file) if isinstance(file, str) else file.stat()
    except OSError:
        return -1, 0, 0
    if not stat.S_ISREG(numbers.st_mode):
        return -1, 0, 0
    return numbers.st_size, numbers.st_mtime_ns, numbers.st_ctime_ns
