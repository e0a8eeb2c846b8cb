"""The run from beginning to end: open, resume, train, evaluate, save, and stop where it was asked to."""

import contextlib
import json
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from flax_resnets.data.batches import Batch, Split, steps_per_epoch
from flax_resnets.data.cache import cached_images
from flax_resnets.data.lock import locked
from flax_resnets.data.source import open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.models.registry import create_model
from flax_resnets.training.atomic import temporary_of, write_whole
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.compilation import for_once
from flax_resnets.training.config import DEFAULTS, FREE_FIELDS, Config
from flax_resnets.training.display import Bar, Display
from flax_resnets.training.interruption import Interruption, Stopped, interruption
from flax_resnets.training.metrics import EpochMetrics, MetricsLog
from flax_resnets.training.optimizer import make_optimizer
from flax_resnets.training.placement import make_mesh, own_rows, to_devices, weight_shardings
from flax_resnets.training.processes import is_first, wait_for_all
from flax_resnets.training.recalibration import StatisticsStep, make_statistics_step, recalibrate
from flax_resnets.training.schedule import make_schedules
from flax_resnets.training.state import Average, TrainState, create_state, state_digest
from flax_resnets.training.step import (
    DTYPES,
    EvalSums,
    Evaluation,
    StepOutput,
    evaluate,
    make_eval_step,
    make_train_step,
)

# Steps that may be under way on the devices while the host goes on: enough that they never wait, few enough that
# batches do not pile up in their memory.
_AHEAD = 2


class Diverged(Exception):
    """The loss or the gradient was not finite for `max_skipped_steps` steps in a row."""


def run(config: Config, workdir: Path) -> None:
    """Trains to the last epoch, from wherever the workdir's last checkpoint stands.

    What can be wrong with the request is found before the workdir is made.

    Args:
        config: the run.
        workdir: made if need be; holds `config.json`, `metrics.jsonl`, `checkpoints/`, `tensorboard/`, `curves.png`.

    Raises:
        UserError: the configuration, the data or the workdir cannot be used.
        Diverged: too many steps in a row were not finite; the last checkpoint is from before them.
        Stopped: a signal asked for it; everything is saved.
    """
    display = Display(silent=not is_first())
    _check_workdir(config, workdir)
    check_devices(config, jax.device_count())
    make_model(config, num_classes=10)  # a misspelt name need not wait for the data
    with interruption() as stop:
        with stop.at_once():  # to download and decode can take hours
            train, num_classes = load_split(config, "train", display)
            valid, _ = load_split(config, "validation", display)
        trainer = Trainer(config, train, valid, num_classes, display)
        with contextlib.ExitStack() as stack:
            if is_first():
                stack.enter_context(_opened(config, workdir))
            wait_for_all("workdir opened")
            try:
                trainer.fit(workdir, stop)
            except OSError as error:  # the disk is full, read-only, or gone
                where, what = error.filename or workdir, error.strerror or error
                raise UserError(f"{where}: {what}; once that is put right, the same command goes on") from error


@contextlib.contextmanager
def _opened(config: Config, workdir: Path) -> Iterator[None]:
    """Makes the workdir, or finds this run in it, and keeps others out of it."""
    with contextlib.ExitStack() as stack:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(workdir, wait=False))
            _check_workdir(config, workdir)  # another process may have begun in it since
            write_whole(workdir / "config.json", config.to_json().encode())
        except BlockingIOError:
            raise UserError(f"workdir={workdir}: another process is training in it; wait, or pick another") from None
        except UserError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error  # the latter of a name with a NUL
            raise UserError(f"workdir={workdir}: {reason}; pick a directory that can be written") from None
        yield


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

    def fit(self, workdir: Path, stop: Interruption | None = None) -> None:
        """Runs what is left of the epochs; arguments and errors as `run`'s.

        Args:
            workdir: of the run.
            stop: what stops it; None for one of its own.
        """
        if stop is None:
            with interruption() as stop:
                return self.fit(workdir, stop)
        log = MetricsLog(workdir, writes=is_first())
        checkpoints = Checkpoints(workdir / "checkpoints", best_step=lambda: log.best.step if log.best else None)
        with contextlib.closing(log), contextlib.closing(checkpoints):
            state = checkpoints.restore(self.steps.abstract_state, self.display.say)
            if state is None:
                # Killed between the first row and the first checkpoint a run has one row. It has the second only
                # once that checkpoint is whole: see `_fit`.
                if len(log.epochs) > 1:
                    raise UserError(f"workdir={workdir}: has metrics and no checkpoint; pick another to start over")
                if log.epochs:
                    self.display.say(f"{workdir}: its first checkpoint was not finished; starting from the beginning")
                state = self.steps.create_state()
            elif log.done is not None and int(state.step) == self.total_steps:
                self.display.say(f"{workdir}: already done, best accuracy {log.done['best_accuracy']:.4f}")
                return
            else:
                self.display.say(f"{workdir}: going on from step {int(state.step)} of {self.total_steps}")
            if int(state.step) > self.total_steps:
                raise UserError(
                    f"workdir={workdir}: its checkpoint is of step {int(state.step)}, the run has {self.total_steps}; "
                    "is data_dir the one it was trained on?"
                )
            wait_for_all("metrics read")  # by all, before the first writes
            log.start(int(state.step))
            # One reader for the whole run: what reads ahead goes on with the next epoch while this one is evaluated.
            with contextlib.closing(self._batches(range(int(state.step), self.total_steps))) as batches:
                self._fit(state, batches, log, checkpoints, stop)

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
            if position == 0 and epoch > len(log.epochs):
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
                    train_loss=float(state.loss_sum) / max(int(state.loss_count), 1),
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
                if len(under_way) > _AHEAD:
                    self._settle(*under_way.popleft(), log, bar)
                if self.config.save_every and (step + 1) % self.config.save_every == 0 and step + 1 < end:
                    checkpoints.save(state)
                if stop:
                    break
            for item in under_way:
                self._settle(*item, log, bar)
        if state.ema and self.config.ema_batch_norm == "recalibrate" and int(state.step) == end:
            # Before any stop, so that what is saved at an epoch's end is what will be evaluated.
            steps = range(max(end - self.config.recalibrate_steps, end - self.steps_per_epoch), end)
            with contextlib.closing(self._batches(steps)) as again:
                statistics = recalibrate(self.steps.statistics_step, state, zip(steps, again, strict=True))
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
            raise Diverged(
                f"the loss or gradient was not finite for {skipped} steps in a row, up to step {step + 1}; "
                "try a lower learning_rate, or clip_norm"
            )
        bar.to(step % self.steps_per_epoch + 1)
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
            contextlib.closing(self.valid.eval_batches(size, own_rows(self.mesh, size))) as batches,
            self.display.bar("evaluating", -(-len(self.valid) // size)) as bar,
        ):
            return evaluate(self.steps.eval_step, state, _counted(_until(stop, batches), bar), self.mesh)


class Steps(NamedTuple):
    """What a run computes, ready to be called on its mesh, or to be compiled for it.

    Attributes:
        create_state: makes the state before the first step.
        abstract_state: its shapes, dtypes and placement.
        train_step_at: gives the training step for images of a size in pixels, always the same for the same; see
            `make_train_step`.
        eval_step: see `make_eval_step`.
        statistics_step: see `make_statistics_step`.
    """

    create_state: Callable[[], TrainState]
    abstract_state: TrainState
    train_step_at: Callable[[int], Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]]
    eval_step: Callable[[Any, Any, Batch[jax.Array]], EvalSums]
    statistics_step: StatisticsStep


def build_steps(config: Config, mesh: Mesh, num_classes: int, channels: int, total_steps: int) -> Steps:
    """Network, schedule and optimizer put together.

    Args:
        config: the run.
        mesh: as `make_mesh` gives it, or of devices that are not here.
        num_classes: outputs of the network.
        channels: of the images.
        total_steps: of the run; a multiple of its epochs.

    Raises:
        UserError: the network does not take such images, or not of each size that `progressive` names.
    """
    model = make_model(config, num_classes)
    steps_per_epoch = total_steps // config.epochs
    learning_rate, momentum = make_schedules(
        config.schedule,
        total_steps,
        config.learning_rate,
        config.momentum,
        steps_per_epoch=steps_per_epoch,
        pct_start=config.pct_start,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
        warmup_epochs=config.warmup_epochs,
        decay_epochs=config.decay_epochs,
        decay_rate=config.decay_rate,
    )
    optimizer = optimizer_for(config, learning_rate, momentum)

    def new_state(size: int) -> TrainState:
        return create_state(
            model,
            optimizer,
            (size, size, channels),
            config.seed,
            scale_loss=config.precision == "float16",
            ema=config.ema_decay is not None,
        )

    abstract_state = _abstract(lambda: new_state(config.image_size), config, config.image_size, channels)
    shardings = weight_shardings(abstract_state, mesh)
    create = jax.jit(lambda: new_state(config.image_size), out_shardings=shardings, compiler_options=for_once(mesh))
    abstract_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract_state,
        shardings,
    )
    for _, size in config.progressive:
        if not _alike(_abstract(lambda size=size: new_state(size), config, size, channels), abstract_state):
            raise UserError(
                f"progressive: model={config.model!r} has other parameters for images of {size} px than of "
                f"{config.image_size}; it takes one size only"
            )
    mix_until = None if config.mix_off_epoch is None else min(config.mix_off_epoch, config.epochs) * steps_per_epoch

    @cache
    def train_step_at(size: int) -> Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]:
        return make_train_step(model, optimizer, config, mesh, image_size=size, mix_until=mix_until)

    eval_step = make_eval_step(model, config, mesh)
    return Steps(create, abstract_state, train_step_at, eval_step, make_statistics_step(model, config, mesh))


def optimizer_for(
    config: Config, learning_rate: optax.Schedule, momentum: optax.Schedule
) -> optax.GradientTransformation:
    """The optimizer that a configuration names, with its settings, following two schedules."""
    return make_optimizer(
        config.optimizer,
        learning_rate,
        momentum,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
        beta2=config.beta2,
        epsilon=config.epsilon,
        decay_all=config.decay_all,
    )


def _abstract(create: Callable[[], TrainState], config: Config, size: int, channels: int) -> TrainState:
    try:
        return jax.eval_shape(create)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"model={config.model!r} on images of {(size, size, channels)}: {error}") from error


def _alike(a: Any, b: Any) -> bool:
    return jax.tree.map(lambda leaf: leaf.shape, a) == jax.tree.map(lambda leaf: leaf.shape, b)


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


def make_model(config: Config, num_classes: int) -> nn.Module:
    """The network that a configuration names, with its precision and kind of BatchNorm.

    Raises:
        UserError: `model_options` has one that is not the network's own to decide.
        ValueError: no such network or option.
    """
    for option in ("dtype", "batch_norm", "axis_name", "num_classes", "name"):
        if option in config.model_options:
            right = {"dtype": "precision", "batch_norm": "batch_norm", "name": "model"}.get(
                option, "nothing: training decides it"
            )
            raise UserError(f"model_options.{option}={config.model_options[option]!r}: set {right} instead")
    # `global` is every norm's default; any other word is for a network without norms to refuse.
    norm = {} if config.batch_norm == "global" else {"batch_norm": config.batch_norm}
    return create_model(config.model, num_classes, dtype=DTYPES[config.precision], **norm, **config.model_options)


def load_split(config: Config, split: Literal["train", "validation"], display: Display) -> tuple[Split, int]:
    """A split, decoded or to be decoded as it is read, and how many classes it tells apart.

    Raises:
        UserError: there is no such data, or `mean` and `std` do not fit its channels.
    """
    source = open_source(config.dataset, split, config.data_dir)
    check_channels(config, source.channels)
    size = config.store_size or config.image_size
    if config.images == "streamed":
        return StreamedImages(source, size, config.resize), source.num_classes
    with display.bar(f"decoding {config.dataset} {split}", len(source), "images/s") as bar:
        images = cached_images(
            source,
            size,
            config.resize,
            progress=lambda done, _: bar.to(done),
            broken=config.broken_images,
        )
    if images.broken:
        count = f"{len(images.broken)} of {len(source)} images are broken and left out"
        if not len(images):
            raise UserError(f"{config.dataset} {split}: {count}; the first: {images.broken[0]}")
        display.say(f"{config.dataset} {split}: {count}; the first: {images.broken[0]}")
    return images, source.num_classes


def check_channels(config: Config, channels: int) -> None:
    """Raises UserError unless `mean` and `std` fit images of so many channels."""
    for name in ("mean", "std"):
        if len(getattr(config, name)) not in (1, channels):
            raise UserError(
                f"{name}: has {len(getattr(config, name))} values; {config.dataset} has {channels} channels"
            )


def check_devices(config: Config, devices: int) -> None:
    """Raises UserError unless so many devices divide the batches, and the weights' parts, among them."""
    if devices % config.weight_shards:
        raise UserError(f"weight_shards={config.weight_shards}: must divide the {devices} devices")
    for name, parts in (("batch_size", config.accumulate), ("eval_batch_size", 1)):
        size = getattr(config, name)
        if size is not None and size % (parts * devices):
            in_parts = f"the {devices} devices" + (f" times accumulate={parts}" if parts > 1 else "")
            raise UserError(f"{name}={size}: must be a multiple of {in_parts}")


def _check_workdir(config: Config, workdir: Path) -> None:
    """Refuses a workdir that holds something other than this run."""
    if not os.path.exists(workdir):  # which takes any text, as Path.exists does not
        return
    if not workdir.is_dir():
        raise UserError(f"workdir={workdir}: is a file; name a directory")
    # What is written must not end up elsewhere, and what is read must end.
    for name in ("config.json", "metrics.jsonl", "curves.png"):
        for path in (workdir / name, temporary_of(workdir / name)):
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise UserError(f"{path}: must be a file, no link or directory; pick another workdir")
    for name in ("checkpoints", "damaged", "tensorboard"):
        if os.path.lexists(workdir / name) and not (workdir / name).is_dir():
            raise UserError(f"{workdir / name}: must be a directory; pick another workdir")
    path = workdir / "config.json"
    if not path.exists():
        foreign = [name for name in ("checkpoints", "metrics.jsonl", "curves.png") if (workdir / name).exists()]
        if foreign:
            raise UserError(f"workdir={workdir}: has {foreign[0]} and no config.json; pick another")
        return
    try:
        theirs = json.loads(path.read_text())
        ours = json.loads(config.to_json())
        # Written before a field was there, it means what the field's default now says.
        theirs = {**DEFAULTS, **theirs}
        differing = [name for name in ours if name not in FREE_FIELDS and theirs.get(name) != ours[name]]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no run's configuration ({error}); pick another workdir") from None
    if differing:
        changed = ", ".join(f"{name}={str(theirs.get(name))[:100]} (now {ours[name]})" for name in differing)
        raise UserError(f"workdir={workdir}: holds another run, with {changed}; pick another workdir")
