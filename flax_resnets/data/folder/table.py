"""Reads `images.csv`, which lists a folder's pictures and their classes."""

import csv
import os
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.data.folder.layout import Pictures, file_stats
from flax_resnets.data.folder.names import Names
from flax_resnets.data.labels import multi_hot
from flax_resnets.data.shares import choose_splits
from flax_resnets.errors import UserError

TABLE = "images.csv"


class Table(NamedTuple):
    """The pictures of a table, in the order of its rows.

    Attributes:
        pictures: the pictures of all rows. A picture of a class that training lacks has the label −1.
        class_names: the labels of the training images, in the order of code points.
        splits: the split of each row; `all` if the table has no such column.
        names: names of the two splits; the second is empty if all rows are of one split.
    """

    pictures: Pictures
    class_names: tuple[str, ...]
    splits: np.ndarray
    names: tuple[str, str]


def read_table(root: Path, config: DataConfig) -> Table:
    """Reads `images.csv`: UTF-8, with a header, and the columns `path`, `label` and perhaps `split`.

    Paths are relative to the directory of the table and stay inside it. Other columns are ignored. With
    `label_separator`, a row has any number of labels. A row that repeats an earlier one is left out.

    Raises:
        UserError: the table cannot be read, has no such columns, or a row has no path, no label or no split, or names
            a file that does not exist; or a picture has two labels, or is in both splits.
    """
    file, separator = root / TABLE, config.label_separator
    paths, splits = [], []
    labels: list[tuple[str, ...]] = []
    rows: dict[tuple[str, str | None], int] = {}  # the first row of a path in a split
    repeated = 0
    for line, path, label, split in _rows(file, config.image_key or "path", config.label_key or "label"):
        where = f"{file}, line {line}"
        if not path or (not label and separator is None) or split == "":
            empty = "path" if not path else "label" if not label and separator is None else "split"
            several = ", unless label_separator says that it may have any number" if empty == "label" else ""
            raise UserError(f"{where}: has no {empty}; each row must have one{several}")
        if os.path.isabs(path) or ".." in path.split("/") or "\0" in path:
            raise UserError(f"{where}: path {path[:200]!r} must be relative to {root} and stay inside it")
        of_row = (label,) if separator is None else _divided(label, separator)
        first = rows.setdefault((os.path.normpath(path), split), len(paths))
        if first < len(paths):
            if labels[first] != of_row:
                now, before = ((separator or "").join(each)[:60] for each in (of_row, labels[first]))
                raise UserError(
                    f"{where}: path {path[:200]!r} has the label {now!r}, but {before!r} before; a picture has one row"
                )
            repeated += 1
            continue
        paths.append(path)
        labels.append(of_row)
        splits.append(split)
    if not paths:
        raise UserError(f"{file}: has no rows; each must name a picture and its class")
    stats = np.array([file_stats(f"{root}/{path}") for path in paths], np.int64)
    absent = [path for path, size in zip(paths, stats[:, 0], strict=True) if size < 0]
    if absent:
        more = f" (and {len(absent) - 1} others)" if absent[1:] else ""
        raise UserError(f"{file}: names {absent[0][:200]!r}{more}, but {root} has no such file")
    names = _split_names(file, dict.fromkeys(splits), config)
    in_both = [path for path, split in rows if split == names[1] and (path, names[0]) in rows]
    if in_both:
        raise UserError(
            f"{file}: path {in_both[0][:200]!r} is in {names[0]!r} and in {names[1]!r}; the two must have no images in "
            "common"
        )
    split_of_row = np.array([names[0] if split is None else split for split in splits])
    class_names = sorted({name for row in np.flatnonzero(split_of_row == names[0]) for name in labels[row]})
    if separator is not None and all(len(each) == 1 for each in labels):
        raise UserError(
            f"label_separator={separator!r}: {file} has exactly one label in each row, such as {labels[0][0][:60]!r}; "
            "give the text that stands between labels, or leave the field out"
        )
    if len(class_names) < 2:
        there = f"one class, {class_names[0][:60]!r}" if class_names else "no class"
        raise UserError(f"{file}: has {there}; at least 2 are needed")
    numbers = {name: number for number, name in enumerate(class_names)}
    unknown = [name for row in np.flatnonzero(split_of_row == names[1]) for name in labels[row] if name not in numbers]
    if unknown:
        raise UserError(
            f"{file}: has the class {unknown[0][:60]!r} in {names[1]!r}, but not in {names[0]!r}"
            + _hint({*class_names, *unknown}, separator)
        )
    if separator is None:
        label_of_row = np.array([numbers.get(name, -1) for (name,) in labels], np.int32)
    else:  # a label of a split that is not used may be unknown
        label_of_row = multi_hot(
            [[numbers[name] for name in each if name in numbers] for each in labels], len(class_names)
        )
    hint = _hint({*class_names}, separator)
    notes = (f"{file}: {hint.removeprefix('; ')}",) if hint else ()
    if repeated:
        what = "rows repeat an earlier one, and count" if repeated > 1 else "row repeats an earlier one, and counts"
        notes += (f"{file}: {repeated:,} {what} once",)
    return Table(Pictures(root, Names(paths), stats, label_of_row, notes), tuple(class_names), split_of_row, names)


def _hint(labels: Set[str], separator: str | None) -> str:
    """What to say if some labels look like several: if parts of them are labels too, and there are fewer of these."""
    for other in (";", "|", ",", " "):
        several = sorted(label for label in labels if other in label and other != separator)
        parts = {part for label in labels for part in _divided(label, other)}
        if several and len(parts) < len(labels) and parts & labels:
            return f"; {several[0][:60]!r} looks like several labels: if so, give label_separator={other!r}"
    return ""


def _divided(cell: str, separator: str) -> tuple[str, ...]:
    """The labels in a cell, each once, in order of code points."""
    return tuple(sorted({label.strip() for label in cell.split(separator)} - {""}))


def _rows(file: Path, path: str, label: str) -> Iterator[tuple[int, str, str, str | None]]:
    """Yields line numbers and the columns; the split is None if there is no such column."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip() for name in next(reader, [])]
            for name, field in ((path, "image_key"), (label, "label_key")):
                if header.count(name) != 1:
                    there = ", ".join(map(repr, header))[:150] or "nothing"
                    raise UserError(
                        f"{file}: the first line must name the columns {path!r} and {label!r}, separated by commas, "
                        f"once each; it has {there}; {field} names another column"
                    )
            columns = [header.index(name) if name in header else None for name in (path, label, "split")]
            for row in reader:
                if not any(row):
                    continue
                if len(row) != len(header):
                    raise UserError(
                        f"{file}, line {reader.line_num}: has {len(row)} values, the header {len(header)}; a value "
                        'with a comma in it is written in "quotation marks"'
                    )
                first, second, third = (None if column is None else row[column] for column in columns)
                yield reader.line_num, first or "", (second or "").strip(), None if third is None else third.strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"{file}: is not a table of comma-separated values ({error})") from error
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from error


def _split_names(file: Path, there: dict[str | None, None], config: DataConfig) -> tuple[str, str]:
    """Names of the two splits among those in the table; the second is empty if it is a share of the first."""
    if None in there:  # the table has no such column
        for field in ("train_split", "validation_split"):
            if (name := getattr(config, field)) is not None:
                raise UserError(f"{field}={name!r}: {file} has no column 'split'; leave it out, or add the column")
        return "all", ""
    return choose_splits([name for name in there if name is not None], config, str(file))
