"""The run from beginning to end: open, resume, train, evaluate, save, and stop where it was asked to."""

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from flax_resnets.data.batches import Batch
from flax_resnets.data.identity import Identity
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.training.average import Average
from flax_resnets.training.build import check_devices
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.config import Config
from flax_resnets.training.curves import Curves
from flax_resnets.training.devices import devices_in_words, idle_accelerator, start_jax
from flax_resnets.training.display import Display
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.interruption import Interruption, Stopped, interruption
from flax_resnets.training.metrics import EpochMetrics, MetricsLog
from flax_resnets.training.network import make_model
from flax_resnets.training.out_of_memory import out_of_memory
from flax_resnets.training.placement import own_rows
from flax_resnets.training.processes import check_alike, is_first, wait_for_all
from flax_resnets.training.recalibration import recalibrate
from flax_resnets.training.run_data import open_data, record_data
from flax_resnets.training.splits import list_broken, load_images
from flax_resnets.training.state import TrainState, state_digest
from flax_resnets.training.step import Evaluation, StepOutput, evaluate
from flax_resnets.training.tensorboard import TensorBoard
from flax_resnets.training.terminal import Terminal
from flax_resnets.training.trainer import Trainer
from flax_resnets.training.workdir import check_workdir, forget, opened


class Diverged(Exception):
    """The loss or the gradient was not finite for `max_skipped_steps` steps in a row.

    Attributes:
        kept: the checkpoints from before those steps, by their step, in order; without any, nothing of the run is worth
            keeping.
    """

    def __init__(self, message: str, kept: Sequence[int] = ()):
        super().__init__(message)
        self.kept = tuple(kept)


def run(
    config: Config,
    workdir: str | os.PathLike[str],
    callbacks: Sequence[Callback] = (),
    *,
    stop: Interruption | None = None,
) -> "Run":
    """Trains to the last epoch, from wherever the workdir's last checkpoint stands.

    What can be wrong with the request is found before the workdir is made. Called in a thread other than the main one,
    it hears no signals: there, and wherever else a program wants to stop it, `stop.ask()` does.

    Args:
        config: the run, as `load_config` gives it.
        workdir: made if need be; holds `config.json`, `data.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`,
            `curves.png`, and `broken_images.txt` where images are left out.
        callbacks: what watches it, beside the terminal, TensorBoard and the curves.
        stop: what asks for a stop; None for signals alone. One of several processes takes `interruption()`'s.

    Returns:
        The run, done: its rows, its best epoch, its last state.

    Raises:
        UserError: the configuration, the data or the workdir cannot be used.
        Diverged: too many steps in a row were not finite. Where there is no checkpoint from before them, the workdir
            is left to be begun anew; what TensorBoard shows of it stays.
        Stopped: a signal, or `stop`, asked for it; everything is saved.

    Example:
        >>> from flax_resnets.training.recipes import load_config
        >>> stop = Interruption()
        >>> stop.ask("a button")  # as another thread may at any time
        >>> try:
        ...     run(load_config("quickstart"), "runs/never", stop=stop)
        ... except Stopped as stopped:
        ...     print("stopped by", stopped)
        stopped by a button
    """
    if not isinstance(config, Config):
        raise UserError(f"config={str(config)[:100]}: must be a Config, as load_config(FILE) gives it")
    if not isinstance(workdir, str | os.PathLike) or not os.fspath(workdir):
        raise UserError(f"workdir={str(workdir)[:100]}: must be the path of a directory")
    workdir = expanded(workdir, "workdir")
    start_jax()
    display = Display(silent=not is_first())
    check_workdir(config, workdir)
    check_devices(config, jax.device_count())
    make_model(config, num_classes=10)  # a misspelt name need not wait for the data
    with interruption() if stop is None else stop as stop:
        with stop.at_once():  # to download and decode can take hours
            train_source, valid_source, data = open_data(config, workdir, display.say)
            broken_list = workdir / "broken_images.txt"
            train = load_images(config, train_source, display, broken_list)
            valid = load_images(config, valid_source, display, broken_list)
        trainer = Trainer(config, train, valid, train_source.num_classes, display)
        display.say(f"{config.model}: {trainer.parameters:,} parameters, {config.precision}, on {devices_in_words()}")
        if warning := idle_accelerator():
            display.say(warning)
        display.say(data.in_words(config.image_size))
        with contextlib.ExitStack() as stack:
            if is_first():
                stack.enter_context(opened(config, workdir))
            wait_for_all("workdir opened")
            check_alike(data.to_json(), f"data_dir={config.data_dir}: must hold the same images for all processes")
            try:
                if is_first():
                    list_broken(broken_list, train, valid)
                return fit(trainer, workdir, stop, data, callbacks)
            except Diverged as error:
                if is_first() and not error.kept:
                    forget(workdir)
                raise
            except OSError as error:  # the disk is full, read-only, or gone
                where, what = error.filename or workdir, error.strerror or error
                raise UserError(f"{where}: {what}; once that is put right, the same command goes on") from error


def fit(
    trainer: Trainer,
    workdir: Path,
    stop: Interruption | None = None,
    data: Identity | None = None,
    callbacks: Sequence[Callback] = (),
) -> "Run":
    """Runs what is left of the epochs, from wherever the workdir's last checkpoint stands.

    Args:
        trainer: what the run is made of.
        workdir: of the run; it exists.
        stop: what stops it; None for signals.
        data: what the images are, to be kept in `data.json`; None to keep nothing.
        callbacks: see `run`.

    Raises:
        UserError, Diverged, Stopped: see `run`.
    """
    if stop is None:
        with interruption() as stop:
            return fit(trainer, workdir, stop, data, callbacks)
    run = Run(trainer, workdir, stop, callbacks)
    run.go_on(data)
    return run


class Run:
    """A run from where its workdir stands to its end.

    Args:
        trainer: what it is made of.
        workdir: where it lives.
        stop: asks it to stop.
        callbacks: see `run`.

    Attributes:
        trainer, workdir, stop: as above.
        config: the trainer's.
        state: what the run carries from step to step. Weights and statistics are `state.params` and
            `state.batch_stats`.
    """

    state: TrainState

    def __init__(self, trainer: Trainer, workdir: Path, stop: Interruption, callbacks: Sequence[Callback] = ()):
        self.trainer = trainer
        self.config = trainer.config
        self.workdir = workdir
        self.stop = stop
        own = (Terminal(trainer.display), TensorBoard(), Curves()) if is_first() else ()
        self._callbacks = (*own, *callbacks)
        self._log = MetricsLog(workdir, trainer.steps_per_epoch, is_first(), self.config.eval_flip)
        self._checkpoints = Checkpoints(
            workdir / "checkpoints", best_step=lambda: self.best.step if self.best else None
        )

    @property
    def history(self) -> list[EpochMetrics]:
        """The epochs' rows so far."""
        return self._log.epochs

    @property
    def best(self) -> EpochMetrics | None:
        """The row with the highest accuracy, the first of equals; None before the first."""
        return self._log.best

    @property
    def digest(self) -> str | None:
        """The `state_digest` of the closing row; None before the run is done."""
        return self._log.done["state_digest"] if self._log.done else None

    def go_on(self, data: Identity | None = None) -> None:
        """Takes the steps that are left; see `fit`."""
        say, total = self.trainer.display.say, self.trainer.total_steps
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(self._checkpoints))
            for callback in self._callbacks:
                stack.callback(callback.close)
            self.state, is_new = self._first_state()
            step = int(self.state.step)
            if self._log.done is not None and step == total:
                flip = ", with a test-time flip (eval_flip)" if self.config.eval_flip else ""
                say(f"{self.workdir}: already done, best accuracy {self._log.done['best_accuracy']:.4f}{flip}")
                return
            if not is_new:
                say(f"{self.workdir}: going on from step {step} of {total}")
            if step > total:
                raise UserError(
                    f"workdir={self.workdir}: its checkpoint is of step {step}, the run has {total}; "
                    "is data_dir the one it was trained on?"
                )
            wait_for_all("metrics read")  # by all, before the first writes
            if data is not None and is_first():
                record_data(data, self.workdir, step, say)
            self._log.start(step)
            # An epoch that has just ended may have no row yet. Each of those before it had one.
            past = range(1, (step - 1) // self.trainer.steps_per_epoch + 1)
            if missing := sorted(set(past) - {row.epoch for row in self.history}):
                which = ", ".join(map(str, missing))
                say(f"{self.workdir}: metrics.jsonl has lost the rows of epochs {which}; it goes on without")
            # One reader for the whole run: what reads ahead goes on with the next epoch while this one is evaluated.
            batches = stack.enter_context(contextlib.closing(self.trainer.batches(range(step, total))))
            try:
                self._tell(lambda callback: callback.on_run_begin(self))
                self._epochs(batches)
                self._tell(lambda callback: callback.on_run_end(self))
            except _NotFinite as streak:
                self._checkpoints.wait()
                kept = [saved for saved in self._checkpoints.steps() if saved <= streak.begun]
                raise _diverged(streak, kept, self.workdir) from None
            assert self.best is not None, "a run is done after its last epoch"
            saved = ", ".join(map(str, self._checkpoints.steps()))
            say(
                f"best accuracy {self.best.accuracy:.4f}, in epoch {self.best.epoch} of {self.config.epochs}; in "
                f"{self.workdir}: curves.png, metrics.jsonl, tensorboard/, checkpoints/ (steps {saved})"
            )

    def _first_state(self) -> tuple[TrainState, bool]:
        """The newest checkpoint's state; or, and True, the one before the first step."""
        say = self.trainer.display.say
        state = self._checkpoints.restore(self.trainer.steps.abstract_state, say)
        if state is not None:
            return state, False
        # A run that was killed between its first row and its first checkpoint has one row. It gets the second row only
        # once that checkpoint is whole: see `_epochs`.
        if len(self.history) > 1 or self._log.done is not None:
            raise UserError(f"workdir={self.workdir}: has metrics and no checkpoint; pick another to start over")
        if self.history:
            say(f"{self.workdir}: its first checkpoint was not finished; starting from the beginning")
        with out_of_memory(f"model={self.config.model}", "a smaller one, or a larger weight_shards, needs less"):
            return jax.block_until_ready(self.trainer.steps.create_state()), True

    def _tell(self, call: Callable[[Callback], None]) -> None:
        for callback in self._callbacks:
            call(callback)

    def _epochs(self, batches: Iterator[Batch[jax.Array]]) -> None:
        """Trains, evaluates and saves epoch by epoch, to the end of the run."""
        seconds, images = 0.0, 0
        while not self.stop:
            step = int(self.state.step)
            epoch, position = divmod(step, self.trainer.steps_per_epoch)
            if position == 0 and epoch > self._log.last_epoch:
                row = self._evaluated(epoch, seconds, images)
                if row is None:
                    break  # a stop was asked for before every image was seen
                self._checkpoints.wait()  # for the one before
                self._log.add_epoch(row)
                self._tell(lambda callback, row=row: callback.on_epoch_end(self, row))
                self._checkpoints.save(self.state)
            if step == self.trainer.total_steps:
                self._checkpoints.wait()
                self._log.finish(state_digest(self.state))
                return
            if position == 0:
                state = self.state
                self.state = state.replace(loss_sum=state.loss_sum * 0, loss_count=state.loss_count * 0)
            self._tell(lambda callback, epoch=epoch: callback.on_epoch_begin(self, epoch + 1))
            started = time.perf_counter()
            with out_of_memory(
                f"batch_size={self.config.batch_size}", "a smaller one, or a larger accumulate, needs less"
            ):
                self._train_epoch(batches, epoch + 1)
            seconds = time.perf_counter() - started
            images = (int(self.state.step) - step) * self.config.batch_size
        self.trainer.display.say("saving before the stop")
        self._checkpoints.save(self.state)
        self._checkpoints.wait()
        raise Stopped(self.stop.signal)

    def _evaluated(self, epoch: int, seconds: float, images: int) -> EpochMetrics | None:
        """An epoch's row; None if a stop was asked for while it was evaluated."""
        state = self.state
        try:
            result = self._evaluate(state)
            ema = self._evaluate(state.ema) if state.ema else None
        except UserError:
            self._save_in_need()
            raise
        if self.stop:
            return None
        return EpochMetrics(
            epoch=epoch,
            step=int(state.step),
            train_loss=float(state.loss_sum) / int(state.loss_count) if int(state.loss_count) else math.nan,
            valid_loss=result.loss,
            accuracy=result.accuracy,
            top5_accuracy=result.top5_accuracy,
            seconds=seconds,
            images_per_second=images / seconds if seconds else 0.0,
            skipped_steps=int(state.skipped),
            ema_valid_loss=ema.loss if ema else None,
            ema_accuracy=ema.accuracy if ema else None,
            ema_top5_accuracy=ema.top5_accuracy if ema else None,
        )

    def _train_epoch(self, batches: Iterator[Batch[jax.Array]], epoch: int) -> None:
        """Steps to the epoch's end, or to where a stop is asked for."""
        end = epoch * self.trainer.steps_per_epoch
        for step, output in each_computed(self._steps(batches, epoch, end)):
            skipped = int(output.skipped_in_a_row)
            if skipped >= self.config.max_skipped_steps:
                raise _NotFinite(step - skipped, skipped)
            self._tell(lambda callback, step=step, output=output: callback.on_step_end(self, step, output))
        if self.state.ema and self.config.ema_batch_norm == "recalibrate" and int(self.state.step) == end:
            # Before any stop, so that what is saved at an epoch's end is what will be evaluated.
            self._recalibrate(epoch, end)

    def _steps(self, batches: Iterator[Batch[jax.Array]], epoch: int, end: int) -> Iterator[tuple[int, StepOutput]]:
        """Starts an epoch's steps one after the other: how many are taken with each, and its figures."""
        train_step = self.trainer.steps.train_step_at(self.config.size_in_epoch(epoch - 1))
        for taken in range(int(self.state.step) + 1, end + 1):
            try:
                batch = next(batches)
            except UserError:
                self._save_in_need()
                raise
            self.state, output = train_step(self.state, batch)
            yield taken, output
            if self.config.save_every and taken % self.config.save_every == 0 and taken < end:
                self._checkpoints.save(self.state)
            if self.stop:
                return

    def _recalibrate(self, epoch: int, end: int) -> None:
        """Takes the averaged weights' statistics anew over the epoch's last batches."""
        statistics_step = self.trainer.steps.statistics_step_at(self.config.size_in_epoch(epoch - 1))
        steps = range(max(end - self.config.recalibrate_steps, end - self.trainer.steps_per_epoch), end)
        with contextlib.closing(self.trainer.batches(steps)) as again:
            statistics = recalibrate(statistics_step, self.state, zip(steps, again, strict=True))
        assert self.state.ema is not None
        self.state = self.state.replace(ema=self.state.ema.replace(batch_stats=statistics))

    def _evaluate(self, weights: TrainState | Average) -> Evaluation:
        trainer = self.trainer
        # The last batch is filled up to the next multiple of the devices at most: a batch may be named that is larger
        # than any memory.
        most = -(-len(trainer.valid) // trainer.mesh.size) * trainer.mesh.size
        size = min(self.config.eval_batch_size or self.config.batch_size, most)
        self._tell(lambda callback: callback.on_evaluation_begin(self, -(-len(trainer.valid) // size)))
        with (
            out_of_memory(f"eval_batch_size={size}", "a smaller one needs less"),
            contextlib.closing(trainer.valid.eval_batches(size, own_rows(trainer.mesh, size))) as batches,
        ):
            return evaluate(trainer.steps.eval_step, weights, self._told(batches), trainer.mesh)

    def _told(self, batches: Iterable[Batch[np.ndarray]]) -> Iterator[Batch[np.ndarray]]:
        """Batches of an evaluation, until a stop is asked for."""
        for done, batch in enumerate(batches, start=1):
            yield batch
            self._tell(lambda callback, done=done: callback.on_evaluation_step(self, done))
            if self.stop:
                return

    def _save_in_need(self) -> None:
        """Saves what is trained so far when a streamed image turns out to be broken, to go on once it is whole.

        Only in a run of one process. Of several, the others know nothing of it and would not take part in the save.
        """
        if jax.process_count() == 1 and int(self.state.step):
            self._checkpoints.save(self.state)
            self._checkpoints.wait()


class _NotFinite(Exception):
    """So many steps in a row, the first of them after the step at which they had `begun`."""

    def __init__(self, begun: int, steps: int):
        super().__init__(begun, steps)
        self.begun, self.steps = begun, steps


def _diverged(streak: _NotFinite, kept: Sequence[int], workdir: Path) -> Diverged:
    end = streak.begun + streak.steps
    what = f"the loss or gradient was not finite for {streak.steps} steps in a row, up to step {end}"
    advice = "try a lower learning_rate, or clip_norm"
    if not kept:
        return Diverged(f"{what}; {advice}: nothing from before is worth keeping, the same workdir starts anew")
    base = workdir if workdir.name not in ("", "..") else workdir.resolve()
    other = next(path for n in itertools.count(2) if not (path := base.with_name(f"{base.name}-{n}")).exists())
    return Diverged(
        f"{what}; {advice}, in another workdir, such as --workdir={other}: this one keeps step {kept[-1]} from before",
        kept,
    )
