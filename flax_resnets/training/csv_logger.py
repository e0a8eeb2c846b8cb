"""Writes a run's rows as a CSV file, for spreadsheets and pandas."""

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.metrics import EpochMetrics, columns
from flax_resnets.training.processes import is_first

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run


class CSVLogger(Callback):
    """Writes the row of each epoch into a CSV file, under a header with the names of `metrics.jsonl`.

    At the end of each epoch the whole file is written, from the rows of the run. So a run that resumes goes on with its
    file, and a reader never sees half a row.

    Args:
        path: of the file; one that is not absolute lies in the run's workdir.

    Raises:
        UserError: there is a file that is no such file of this run, and would be overwritten.

    Example:
        >>> from flax_resnets.training import load_config, run
        >>> run(load_config("quickstart"), "runs/quickstart", [CSVLogger()])  # doctest: +SKIP
    """

    def __init__(self, path: str | os.PathLike[str] = "history.csv"):
        self._path = expanded(path, "path")
        self._file: Path | None = None  # None in all processes but the first

    def on_run_begin(self, run: "Run") -> None:
        """Checks that no other file is overwritten."""
        if not is_first():
            return
        path = self._path if self._path.is_absolute() else run.workdir / self._path
        before = storage.read(path)
        if before and not _is_of(run, before.decode(errors="replace"), inside=path.parent == run.workdir):
            raise UserError(
                f"{path}: is no CSV file of this run, and would be overwritten; give CSVLogger another path"
            )
        self._file = path

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Writes the file."""
        if self._file is not None:
            write_whole(self._file, _content(run).encode())


def _content(run: "Run") -> str:
    table, text = columns(run.history), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return text.getvalue()


def _is_of(run: "Run", before: str, inside: bool) -> bool:
    """Whether a file is of this run. It may also have rows of epochs that the run is about to repeat."""
    theirs, ours = (
        # Further columns may have been added by an amendment.
        [line.split(",")[:4] for line in text.splitlines()]
        for text in (before, _content(run))
    )
    if not run.history:  # killed before its first checkpoint, a run has no rows to compare
        return inside and theirs[0] == ["epoch", "step", "train_loss", "valid_loss"]
    return all(one == other for one, other in zip(theirs, ours, strict=False))
