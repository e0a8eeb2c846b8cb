"""The metrics of a run: a row for each epoch in `metrics.jsonl`."""

import dataclasses
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flax_resnets import storage
from flax_resnets.errors import UserError, printable
from flax_resnets.training.amendments import EVENT as AMENDED
from flax_resnets.training.amendments import read_amendments
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.best import BestBy, best_of
from flax_resnets.training.timeline import Timeline

ENDED_BY = "ended_by"
"""Field of the last row of a run that ended before its last epoch: what ended it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """The figures of one epoch.

    Attributes:
        epoch: counted from 1.
        step: number of steps taken at the end of the epoch.
        train_loss: mean of the training losses of the epoch's steps, with label smoothing and augmentation;
            not-a-number if every step was skipped. In `metrics.jsonl` a loss that is not finite is null.
        valid_loss: mean cross-entropy over all validation images, in nats. If an image may have any number of classes:
            binary cross-entropy, averaged over the classes.
        accuracy: share of the validation images whose class had the highest logit, 0 to 1. If an image may have any
            number of classes: share of right decisions, see `MultilabelFigures`.
        top5_accuracy: share of the validation images whose class was among the five highest logits, 0 to 1; None, and
            not in the row, if an image may have any number of classes.
        metric: mean over all validation images of the recipe's own metric; None, and not in the row, if it has none.
            In `metrics.jsonl` one that is not finite is null.
        mean_average_precision, f1: see `MultilabelFigures`; None, and not in the row, if an image has one class.
        seconds: of training in this epoch, without evaluation, since the run was last started.
        images_per_second: training images in that time.
        skipped_steps: steps of the run so far whose loss or gradient was not finite.
        ema_valid_loss, ema_accuracy, ema_top5_accuracy, ema_mean_average_precision, ema_f1, ema_metric: the same for
            the averaged weights; None, and not in the row, if the run keeps no average.
    """

    epoch: int
    step: int
    train_loss: float
    valid_loss: float
    accuracy: float
    top5_accuracy: float | None = None
    mean_average_precision: float | None = None
    f1: float | None = None
    metric: float | None = None
    seconds: float
    images_per_second: float
    skipped_steps: int
    ema_valid_loss: float | None = None
    ema_accuracy: float | None = None
    ema_top5_accuracy: float | None = None
    ema_mean_average_precision: float | None = None
    ema_f1: float | None = None
    ema_metric: float | None = None

    def as_row(self) -> dict[str, int | float]:
        """The figures that are not None, by name."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


class MetricsLog:
    """The rows of a run, kept in its workdir's `metrics.jsonl`.

    Args:
        workdir: of the run; an existing `metrics.jsonl` is read.
        timeline: of the run; used to check the step of each epoch's row.
        writes: whether this process writes files; other processes only keep the rows in memory.
        eval_flip: whether accuracies are measured with a test-time flip; the last row then says so.
        best_by: which epoch is the best, see `flax_resnets.training.best.BestConfig`.

    Attributes:
        epochs: the rows so far.
        done: the last row; None until the run is done.

    Raises:
        UserError: a line of `metrics.jsonl` is not a row of this run.
    """

    def __init__(
        self,
        workdir: Path,
        timeline: Timeline,
        writes: bool = True,
        eval_flip: bool = False,
        best_by: BestBy = "accuracy",
    ):
        self._writes = writes
        self._eval_flip = eval_flip
        self._best_by: BestBy = best_by
        self._path = workdir / "metrics.jsonl"
        self.epochs, self.done = read_rows(self._path, timeline, best_by)
        self._amendments = read_amendments(workdir)

    @property
    def last_epoch(self) -> int:
        """The number of the last recorded epoch; 0 if there is none."""
        return self.epochs[-1].epoch if self.epochs else 0

    @property
    def best(self) -> EpochMetrics | None:
        """The best epoch by `best_by`; None if there is no epoch."""
        return best_of(self.epochs, self._best_by)

    def start(self, step: int) -> None:
        """Starts recording after this number of steps. Later rows are removed, because the run repeats those steps."""
        self.epochs = [row for row in self.epochs if row.step <= step]
        self.done = None
        if self._writes:
            lines = [(row.step, _line("epoch", row.as_row())) for row in self.epochs]
            lines += [(each.step, each.line()) for each in self._amendments]
            lines.sort(key=lambda each: each[0])  # stable, so an amendment at an epoch's end follows the epoch's row
            write_whole(self._path, "".join(line for _, line in lines).encode())

    def add_epoch(self, row: EpochMetrics) -> None:
        """Records an epoch."""
        self.epochs.append(row)
        if self._writes:
            self._append(_line("epoch", row.as_row()))

    def finish(self, state_digest: str, ended_by: str | None = None) -> None:
        """Appends the last row.

        Args:
            state_digest: of the last state.
            ended_by: what ended the run before its last epoch; None if it trained all.
        """
        assert self.best is not None, "a run is done after an epoch"
        self.done = _done(self.best, self._best_by, state_digest, ended_by)
        if self._writes:
            flip = {"eval_flip": True} if self._eval_flip else {}
            self._append(_line("done", self.done | flip))

    def _append(self, line: str) -> None:
        if storage.is_bucket(self._path):  # which only takes whole files
            write_whole(self._path, (storage.read(self._path) or b"") + line.encode())
            return
        with self._path.open("a") as file:
            file.write(line)
            file.flush()
            # The row must be on the disk before the checkpoint that belongs to it.
            os.fsync(file.fileno())


def read_rows(
    path: Path, timeline: Timeline | None = None, best_by: BestBy = "accuracy"
) -> tuple[list[EpochMetrics], dict[str, Any] | None]:
    """The rows in a run's `metrics.jsonl`, also of a run that is under way or was made by an earlier version.

    Args:
        path: of the file; if there is none, there are no rows.
        timeline: of the run; used to check the step of each row. None to leave that out.
        best_by: of the run, see `flax_resnets.training.best.BestConfig`.

    Returns:
        The rows of the epochs, in order; and the last row without its event, or None if the run is not done. Earlier
        versions wrote no `best_epoch` and `best_step` into it; these are computed from the epochs' rows. It has
        `ended_by` only if the run ended before its last epoch.

    Raises:
        UserError: a line is not a row of this run.
    """
    epochs: list[EpochMetrics] = []
    done: dict[str, Any] | None = None
    try:
        text = (storage.read(path) or b"").decode()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    # A last line without a line break was cut off by a kill, or is being written. A run repeats its epoch.
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            row = json.loads(line)
            event = row.pop("event")
            if event == "epoch":
                epochs.append(_checked(row, epochs[-1].epoch if epochs else 0, timeline))
            elif event != AMENDED:
                best = best_of(epochs, best_by)
                computed = _done(best, best_by, row["state_digest"], row.get(ENDED_BY)) if best else {}
                done = {**computed, "best_accuracy": float(row["best_accuracy"]), "state_digest": row["state_digest"]}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise UserError(f"{path}:{number}: not a row of this run ({str(error)[:200]})") from None
    return epochs, done


def columns(rows: Iterable[EpochMetrics]) -> dict[str, list[int | float]]:
    """The figures of the epochs by name, a list with a value for each row. `pandas.DataFrame` takes it.

    A figure that no row has is left out. If only some rows have it, as after an amendment, the others have NaN.

    Args:
        rows: of the epochs.
    """
    each = [row.as_row() for row in rows]
    names = [item.name for item in dataclasses.fields(EpochMetrics) if any(item.name in row for row in each)]
    return {name: [row.get(name, math.nan) for row in each] for name in names}


def reopen(path: Path) -> None:
    """Removes the last row of a run that ended early, so that the run goes on; other runs stay as they are.

    Args:
        path: of the run's `metrics.jsonl`; it need not exist.

    Raises:
        UserError: see `read_rows`.
    """
    done = read_rows(path)[1]
    if done is not None and ENDED_BY in done:
        lines = (storage.read(path) or b"").decode().split("\n")[:-1]
        write_whole(path, "".join(line + "\n" for line in lines if json.loads(line)["event"] != "done").encode())


def _done(best: EpochMetrics, best_by: BestBy, state_digest: str, ended_by: str | None) -> dict[str, Any]:
    precision = best.mean_average_precision
    return {
        "best_accuracy": best.accuracy,
        **({} if precision is None else {"best_mean_average_precision": precision}),
        **({"best_valid_loss": best.valid_loss} if best_by == "loss" else {}),
        **({"best_metric": best.metric} if best_by == "metric" else {}),
        "best_epoch": best.epoch,
        "best_step": best.step,
        "state_digest": state_digest,
        **({ENDED_BY: printable(str(ended_by))[:100]} if ended_by else {}),
    }


_OPTIONAL = ("top5_accuracy", "mean_average_precision", "f1", "metric")
_MAYBE_NAN = ("train_loss", "valid_loss", "ema_valid_loss", "metric", "ema_metric")


def _checked(row: dict[str, Any], before: int, timeline: Timeline | None) -> EpochMetrics:
    """Raises ValueError or TypeError unless the row is that of an epoch of this run, later than epoch `before`."""
    row = {name: math.nan if value is None and name in _MAYBE_NAN else value for name, value in row.items()}
    metrics = EpochMetrics(**row)
    for name, value in dataclasses.asdict(metrics).items():
        if value is None and (name.startswith("ema_") or name in _OPTIONAL):
            continue
        kind = int if name in ("epoch", "step", "skipped_steps") else int | float
        if not isinstance(value, kind) or isinstance(value, bool):
            raise TypeError(f"{name} is {str(value)[:100]!r}, no number")
        float(value)  # or OverflowError
    if (metrics.top5_accuracy is None) == (metrics.mean_average_precision is None):
        raise TypeError("top5_accuracy or mean_average_precision must be there, one of the two")
    if metrics.epoch <= before:
        raise ValueError(f"epoch {metrics.epoch} where one after {before} should be")
    if timeline is not None and metrics.epoch > timeline.epoch and metrics.step != timeline.end_of(metrics.epoch):
        raise ValueError(
            f"step {metrics.step}, where epoch {metrics.epoch} ends at {timeline.end_of(metrics.epoch)}; "
            "is data_dir the one it was trained on?"
        )
    return metrics


def _line(event: str, row: dict[str, Any]) -> str:
    # JSON has no not-a-number, and other readers refuse what Python writes for it.
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in row.items()
    }
    return json.dumps({"event": event, **finite}, allow_nan=False) + "\n"
