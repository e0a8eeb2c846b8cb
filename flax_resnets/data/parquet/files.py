"""Finds the parquet files of each split by their names."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from flax_resnets.data.config import DataConfig
from flax_resnets.data.found import other_kind
from flax_resnets.data.shares import VALIDATION, choose_splits
from flax_resnets.errors import UserError

EXPECTED: str = (
    "a directory with files such as train-00000-of-00002.parquet and test-00000-of-00001.parquet, perhaps in data/, as "
    "Hugging Face's datasets have them"
)
_DEPTH = 4  # directories that are looked through, one inside the other
_STEM = re.compile(r"(?P<split>.+?)(?:[-_.](?P<number>\d+)(?:[-_]of[-_](?P<count>\d+)(?:-[0-9a-f]{8,})?)?)?")


class Shards(NamedTuple):
    """The files of a dataset's two splits.

    Attributes:
        root: the directory that the files are relative to.
        train: the training split's files.
        validation: the validation split's files; none if it is a share of the training split.
        names: names of the two splits; the second is empty if it is a share.
        version: version of the dataset; empty if it has none.
    """

    root: Path
    train: tuple[str, ...]
    validation: tuple[str, ...]
    names: tuple[str, str]
    version: str = ""

    def paths(self, files: tuple[str, ...]) -> list[Path]:
        """The paths of some of the files."""
        return [self.root / file for file in files]


def shards_in(root: Path, config: DataConfig) -> Shards:
    """The files of the two splits in a directory and in the directories below it.

    Raises:
        UserError: there are no such files; they are of several datasets; or files are missing.
    """
    names: list[str] = []
    for parent, directories, files in os.walk(root, followlinks=True):
        inside = os.path.relpath(parent, root)
        depth = 0 if inside == "." else inside.count(os.sep) + 1
        directories[:] = sorted(each for each in directories if each[0] != "." and depth < _DEPTH)
        names += [os.path.normpath(os.path.join(inside, each)) for each in files if each[0] != "."]
    return shards_of(names, root, config, f"data_dir={str(root)!r}", lambda subset: f"data_dir={root / subset}")


def shards_of(
    names: Iterable[str], root: Path, config: DataConfig, where: str, subset_is: Callable[[str], str]
) -> Shards:
    """The files of the two splits among these names.

    Args:
        names: names of files relative to `root`, with `/`. Those that do not end in `.parquet` do not matter.
        root: the directory.
        config: may name the splits.
        where: what has the files, for messages.
        subset_is: says how a dataset among several in the same directory is named.

    Raises:
        UserError: see `shards_in`.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        if name.endswith(".parquet"):
            subset, split = _subset_and_split(name)
            found.setdefault(subset, {}).setdefault(split, []).append(name)
    if not found:
        raise UserError(f"{where}: has no parquet files; {other_kind(root, 'parquet') or f'expected is {EXPECTED}'}")
    if len(found) > 1:
        some = ", ".join(map(repr, sorted(found)[:5])) + (", ..." if len(found) > 5 else "")
        raise UserError(
            f"{where}: has parquet files of several datasets ({some}); {subset_is(sorted(found)[-1])} names one"
        )
    (splits,) = found.values()
    train, validation = choose_splits(splits, config, where)
    return Shards(
        root,
        _complete(splits[train], where),
        _complete(splits[validation], where) if validation else (),
        (train, validation),
    )


def _subset_and_split(name: str) -> tuple[str, str]:
    *directories, file = name.split("/")
    stem = file.removesuffix(".parquet")
    if directories and (stem.isdigit() or directories[-1] in ("train", *VALIDATION)):
        split = directories.pop()
    else:
        match = _STEM.fullmatch(stem)
        split = match["split"] if match else stem
    return "/".join(each for each in directories if each != "data"), split


def _complete(names: list[str], where: str) -> tuple[str, ...]:
    """The files of a split in the order of their numbers; raises UserError if one is missing."""
    numbered = []
    for name in names:
        match = _STEM.fullmatch(name.rpartition("/")[2].removesuffix(".parquet"))
        number, count = (match["number"], match["count"]) if match else (None, None)
        numbered.append((int(number or 0), name, count and int(count)))
    numbered.sort()
    counts = {count for _, _, count in numbered} - {None}
    if counts and (len(counts) > 1 or [number for number, *_ in numbered] != list(range(*counts))):
        there = ", ".join(name for _, name, _ in numbered[:4])[:200]
        raise UserError(
            f"{where}: of the {max(counts)} files of a split some are missing or there twice; there is {there}"
        )
    return tuple(name for _, name, _ in numbered)
