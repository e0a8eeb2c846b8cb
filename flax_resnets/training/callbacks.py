"""What watches a run: the seam on which the terminal, TensorBoard and the curves hang, and what a program adds."""

from typing import TYPE_CHECKING

from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.step import StepOutput

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run


class Callback:
    """Sees a run go on. A subclass overrides what it needs; each method does nothing here.

    The calls come in the order in which they are written here. A callback reads the run and changes nothing of it; it
    may ask for a stop by `run.stop.ask()`. Of several processes, each calls the callbacks that it was given.

    Example:
        >>> class Printer(Callback):
        ...     def on_epoch_end(self, run, row):
        ...         print(f"epoch {row.epoch} of {run.config.epochs}: {row.accuracy:.2%}")
    """

    def on_run_begin(self, run: "Run") -> None:
        """The run goes on from `run.state.step`; `run.history` has the rows of the epochs before."""

    def on_epoch_begin(self, run: "Run", epoch: int) -> None:
        """An epoch begins, or goes on after a stop; counted from 1."""

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """A training step's figures are computed. `step` counts the steps taken; the next ones have begun already."""

    def on_evaluation_begin(self, run: "Run", batches: int) -> None:
        """The validation images are evaluated, in so many batches; with an average of the weights, twice."""

    def on_evaluation_step(self, run: "Run", done: int) -> None:
        """So many of the batches are given to the devices."""

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """An epoch is evaluated and its row is in `metrics.jsonl`; its checkpoint is saved next."""

    def on_run_end(self, run: "Run") -> None:
        """The last epoch's checkpoint is saved, and the run is done."""

    def close(self) -> None:
        """The run ends, whatever ended it: a stop, an error or its last epoch."""
