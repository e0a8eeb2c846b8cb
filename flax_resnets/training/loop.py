"""Runs a whole training: begins or resumes it, trains, evaluates, saves, and stops when it is asked to."""

import contextlib
import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from flax_resnets import storage
from flax_resnets.data.batches import Batch
from flax_resnets.data.identity import Identity
from flax_resnets.data.statistics import PixelStatistics
from flax_resnets.errors import UserError
from flax_resnets.fields import shown
from flax_resnets.paths import expanded
from flax_resnets.training.average import Average
from flax_resnets.training.best import in_words
from flax_resnets.training.build import check_devices
from flax_resnets.training.callbacks import Callback, checked
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.completion import completed
from flax_resnets.training.config import Config
from flax_resnets.training.curves import Curves, curves_figure
from flax_resnets.training.devices import devices_in_words, idle_accelerator, start_jax
from flax_resnets.training.display import Display
from flax_resnets.training.early_stopping import EarlyStopping
from flax_resnets.training.finetune import plan_of
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.interruption import Interruption, Stopped, interruption
from flax_resnets.training.lineage import write_lineage
from flax_resnets.training.machine_record import MachineRecord
from flax_resnets.training.metrics import ENDED_BY, EpochMetrics, MetricsLog, columns
from flax_resnets.training.network import make_model
from flax_resnets.training.observers import Observers
from flax_resnets.training.out_of_memory import out_of_memory
from flax_resnets.training.placement import own_rows
from flax_resnets.training.pretrained import seen_before, start_of
from flax_resnets.training.processes import check_alike, first_text, is_first, wait_for_all
from flax_resnets.training.recalibration import recalibrate
from flax_resnets.training.run_data import described, open_data, record_data
from flax_resnets.training.splits import list_broken, load_images
from flax_resnets.training.state import TrainState, state_digest
from flax_resnets.training.step import Evaluation, StepOutput, evaluate
from flax_resnets.training.tensorboard import TensorBoard
from flax_resnets.training.terminal import Terminal
from flax_resnets.training.trainer import Trainer
from flax_resnets.training.weights_and_biases import WandB
from flax_resnets.training.workdir import Course, check_workdir, course_of, forget, opened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flax_resnets.inference.classifier import Classifier


class Diverged(Exception):
    """The loss or the gradient was not finite for `max_skipped_steps` steps in a row.

    Attributes:
        kept: the checkpoints from before the first of those steps, by their step numbers, in order. If there are none,
            the run has nothing worth keeping.
    """

    def __init__(self, message: str, kept: Sequence[int] = ()):
        super().__init__(message)
        self.kept = tuple(kept)


def run(
    config: Config,
    workdir: str | os.PathLike[str],
    callbacks: Sequence[Callback] = (),
    *,
    amend: bool = False,
    stop: Interruption | None = None,
) -> "Run":
    """Trains to the last epoch, from the last checkpoint in the workdir or from the beginning.

    Mistakes in the request are reported before the workdir is made. SIGINT, SIGTERM and SIGHUP stop the run. In a
    thread other than the main one Python delivers no signals; there a program stops the run with `stop.ask()`.

    Args:
        config: the run's configuration, as `load_config` returns it.
        workdir: a directory, or `gs://BUCKET/PATH`. It is made if it does not exist, and gets `config.json`,
            `data.json`, `machine.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/` and `curves.png`, and
            `broken_images.txt` if images are left out.
        callbacks: objects that the run calls, besides those of the terminal, TensorBoard and the curves.
        amend: whether the workdir's run goes on, from its last checkpoint, under a configuration that differs from its
            own. The learning rate's schedule begins anew over what is left, except `step` and `constant`, which go on.
            The resumed run is recognised by the changed configuration. A run that a callback ended early goes on even
            if nothing is changed; one that `patience` ended, if something is.
        stop: an object by which other code can stop the run; None if only signals stop it. With several processes it
            must be the result of `interruption()`.

    Returns:
        The finished run, with its rows, its best epoch and its last state.

    Raises:
        UserError: the configuration, the data or the workdir cannot be used. Or a callback raised an error, which is
            the `__cause__`; what was trained until then is saved.
        Diverged: the loss or gradient was not finite for too many steps in a row. If there is no checkpoint from before
            them, the run's files except TensorBoard's are removed from the workdir, so that a new run can begin in it.
        Stopped: a signal or `stop` stopped the run, and its state is saved.

    Example:
        >>> from flax_resnets.training.recipes import load_config
        >>> stop = Interruption()
        >>> stop.ask("a button")  # another thread may do this at any time
        >>> try:
        ...     run(load_config("quickstart"), "runs/never", stop=stop)
        ... except Stopped as stopped:
        ...     print(stopped)
        a button
    """
    if not isinstance(config, Config):
        raise UserError(f"config={str(config)[:100]}: must be a Config, as load_config(FILE) gives it")
    if not isinstance(workdir, str | os.PathLike) or not os.fspath(workdir):
        raise UserError(f"workdir={str(workdir)[:100]}: must be the path of a directory")
    callbacks = checked(callbacks)
    workdir = expanded(workdir, "workdir", buckets=True)
    if storage.is_bucket(workdir) and str(workdir.parent) == "gs://":
        raise UserError(f"workdir={workdir}: must be gs://BUCKET/PATH; a run needs a path of its own in the bucket")
    start_jax()
    display = Display(silent=not is_first())
    check_workdir(config, workdir, amend)
    course = course_of(config, workdir, amend)
    check_devices(config, jax.device_count())
    # Finds a misspelt name before the data is read.
    plan_of(config, make_model(config, num_classes=10), (config.image_size, config.image_size, 3))
    weights = start_of(config, workdir)
    if config.wandb is not None:
        callbacks = (WandB(config.wandb), *callbacks)
    with interruption() if stop is None else stop as stop:
        with stop.at_once():  # downloading and decoding can take hours
            train_source, valid_source, data = open_data(config, workdir, display.say)
            broken_list = workdir / "broken_images.txt"
            train = load_images(config, train_source, display, broken_list)
            valid = load_images(config, valid_source, display, broken_list)
            start = weights(train.channels, data.class_names) if weights else None
            statistics = start.statistics if start else None
            data = described(data, config, train, valid, display, normalised=statistics is not None)
            if data.mean and data.std:
                statistics = PixelStatistics(data.mean, data.std)
            complete = completed(config, train, train_source.num_classes, statistics=statistics, display=display)
        pretrained = start.variables if start else None
        amendment = course.amendment if course else None
        classes = train_source.num_classes
        trainer = Trainer(complete, train, valid, classes, display, pretrained=pretrained, amendment=amendment)
        if course:
            trainer.check_amendment(course.config)
        frozen = f" ({trainer.frozen:,} of them frozen)" if trainer.frozen else ""
        options = ", ".join(f"{name}={shown(value)}" for name, value in sorted(config.model_options.items()))
        network = f"{config.model} ({options})" if options else config.model
        display.say(
            f"{network}: {trainer.parameters:,} parameters{frozen}, {config.precision}, on {devices_in_words()}"
        )
        if warning := idle_accelerator():
            display.say(warning)
        evened = config.class_weights is not None or config.sampler == "balanced"
        remarks = [*data.remarks(evened), *trainer.remarks()]
        if start and start.notes:  # a run that resumes does not need the source, which may be gone
            remarks += [*start.notes, *seen_before(config.weights, data)]
        for line in (data.in_words(config.image_size), *remarks):
            display.say(line)
        with contextlib.ExitStack() as stack:
            if is_first():
                # Waiting for a lock in a bucket can take a minute.
                with stop.at_once() if storage.is_bucket(workdir) else contextlib.nullcontext():
                    stack.enter_context(opened(config, workdir, display.say, course, amend))
            wait_for_all("workdir opened")
            check_alike(data.to_json(), f"data_dir={config.data_dir}: must hold the same images for all processes")
            if start is not None:
                check_alike(start.lineage.digest, f"weights={config.weights}: must be the same for all processes")
            try:
                if is_first():
                    list_broken(broken_list, train, valid)
                    if start is not None:
                        write_lineage(start.lineage, workdir)
                return fit(trainer, workdir, stop, data, callbacks, course)
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
    course: Course | None = None,
) -> "Run":
    """Trains to the last epoch, from the last checkpoint in the workdir or from the beginning.

    Args:
        trainer: the parts of the run.
        workdir: the run's directory, which must exist.
        stop: see `run`.
        data: the identity of the data, to be recorded in `data.json`; None to record nothing.
        callbacks: see `run`.
        course: of an amended run, of whose last amendment the trainer is made.

    Raises:
        UserError, Diverged, Stopped: see `run`.
    """
    if stop is None:
        with interruption() as stop:
            return fit(trainer, workdir, stop, data, callbacks, course)
    run = Run(trainer, workdir, stop, callbacks, course)
    run.go_on(data)
    return run


class Run:
    """A run in its workdir.

    Args:
        trainer: the parts of the run.
        workdir: the run's directory, which must exist.
        stop: stops the run.
        callbacks: see `run`.

    Attributes:
        trainer, workdir, stop: as above.
        config: the trainer's configuration.
        data: the identity of the data, with the names of the classes; None if it is not recorded.
        state: the state after the last step. Weights and running statistics are `state.params` and
            `state.batch_stats`.
        confusion: int64 `(classes, classes)`, the validation images by class and predicted class, as the weights of the
            last evaluated epoch see them. None before that, of more than 60 classes, and of several labels an image.
    """

    state: TrainState
    confusion: np.ndarray | None = None

    def __init__(
        self,
        trainer: Trainer,
        workdir: Path,
        stop: Interruption,
        callbacks: Sequence[Callback] = (),
        course: Course | None = None,
    ):
        self.trainer = trainer
        self.config = trainer.config
        self.workdir = workdir
        self.stop = stop
        own = (Terminal(trainer.display), MachineRecord(), TensorBoard(), Curves()) if is_first() else ()
        patience = (EarlyStopping(self.config.patience),) if self.config.patience else ()
        self._observers = Observers((*own, *patience), callbacks, stop, trainer.display.say)
        self._ending = ""
        self.data: Identity | None = None
        self._course = course
        self._log = MetricsLog(workdir, trainer.timeline, is_first(), self.config.eval_flip, self.config.best_by)
        self._checkpoints = Checkpoints(workdir / "checkpoints", self._kept_steps)

    @property
    def history(self) -> list[EpochMetrics]:
        """The rows of all finished epochs."""
        return self._log.epochs

    @property
    def best(self) -> EpochMetrics | None:
        """The row of the best epoch by `best_by`; None if there are no rows."""
        return self._log.best

    @property
    def done(self) -> dict[str, Any] | None:
        """The last row of `metrics.jsonl`, without its event; None before the run is done."""
        return self._log.done

    @property
    def digest(self) -> str | None:
        """The `state_digest` in the last row of `metrics.jsonl`; None before the run is done."""
        return self.done["state_digest"] if self.done else None

    @property
    def ended_by(self) -> str | None:
        """What ended the run before its last epoch, such as `patience`; None if nothing did, or it is not done."""
        return self.done.get(ENDED_BY) if self.done else None

    def end_early(self, why: str) -> None:
        """Asks for the run's end after the current epoch, as planned: the run is then done, and calls `on_run_end`.

        In a run of several processes one of them may ask. `run.stop.ask()` is another thing: it stops the run within
        the epoch, and the same command goes on.

        Args:
            why: what ends the run, in few words; the last row of `metrics.jsonl` has it as `ended_by`.

        Example:
            >>> class GoodEnough(Callback):
            ...     def on_epoch_end(self, run, row):
            ...         if row.accuracy >= 0.95:
            ...             run.end_early("95 % reached")
        """
        self._ending = self._ending or str(why) or "a callback"

    @property
    def columns(self) -> dict[str, list[int | float]]:
        """The history by columns: for each figure the list of its values, one an epoch.

        Example:
            >>> pandas.DataFrame(run.columns)  # doctest: +SKIP
        """
        return columns(self.history)

    def plot(self) -> "Figure":
        """The losses and accuracies of all finished epochs as a matplotlib figure, which a notebook shows.

        Raises:
            UserError: no epoch is finished.

        Example:
            >>> run.plot().savefig("curves.pdf")  # doctest: +SKIP
        """
        if not self.history:
            raise UserError(f"{self.workdir}: no epoch is finished, so there is nothing to plot")
        return curves_figure(self.history, self.config.eval_flip, self.config.best_by)

    def classifier(
        self,
        checkpoint: Literal["best", "last"] | int = "best",
        *,
        average: bool | None = None,
        class_names: Sequence[str] | None = None,
    ) -> "Classifier":
        """The trained network of one of the run's checkpoints, ready to classify images.

        Args:
            checkpoint: `best`, that of the best epoch; `last`; or the number of a step that is kept.
            average: whether to take the average of the weights (EMA), if the run keeps it.
            class_names: in the order of the labels; None for those of the data.

        Raises:
            UserError: the run has no such checkpoint.

        Example:
            >>> run.classifier().predict("shoe.png")  # doctest: +SKIP
            [[Prediction('Sneaker', 7, 0.97), Prediction('Sandal', 5, 0.02), ...]]
        """
        from flax_resnets.inference.load import load_classifier  # training alone does not need it

        return load_classifier(self.workdir, checkpoint=checkpoint, average=average, class_names=class_names)

    def _kept_steps(self) -> list[int]:
        """The steps whose checkpoints are kept besides the latest: that of the best epoch and each `keep_every`-th."""
        every, best = self.config.keep_every, self.best
        return [row.step for row in self.history if row is best or (every and row.epoch % every == 0)]

    def go_on(self, data: Identity | None = None) -> None:
        """Trains to the last epoch; see `fit`."""
        self.data = data
        say, total = self.trainer.display.say, self.trainer.total_steps
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.closing(self._checkpoints))
            stack.enter_context(self._observers)
            self.state, is_new = self._first_state()
            step = int(self.state.step)
            if self.done is not None and (step == total or self._ended_early_at(step)):
                flip = ", with a test-time flip (eval_flip)" if self.config.eval_flip else ""
                accuracy = f"accuracy {self.done['best_accuracy']:.4f}"
                best = in_words(self.best, self.config.best_by) if self.best else accuracy
                say(f"{self.workdir}: already done{self._end_in_words()}, best {best}{flip}")
                return
            if not is_new:
                say(f"{self.workdir}: going on from step {step} of {total}")
            if step > total:
                raise UserError(
                    f"workdir={self.workdir}: its checkpoint is of step {step}, the run has {total}; "
                    "is data_dir the one it was trained on?"
                )
            wait_for_all("metrics read")  # by all processes, before the first process writes
            if data is not None and is_first():
                record_data(data, self.workdir, step, say)
            self._log.start(step)
            # The last epoch that ended may have no row yet. Every epoch before it must have one.
            past = range(1, self.trainer.timeline.place(step - 1)[0] + 1)
            if missing := sorted(set(past) - {row.epoch for row in self.history}):
                which = ", ".join(map(str, missing))
                say(f"{self.workdir}: metrics.jsonl has lost the rows of epochs {which}; the run goes on without them")
            # One reader for the whole run, so that it reads ahead into the next epoch while this epoch is evaluated.
            batches = stack.enter_context(contextlib.closing(self.trainer.batches(range(step, total))))
            try:
                self._observers.tell("on_run_begin", self)
                if self._observers.failed and jax.process_count() == 1:
                    return  # nothing new to save; with several processes all must stop at the same point
                self._epochs(batches)
                self._observers.tell("on_run_end", self)
            except _NotFinite as streak:
                self._checkpoints.wait()
                kept = [saved for saved in self._checkpoints.steps() if saved <= streak.begun]
                raise _diverged(streak, kept, self.workdir) from None
            assert self.best is not None, "a run is done after an epoch"
            saved = ", ".join(map(str, self._checkpoints.steps()))
            say(
                f"best {in_words(self.best, self.config.best_by)}, in epoch {self.best.epoch} of {self.config.epochs}"
                f"{self._end_in_words()}; in {self.workdir}: curves.png, metrics.jsonl, tensorboard/, checkpoints/ "
                f"(steps {saved})"
            )

    def _first_state(self) -> tuple[TrainState, bool]:
        """The newest checkpoint's state and False; or, if there is none, the state before the first step and True."""
        say = self.trainer.display.say
        state = self._checkpoints.restore(self._layout, say)
        if state is not None:
            return self._amended(state), False
        # A run that was killed between its first row and its first checkpoint has one row. The second row is written
        # only when that checkpoint is complete, see `_epochs`.
        if len(self.history) > 1 or self.done is not None:
            raise UserError(f"workdir={self.workdir}: has metrics and no checkpoint; pick another to start over")
        if self.history:
            say(f"{self.workdir}: its first checkpoint was not finished; starting from the beginning")
        with out_of_memory(f"model={self.config.model}", "a smaller one, or a larger weight_shards, needs less"):
            return jax.block_until_ready(self.trainer.first_state()), True

    def _layout(self, step: int) -> TrainState:
        """Shapes and dtypes of the checkpoint of a step."""
        course = self._course
        if course is None or step > course.amendment.step:
            return self.trainer.steps.abstract_state
        return self.trainer.abstract_state_of(course.config)

    def _amended(self, state: TrainState) -> TrainState:
        """The state; if it is that of an amendment's beginning, the state from which the amended run goes on."""
        course, step = self._course, int(state.step)
        if course is None or step > course.amendment.step:
            return state
        if step < course.amendment.step:
            raise UserError(
                f"{self.workdir}: was amended at step {course.amendment.step}, whose checkpoint is damaged; the same "
                f"command with --amend amends it at step {step}"
            )
        same = course.config.optimizer == self.config.optimizer
        carried, keeps_moments = self.trainer.steps.carried_over(state, same)
        anew = "" if keeps_moments else "; the optimizer's moments begin anew"
        say, amendment = self.trainer.display.say, course.amendment
        say(f"{self.workdir}: amended at step {step}, epoch {amendment.epoch}: {amendment.in_words()}{anew}")
        return carried

    def _ended_early_at(self, step: int) -> bool:
        # If the last checkpoint is damaged, the run has to reach the end again.
        return self.ended_by is not None and bool(self.history) and self.history[-1].step == step

    def _end_in_words(self) -> str:
        """A part of a sentence on an early end; empty if there was none."""
        return f", ended after epoch {self._log.last_epoch} by {self.ended_by}" if self.ended_by else ""

    def _epochs(self, batches: Iterator[Batch[jax.Array]]) -> None:
        """Trains, evaluates and saves each epoch up to the last, or to that in which a callback asks for the end."""
        seconds, images = 0.0, 0
        while not self.stop:
            step = int(self.state.step)
            epoch, position = self.trainer.timeline.place(step)
            if position == 0 and epoch > self._log.last_epoch:
                row = self._evaluated(epoch, seconds, images)
                if row is None:
                    break  # stopped before all images were evaluated
                self._checkpoints.wait()  # until the previous checkpoint is complete
                self._log.add_epoch(row)
                self._observers.tell("on_epoch_end", self, row)
                self._checkpoints.save(self.state)
            ending = first_text(self._ending) if position == 0 and self.history else ""
            if step == self.trainer.total_steps or ending:
                self._checkpoints.wait()
                self._log.finish(state_digest(self.state), ending if step < self.trainer.total_steps else None)
                return
            if position == 0:
                state = self.state
                self.state = state.replace(loss_sum=state.loss_sum * 0, loss_count=state.loss_count * 0)
            self._observers.tell("on_epoch_begin", self, epoch + 1)
            started = time.perf_counter()
            with out_of_memory(
                f"batch_size={self.config.batch_size}", "a smaller one, or a larger accumulate, needs less"
            ):
                self._train_epoch(batches, epoch + 1)
            seconds = time.perf_counter() - started
            images = (int(self.state.step) - step) * self.config.batch_size
        self.trainer.display.say("saving before the stop")
        self._checkpoints.save(self.state, stopping=True)
        self._checkpoints.wait()
        raise Stopped(self.stop.signal)

    def _evaluated(self, epoch: int, seconds: float, images: int) -> EpochMetrics | None:
        """Evaluates an epoch and returns its row; None if the evaluation was stopped."""
        state = self.state
        try:
            result = self._evaluate(state)
            ema = self._evaluate(state.ema) if state.ema else None
        except UserError:
            self._save_in_need()
            raise
        if self.stop:
            return None
        self.confusion = result.confusion
        return EpochMetrics(
            epoch=epoch,
            step=int(state.step),
            train_loss=float(state.loss_sum) / int(state.loss_count) if int(state.loss_count) else math.nan,
            **result.as_row(),
            seconds=seconds,
            images_per_second=images / seconds if seconds else 0.0,
            skipped_steps=int(state.skipped),
            **(ema.as_row("ema_") if ema else {}),
        )

    def _train_epoch(self, batches: Iterator[Batch[jax.Array]], epoch: int) -> None:
        """Trains to the end of the epoch, or until the run is asked to stop."""
        end = self.trainer.timeline.end_of(epoch)
        for step, output in each_computed(self._steps(batches, epoch, end)):
            skipped = int(output.skipped_in_a_row)
            if skipped >= self.config.max_skipped_steps:
                raise _NotFinite(step - skipped, skipped)
            self._observers.tell("on_step_end", self, step, output)
        if self.state.ema and self.config.ema_batch_norm == "recalibrate" and int(self.state.step) == end:
            # Even if the run is about to stop, so that the checkpoint at an epoch's end has the statistics to evaluate.
            self._recalibrate(epoch, end)

    def _steps(self, batches: Iterator[Batch[jax.Array]], epoch: int, end: int) -> Iterator[tuple[int, StepOutput]]:
        """Starts the steps of an epoch; yields for each the number of steps taken so far and the step's figures."""
        steps = self.trainer.steps.in_epoch(epoch, self.config)
        train_step = steps.train_step_at(self.config.size_in_epoch(epoch - 1))
        for taken in range(int(self.state.step) + 1, end + 1):
            try:
                batch = next(batches)
            except UserError:
                self._save_in_need()
                raise
            with jax.profiler.StepTraceAnnotation("train", step_num=taken):
                self.state, output = train_step(self.state, batch)
            yield taken, output
            if self.config.save_every and taken % self.config.save_every == 0 and taken < end:
                self._checkpoints.save(self.state)
            if self.stop:
                return

    def _recalibrate(self, epoch: int, end: int) -> None:
        """Computes the running statistics of the averaged weights from the epoch's last batches."""
        in_epoch = self.trainer.steps.in_epoch(epoch, self.config)
        statistics_step = in_epoch.statistics_step_at(self.config.size_in_epoch(epoch - 1))
        steps = range(max(end - self.config.recalibrate_steps, end - self.trainer.steps_per_epoch), end)
        with contextlib.closing(self.trainer.batches(steps)) as again:
            statistics = recalibrate(statistics_step, self.state, zip(steps, again, strict=True))
        assert self.state.ema is not None
        self.state = self.state.replace(ema=self.state.ema.replace(batch_stats=statistics))

    def _evaluate(self, weights: TrainState | Average) -> Evaluation:
        trainer = self.trainer
        # No batch is larger than the split, rounded up to a multiple of the number of devices. The batch size in the
        # configuration may be larger than the memory.
        most = -(-len(trainer.valid) // trainer.mesh.size) * trainer.mesh.size
        size = min(self.config.eval_batch_size or self.config.batch_size, most)
        self._observers.tell("on_evaluation_begin", self, -(-len(trainer.valid) // size))
        with (
            out_of_memory(f"eval_batch_size={size}", "a smaller one needs less"),
            contextlib.closing(trainer.valid.eval_batches(size, own_rows(trainer.mesh, size))) as batches,
        ):
            return evaluate(trainer.steps.eval_step, weights, self._told(batches), trainer.mesh)

    def _told(self, batches: Iterable[Batch[np.ndarray]]) -> Iterator[Batch[np.ndarray]]:
        """Yields the batches of an evaluation and tells the callbacks; ends early if the run is asked to stop."""
        for done, batch in enumerate(batches, start=1):
            yield batch
            self._observers.tell("on_evaluation_step", self, done)
            if self.stop:
                return

    def _save_in_need(self) -> None:
        """Saves the state when a streamed image is found to be broken, so that the run can resume once it is repaired.

        Does nothing in a run of several processes: all must take part in a save, but only one knows of the image.
        """
        if jax.process_count() == 1 and int(self.state.step):
            self._checkpoints.save(self.state)
            self._checkpoints.wait()


class _NotFinite(Exception):
    """The loss or gradient was not finite for `steps` steps in a row, of which the first is step `begun` + 1."""

    def __init__(self, begun: int, steps: int):
        super().__init__(begun, steps)
        self.begun, self.steps = begun, steps


def _diverged(streak: _NotFinite, kept: Sequence[int], workdir: Path) -> Diverged:
    end = streak.begun + streak.steps
    what = f"the loss or gradient was not finite for {streak.steps} steps in a row, up to step {end}"
    advice = "try a lower learning_rate, or clip_norm"
    if not kept:
        return Diverged(f"{what}; {advice}: no checkpoint is from before them, so the same workdir begins a new run")
    base = workdir if workdir.name not in ("", "..") else workdir.resolve()
    other = next(path for n in itertools.count(2) if not storage.exists(path := base.with_name(f"{base.name}-{n}")))
    return Diverged(
        f"{what}; {advice}, in another workdir, such as --workdir={other}: this one keeps its checkpoint of step "
        f"{kept[-1]}",
        kept,
    )
