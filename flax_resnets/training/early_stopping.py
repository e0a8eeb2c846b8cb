"""Ends a run that has stopped getting better."""

from typing import TYPE_CHECKING

from flax_resnets.errors import UserError
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.metrics import EpochMetrics

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run


class EarlyStopping(Callback):
    """Ends the run after `patience` epochs without a better score. The field `patience` of a configuration adds it.

    The score is the one that `best_by` names: accuracy (if an image may have any number of classes, mean average
    precision), loss or the recipe's own metric, of the weights themselves. That of their average (EMA) does not count,
    and an equal score is not a better one. After an amendment the count begins anew. The count is taken from the rows
    of the run, so a run that resumes ends at the same epoch.

    Args:
        patience: number of epochs.

    Raises:
        UserError: it is no number of epochs.

    Example:
        >>> from flax_resnets.training import load_config, run
        >>> run(load_config("quickstart"), "runs/quickstart", [EarlyStopping(3)])  # doctest: +SKIP
    """

    def __init__(self, patience: int):
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise UserError(f"patience={str(patience)[:100]}: must be a whole number of epochs, at least 1")
        self._patience = patience

    def on_run_begin(self, run: "Run") -> None:
        """Ends the run if it was killed between the row that decides this and its end."""
        if run.history and run.history[-1].step == int(run.state.step):
            self._judge(run)

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Ends the run if the epochs without a better score are that many."""
        self._judge(run)

    def _judge(self, run: "Run") -> None:
        assert run.best is not None, "there is a row"
        amended = run.trainer.timeline.epoch
        if run.history[-1].epoch - max(run.best.epoch, amended) >= self._patience:
            run.end_early("patience")
