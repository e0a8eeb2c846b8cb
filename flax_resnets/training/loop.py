"""The run from beginning to end: open, resume, train, evaluate, save, and stop where it was asked to."""

import contextlib
import itertools
import math
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from flax_resnets.data.batches import Batch, Split, steps_per_epoch
from flax_resnets.data.identity import Identity
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.training.ahead import AHEAD
from flax_resnets.training.build import build_steps, check_devices, make_model
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.config import Config
from flax_resnets.training.devices import devices_in_words, idle_accelerator, start_jax
from flax_resnets.training.display import Bar, Display
from flax_resnets.training.interruption import Interruption, Stopped, interruption
from flax_resnets.training.metrics import EpochMetrics, MetricsLog
from flax_resnets.training.out_of_memory import out_of_memory
from flax_resnets.training.placement import make_mesh, own_rows, to_devices
from flax_resnets.training.processes import check_alike, is_first, wait_for_all
from flax_resnets.training.recalibration import recalibrate
from flax_resnets.training.run_data import open_data, record_data
from flax_resnets.training.splits import load_images
from flax_resnets.training.state import Average, TrainState, state_digest
from flax_resnets.training.step import Evaluation, StepOutput, evaluate
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


def run(config: Config, workdir: str | os.PathLike[str], *, stop: Interruption | None = None) -> None:
    """Trains to the last epoch, from wherever the workdir's last checkpoint stands.

    What can be wrong with the request is found before the workdir is made. Called in a thread other than the main one,
    it hears no signals: there, and wherever else a program wants to stop it, `stop.ask()` does.

    Args:
        config: the run, as `load_config` gives it.
        workdir: made if need be; holds `config.json`, `data.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`,
            `curves.png`.
        stop: what asks for a stop; None for signals alone. One of several processes takes `interruption()`'s.

    Raises:
        UserError: the configuration, the data or the workdir cannot be used.
        Diverged: too many steps in a row were not finite. Where there is no checkpoint from before them, the workdir
            is left to be begun anew; what TensorBoard shows of it stays.
        Stopped: a signal, or `stop`, asked for it; everything is saved.

    Example:
        >>> from flax_resnets.training.config import load_config
        >>> stop = Interruption()
        >>> stop.ask("a button")  # as another thread may at any time
        >>> try:
        ...     run(load_config("configs/quickstart.py"), "runs/never", stop=stop)
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
            train = load_images(config, train_source, display)
            valid = load_images(config, valid_source, display)
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
                trainer.fit(workdir, stop, data)
            except Diverged as error:
                if is_first() and not error.kept:
                    forget(workdir)
                raise
            except OSError as error:  # the disk is full, read-only, or gone
                where, what = error.filename or workdir, error.strerror or error
                raise UserError(f"{where}: {what}; once that is put right, the same command goes on") from error


class Trainer:
    """A run's pieces put together: the data, the compiled steps, and what moves through them.

    Args:
        config: the run.
        train: training split.
        valid: validation split.
        num_classes: outputs of the network.
        display: where progress is shown.

    Attributes:
        mesh: of all devices.
        parameters: how many the network has.
        steps_per_epoch, total_steps: how long the run is.
        steps: what it computes.

    Raises:
        UserError: the network does not take such images, or there are fewer of them than a batch.
    """

    def __init__(self, config: Config, train: Split, valid: Split, num_classes: int, display: Display):
        self.config = config
        self.train = train
        self.valid = valid
        self.display = display
        self.mesh = make_mesh(config.weight_shards)
        self.steps_per_epoch = steps_per_epoch(len(train), config.batch_size)
        self.total_steps = config.epochs * self.steps_per_epoch
        if self.total_steps >= 2**31:  # the state counts them in an int32
            raise UserError(f"epochs={config.epochs}: must be at most {(2**31 - 1) // self.steps_per_epoch}")
        self._rows = own_rows(self.mesh, config.batch_size)

        self.steps = build_steps(config, self.mesh, num_classes, train.channels, self.total_steps)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(self.steps.abstract_state.params))

    def fit(self, workdir: Path, stop: Interruption | None = None, data: Identity | None = None) -> None:
        """Runs what is left of the epochs; arguments and errors as `run`'s.

        Args:
            workdir: of the run.
            stop: what stops it; None for one of its own.
            data: what the images are, to be kept in `data.json`; None to keep nothing.
        """
        if stop is None:
            with interruption() as stop:
                return self.fit(workdir, stop, data)
        log = MetricsLog(workdir, self.steps_per_epoch, writes=is_first(), eval_flip=self.config.eval_flip)
        checkpoints = Checkpoints(workdir / "checkpoints", best_step=lambda: log.best.step if log.best else None)
        with contextlib.closing(log), contextlib.closing(checkpoints):
            state = checkpoints.restore(self.steps.abstract_state, self.display.say)
            if state is None:
                # Killed between the first row and the first checkpoint a run has one row. It has the second only
                # once that checkpoint is whole: see `_fit`.
                if len(log.epochs) > 1 or log.done is not None:
                    raise UserError(f"workdir={workdir}: has metrics and no checkpoint; pick another to start over")
                if log.epochs:
                    self.display.say(f"{workdir}: its first checkpoint was not finished; starting from the beginning")
                with out_of_memory(
                    f"model={self.config.model}", "a smaller one, or a larger weight_shards, needs less"
                ):
                    state = jax.block_until_ready(self.steps.create_state())
            elif log.done is not None and int(state.step) == self.total_steps:
                flip = ", with a test-time flip (eval_flip)" if self.config.eval_flip else ""
                self.display.say(f"{workdir}: already done, best accuracy {log.done['best_accuracy']:.4f}{flip}")
                return
            else:
                self.display.say(f"{workdir}: going on from step {int(state.step)} of {self.total_steps}")
            if int(state.step) > self.total_steps:
                raise UserError(
                    f"workdir={workdir}: its checkpoint is of step {int(state.step)}, the run has {self.total_steps}; "
                    "is data_dir the one it was trained on?"
                )
            wait_for_all("metrics read")  # by all, before the first writes
            if data is not None and is_first():
                record_data(data, workdir, int(state.step), self.display.say)
            log.start(int(state.step))
            # An epoch that has just ended may have no row yet; of those before it each had one.
            past = range(1, (int(state.step) - 1) // self.steps_per_epoch + 1)
            if missing := sorted(set(past) - {row.epoch for row in log.epochs}):
                which = ", ".join(map(str, missing))
                self.display.say(f"{workdir}: metrics.jsonl has lost the rows of epochs {which}; it goes on without")
            # One reader for the whole run: what reads ahead goes on with the next epoch while this one is evaluated.
            with contextlib.closing(self._batches(range(int(state.step), self.total_steps))) as batches:
                try:
                    self._fit(state, batches, log, checkpoints, stop)
                except _NotFinite as streak:
                    checkpoints.wait()
                    kept = [step for step in checkpoints.steps() if step <= streak.begun]
                    raise _diverged(streak, kept, workdir) from None
            assert log.best is not None, "a run is done after its last epoch"
            saved = ", ".join(map(str, checkpoints.steps()))
            self.display.say(
                f"best accuracy {log.best.accuracy:.4f}, in epoch {log.best.epoch} of {self.config.epochs}; in "
                f"{workdir}: curves.png, metrics.jsonl, tensorboard/, checkpoints/ (steps {saved})"
            )

    def _fit(
        self,
        state: TrainState,
        batches: Iterator[Batch[jax.Array]],
        log: MetricsLog,
        checkpoints: Checkpoints,
        stop: Interruption,
    ) -> None:
        if self.config.eval_flip:
            self.display.say("accuracies are with a test-time flip (eval_flip)")
        self.display.header(ema=self.config.ema_decay is not None)
        for row in log.epochs:
            self.display.row(row)
        seconds, images = 0.0, 0
        while not stop:
            step = int(state.step)
            epoch, position = divmod(step, self.steps_per_epoch)
            if position == 0 and epoch > log.last_epoch:
                try:
                    result = self._evaluate(state, stop)
                    ema = self._evaluate(state.ema, stop) if state.ema else None
                except UserError:
                    _save_in_need(state, checkpoints)
                    raise
                if stop:
                    break  # it did not see every image
                row = EpochMetrics(
                    epoch=epoch,
                    step=step,
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
                checkpoints.wait()  # for the one before
                self.display.row(row)
                log.add_epoch(row)
                checkpoints.save(state)
            if step == self.total_steps:
                checkpoints.wait()
                log.finish(state_digest(state))
                return
            if position == 0:
                state = state.replace(loss_sum=state.loss_sum * 0, loss_count=state.loss_count * 0)
            started = time.perf_counter()
            with out_of_memory(
                f"batch_size={self.config.batch_size}", "a smaller one, or a larger accumulate, needs less"
            ):
                state = self._train_epoch(state, batches, epoch + 1, log, checkpoints, stop)
            seconds = time.perf_counter() - started
            images = (int(state.step) - step) * self.config.batch_size
        self.display.say("saving before the stop")
        checkpoints.save(state)
        checkpoints.wait()
        raise Stopped(stop.signal)

    def _train_epoch(
        self,
        state: TrainState,
        batches: Iterator[Batch[jax.Array]],
        epoch: int,
        log: MetricsLog,
        checkpoints: Checkpoints,
        stop: Interruption,
    ) -> TrainState:
        """Steps to the epoch's end, or to where a signal finds it."""
        first = int(state.step)
        end = epoch * self.steps_per_epoch
        train_step = self.steps.train_step_at(self.config.size_in_epoch(epoch - 1))
        under_way: deque[tuple[int, StepOutput]] = deque()
        with self.display.bar(
            f"epoch {epoch}/{self.config.epochs}", self.steps_per_epoch, "images/s", self.config.batch_size
        ) as bar:
            for step in range(first, end):
                try:
                    batch = next(batches)
                except UserError:
                    _save_in_need(state, checkpoints)
                    raise
                state, output = train_step(state, batch)
                under_way.append((step, output))
                if len(under_way) > AHEAD:
                    self._settle(*under_way.popleft(), log, bar)
                if self.config.save_every and (step + 1) % self.config.save_every == 0 and step + 1 < end:
                    checkpoints.save(state)
                if stop:
                    break
            for item in under_way:
                self._settle(*item, log, bar)
        if state.ema and self.config.ema_batch_norm == "recalibrate" and int(state.step) == end:
            # Before any stop, so that what is saved at an epoch's end is what will be evaluated.
            statistics_step = self.steps.statistics_step_at(self.config.size_in_epoch(epoch - 1))
            steps = range(max(end - self.config.recalibrate_steps, end - self.steps_per_epoch), end)
            with contextlib.closing(self._batches(steps)) as again:
                statistics = recalibrate(statistics_step, state, zip(steps, again, strict=True))
            state = state.replace(ema=state.ema.replace(batch_stats=statistics))
        return state

    def _batches(self, steps: range) -> Generator[Batch[jax.Array]]:
        """What training steps see, on the devices."""
        config = self.config
        with contextlib.closing(self.train.train_batches(config.batch_size, config.seed, steps, self._rows)) as batches:
            for batch in batches:
                yield to_devices(batch, self.mesh)

    def _settle(self, step: int, output: StepOutput, log: MetricsLog, bar: Bar) -> None:
        """Waits for a step's figures and acts on them."""
        skipped = int(output.skipped_in_a_row)
        if skipped >= self.config.max_skipped_steps:
            raise _NotFinite(step + 1 - skipped, skipped)
        bar.to(step % self.steps_per_epoch + 1, lambda: float(output.loss))
        if (step + 1) % self.config.log_every == 0:
            log.add_point(
                step + 1,
                loss=float(output.loss),
                learning_rate=float(output.learning_rate),
                momentum=float(output.momentum),
            )

    def _evaluate(self, state: TrainState | Average, stop: Interruption) -> Evaluation:
        # Filling up goes to the next multiple of the devices at most: a batch may be named larger than any memory.
        most = -(-len(self.valid) // self.mesh.size) * self.mesh.size
        size = min(self.config.eval_batch_size or self.config.batch_size, most)
        with (
            out_of_memory(f"eval_batch_size={size}", "a smaller one needs less"),
            contextlib.closing(self.valid.eval_batches(size, own_rows(self.mesh, size))) as batches,
            self.display.bar("evaluating", -(-len(self.valid) // size)) as bar,
        ):
            return evaluate(self.steps.eval_step, state, _counted(_until(stop, batches), bar), self.mesh)


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


def _save_in_need(state: TrainState, checkpoints: Checkpoints) -> None:
    """Where an image that a stream came to is broken: keeps what is trained so far, for when it is whole again.

    Only of a run in one process. Of several, the others know nothing of it, and would not come to save.
    """
    if jax.process_count() == 1 and int(state.step):
        checkpoints.save(state)
        checkpoints.wait()


def _until(stop: Interruption, batches: Iterable[Batch[np.ndarray]]) -> Iterator[Batch[np.ndarray]]:
    for batch in batches:
        yield batch
        if stop:
            return


def _counted(batches: Iterable[Batch[np.ndarray]], bar: Bar) -> Iterator[Batch[np.ndarray]]:
    for number, batch in enumerate(batches, start=1):
        yield batch
        bar.to(number)
