"""The rows that accelerator.py writes: lines of JSON. Each is completely on the disk before the next task begins."""

import argparse
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from flax_resnets.errors import UserError

Row = dict[str, Any]


class RowFile:
    """A file of rows, to which complete lines are added.

    A line is written at once, and is on the disk when `add` returns. If a power cut left an incomplete line at the end,
    it is removed when the file is opened.

    Args:
        path: path of the file. The file and its directory are made if they do not exist.

    Raises:
        UserError: the file cannot be written, or holds something other than rows.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            whole = path.read_bytes().rpartition(b"\n")
            read_rows(path, cut_short=True)
            os.ftruncate(self._file, len(whole[0] + whole[1]))
        except OSError as error:
            raise UserError(f"--output={path.parent}: {error.strerror}; name a directory that can be written") from None

    def add(self, row: Row) -> None:
        """Appends a row.

        Raises:
            UserError: the row could not be written; the earlier rows are complete.
        """
        line = (json.dumps(_finite(row)) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, line)
            if written < len(line):
                os.ftruncate(self._file, before)
                raise OSError(0, "the disk is full")
            os.fsync(self._file)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; earlier rows are complete") from None

    def close(self) -> None:
        """Closes the file."""
        os.close(self._file)


class Parser(argparse.ArgumentParser):
    """A command line parser whose errors are raised as UserError, so that they are reported in one line."""

    def error(self, message: str) -> NoReturn:
        """See `argparse`."""
        raise UserError(message.removeprefix("argument "))


def _finite(value: Any) -> Any:
    """Replaces numbers that JSON cannot express (NaN and infinities) by null."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: Path, cut_short: bool = False) -> list[Row]:
    """Reads the rows of a file.

    Args:
        path: path of the file.
        cut_short: whether the last line may be incomplete; it is then left out.

    Raises:
        UserError: there is no such file, or a line is not a row.
    """
    try:
        lines = path.read_text().split("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"{path}: {reason}") from None
    last = lines.pop()
    if last and not cut_short:
        lines.append(last)
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append({**row, "part": row["part"], "task": row["task"]})
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path}: line {number} is no row of accelerator.py's: {line[:80]!r}") from None
    return rows


def read_all(directory: Path) -> list[Row]:
    """The rows of all `*.jsonl` in a directory that were measured at full size, in the order of the files."""
    return [row for path in sorted(directory.glob("*.jsonl")) for row in read_rows(path) if not row.get("small")]


def latest(rows: Iterable[Row], part: str, *names: str) -> dict[tuple[Any, ...], Row]:
    """The latest rows of a part, by device, task, and the values of further fields.

    Args:
        rows: the rows, as `read_all` returns them.
        part: name of the part.
        names: the further fields, which distinguish the rows of a task.
    """
    found = {}
    for row in rows:
        if row["part"] == part:
            found[row.get("device"), row["task"], *(row.get(name) for name in names)] = row
    return found
