"""Callbacks: objects that a run calls as it proceeds. The terminal, TensorBoard and the curves are callbacks."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from flax_resnets.errors import UserError
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.step import StepOutput

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run


class Callback:
    """Base class of callbacks. A run calls these methods; here they do nothing, and a subclass overrides what it needs.

    The methods stand in the order in which a run calls them. A callback may read the run but must not change it. It can
    ask for the run's end after the current epoch with `run.end_early("why")`, and for a stop, after which the same
    command goes on, with `run.stop.ask()`. In a run of several processes, each process calls its own callbacks.

    An error in a callback, or `sys.exit`, stops the run: it saves its state and raises a UserError that names the
    callback, its method and the error. A callback's attributes are not saved. When a run goes on after a stop, its
    callbacks find earlier epochs in `run.history`; a callback may keep more in a file of its own in `run.workdir`.

    Attributes:
        takes_time: whether its time is what it is for, as of a trace. Otherwise a slow one is named.

    Example:
        >>> class Printer(Callback):
        ...     def on_epoch_end(self, run, row):
        ...         print(f"epoch {row.epoch} of {run.config.epochs}: {row.accuracy:.2%}")
    """

    takes_time: ClassVar[bool] = False

    def on_run_begin(self, run: "Run") -> None:
        """The run is about to train, from `run.state.step` on. `run.history` has the rows of earlier epochs."""

    def on_epoch_begin(self, run: "Run", epoch: int) -> None:
        """An epoch begins, or resumes after a stop. Epochs are counted from 1.

        A run that was stopped in an evaluation resumes with that evaluation: `on_evaluation_begin` comes first.
        """

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """A training step's figures are computed. Steps are counted from 1; the devices already compute later ones."""

    def on_evaluation_begin(self, run: "Run", batches: int) -> None:
        """An evaluation of the validation split begins. With an average of the weights there are two each epoch."""

    def on_evaluation_step(self, run: "Run", done: int) -> None:
        """The devices have been given `done` batches of the evaluation."""

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """An epoch is evaluated and its row is in `metrics.jsonl`. The epoch's checkpoint is saved next."""

    def on_run_end(self, run: "Run") -> None:
        """The run is done, after its last epoch or early: the last checkpoint is saved."""

    def close(self) -> None:
        """Called when the run has ended, by its last epoch, a stop or an error."""


def checked(callbacks: Any) -> Sequence[Callback]:
    """The argument `callbacks` of a run.

    Raises:
        UserError: it is no list or tuple of Callbacks.
    """
    if not isinstance(callbacks, list | tuple):
        raise UserError(f"callbacks={str(callbacks)[:100]}: must be a list of Callbacks; [] for none")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            is_class = isinstance(callback, type) and issubclass(callback, Callback)
            right = f"write {callback.__name__}(), which makes one" if is_class else "must be a Callback"
            raise UserError(f"callbacks: {str(callback)[:100]}: {right}")
    return callbacks
