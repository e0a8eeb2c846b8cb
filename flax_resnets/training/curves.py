"""Draws a run's losses and accuracies, and its own metric."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets.figures import new_figure, png
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.best import BestBy, best_first
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.metrics import EpochMetrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flax_resnets.training.loop import Run


# The figures that are drawn, with their names in the picture; by the first of them `best_by=accuracy` judges.
_OF_IMAGES = {"accuracy": "top-1", "top5_accuracy": "top-5"}
_OF_CLASSES = {"mean_average_precision": "mAP", "f1": "F1", "accuracy": "accuracy"}


# A picture takes the best part of a second, an epoch on an accelerator a few: it waits this many times what it took.
_PAUSE = 20


class Curves(Callback):
    """Draws `curves.png` in the workdir: at an epoch's end, unless little time has passed, and when the run ends."""

    def __init__(self):
        self._waits: Run | None = None  # has rows that are not in the picture
        self._next = 0.0

    def on_run_begin(self, run: "Run") -> None:
        """A run that goes on may have been killed before its last rows were drawn, and may have no epoch left."""
        self._waits = run if run.history else None

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Draws the rows of all epochs so far, at the latest with the last one."""
        self._waits = run
        if time.monotonic() >= self._next or row.epoch == run.config.epochs:
            began = time.monotonic()
            self.close()
            self._next = time.monotonic() + _PAUSE * (time.monotonic() - began)

    def on_run_end(self, run: "Run") -> None:
        """Draws what is not in the picture yet: of a run that ends early, for the callbacks that are told next."""
        self.close()

    def close(self) -> None:
        """Draws what is not in the picture yet."""
        if self._waits is not None:
            run, self._waits = self._waits, None
            draw_curves(run.history, run.workdir / "curves.png", run.config.eval_flip, run.config.best_by)


def draw_curves(
    epochs: Sequence[EpochMetrics], path: Path, eval_flip: bool = False, best_by: BestBy = "accuracy"
) -> None:
    """Writes `curves_figure` as a PNG file."""
    write_whole(path, png(curves_figure(epochs, eval_flip, best_by)))


def curves_figure(epochs: Sequence[EpochMetrics], eval_flip: bool = False, best_by: BestBy = "accuracy") -> "Figure":
    """A figure of losses, accuracies and a metric of the recipe's own against the epoch.

    A dotted line is at the best epoch.

    Args:
        epochs: rows of the epochs, at least one.
        eval_flip: whether the accuracies are with a test-time flip; if so, the picture says it.
        best_by: which epoch is the best; the dotted line is in the picture of the figure that decides.
    """
    from matplotlib.ticker import MaxNLocator

    measured = [row.as_row() for row in epochs if row.metric is not None]
    figure = new_figure(15 if measured else 10, 4)
    losses, accuracies, *own = figure.subplots(1, 3 if measured else 2)
    numbers = [row.epoch for row in epochs]
    losses.plot(numbers, [row.train_loss for row in epochs], marker="o", label="train")
    losses.plot(numbers, [row.valid_loss for row in epochs], marker="o", label="valid")
    losses.set_ylabel("loss (nats)")
    multilabel = epochs[0].mean_average_precision is not None
    shown = dict(_OF_CLASSES if multilabel else _OF_IMAGES)
    if not multilabel and all(row.top5_accuracy == 1 for row in epochs):  # as with up to five classes
        del shown["top5_accuracy"]
    for name, label in shown.items():
        accuracies.plot(numbers, [100 * row.as_row()[name] for row in epochs], marker="o", label=label)
    what = ", ".join(shown.values()) if multilabel else "accuracy"
    accuracies.set_ylabel(f"valid {what} (%)" + ", with a test-time flip" * eval_flip)
    averaged = [row.as_row() for row in epochs if row.ema_accuracy is not None]
    if averaged:
        numbers = [row["epoch"] for row in averaged]
        losses.plot(numbers, [row["ema_valid_loss"] for row in averaged], marker="o", label="valid, EMA")
        name, label = next(iter(shown.items()))
        accuracies.plot(numbers, [100 * row[f"ema_{name}"] for row in averaged], marker="o", label=f"{label}, EMA")
    for axes in own:
        axes.set_ylabel("valid metric")
        for name, label in (("metric", "metric"), ("ema_metric", "metric, EMA")):
            there = [row for row in measured if name in row]
            if there:
                axes.plot([row["epoch"] for row in there], [row[name] for row in there], marker="o", label=label)
    best = best_first(epochs, best_by)[0].epoch
    decides = {"loss": losses, "accuracy": accuracies, "metric": (own or [accuracies])[0]}[best_by]
    decides.axvline(best, linestyle=":", color="0.4", label=f"best: epoch {best}")
    for axes in (losses, accuracies, *own):
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0].epoch - 0.5, epochs[-1].epoch + 0.5)  # so that one epoch has no ticks at 0.95 and 1.05
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend(loc="best")  # as by default, but without a warning if finding it takes a second on a busy machine
    return figure
