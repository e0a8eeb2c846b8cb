"""The callback that shows a run in the terminal."""

import contextlib
from typing import TYPE_CHECKING

from flax_resnets.training.callbacks import Callback
from flax_resnets.training.display import Bar, Display
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.step import StepOutput

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run


class Terminal(Callback):
    """Shows a table with a row for each epoch, and a bar for the current epoch or evaluation.

    Args:
        display: prints them.
    """

    def __init__(self, display: Display):
        self._display = display
        self._bar = Bar()
        self._shown = contextlib.ExitStack()  # closing it removes the bar

    def on_run_begin(self, run: "Run") -> None:
        """Shows the table with the rows of earlier epochs."""
        if run.config.eval_flip:
            self._display.say("accuracies are with a test-time flip (eval_flip)")
        multilabel = run.trainer.valid.multilabel
        figures = ["mean_average_precision", "f1"] if multilabel else ["top5_accuracy"] * (run.trainer.num_classes > 5)
        averaged = "ema_mean_average_precision" if multilabel else "ema_accuracy"
        self._display.header(
            [*figures, *["metric"] * (run.config.metric is not None)],
            ema=averaged if run.config.ema_decay is not None else None,
        )
        for row in run.history:
            self._display.row(row)

    def on_epoch_begin(self, run: "Run", epoch: int) -> None:
        """Shows a bar for the epoch's steps."""
        label = f"epoch {epoch}/{run.config.epochs}"
        self._show(label, run.trainer.steps_per_epoch, "images/s", run.config.batch_size)

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """Moves the bar."""
        self._bar.to(run.trainer.timeline.place(step - 1)[1] + 1, lambda: float(output.loss))

    def on_evaluation_begin(self, run: "Run", batches: int) -> None:
        """Shows a bar for the batches."""
        self._show("evaluating", batches)

    def on_evaluation_step(self, run: "Run", done: int) -> None:
        """Moves the bar."""
        self._bar.to(done)

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Adds the epoch's row to the table."""
        self.close()
        self._display.row(row)

    def close(self) -> None:
        """Removes the bar."""
        self._shown.close()
        self._bar = Bar()

    def _show(self, label: str, total: int, unit: str = "", unit_per_step: float = 1) -> None:
        self.close()
        self._bar = self._shown.enter_context(self._display.bar(label, total, unit, unit_per_step))
