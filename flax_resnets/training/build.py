"""Builds what a configuration describes: network, schedules and optimizer, and the compiled steps."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh

from flax_resnets.data.batches import Batch
from flax_resnets.errors import UserError
from flax_resnets.training.compilation import quick_to_compile
from flax_resnets.training.config import Config
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.placement import weight_shardings
from flax_resnets.training.recalibration import StatisticsStep, make_statistics_step
from flax_resnets.training.schedule import make_schedules
from flax_resnets.training.state import TrainState, create_state
from flax_resnets.training.step import EvalStep, StepOutput, make_eval_step, make_train_step


class Steps(NamedTuple):
    """The functions that a run calls on its mesh. They can also be compiled for a mesh that is not here.

    Attributes:
        create_state: makes the state before the first step.
        abstract_state: shapes, dtypes and placement of that state.
        train_step_at: the training step for an image size in pixels, see `make_train_step`; the same function for the
            same size.
        eval_step: see `make_eval_step`.
        statistics_step_at: the statistics step for an image size in pixels, see `make_statistics_step`.
    """

    create_state: Callable[[], TrainState]
    abstract_state: TrainState
    train_step_at: Callable[[int], Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]]
    eval_step: EvalStep
    statistics_step_at: Callable[[int], StatisticsStep]


def build_steps(config: Config, model: nn.Module, mesh: Mesh, channels: int, total_steps: int) -> Steps:
    """Builds the network's schedules, optimizer, initial state and compiled steps.

    Args:
        config: the run.
        model: as `make_model` returns it.
        mesh: as `make_mesh` returns it; its devices need not be here.
        channels: of the images.
        total_steps: of the run; a multiple of its epochs.

    Raises:
        UserError: the network does not take images of this shape, or of one of the sizes in `progressive`.
    """
    steps_per_epoch = total_steps // config.epochs
    optimizer = make_optimizer(config, *make_schedules(config, total_steps, steps_per_epoch))

    create, abstract_state = initial_state(model, optimizer, config, mesh, channels)
    mix_until = None if config.mix_off_epoch is None else min(config.mix_off_epoch, config.epochs) * steps_per_epoch

    @cache
    def train_step_at(size: int) -> Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]:
        return make_train_step(model, optimizer, config, mesh, image_size=size, mix_until=mix_until)

    @cache
    def statistics_step_at(size: int) -> StatisticsStep:
        return make_statistics_step(model, config, mesh, image_size=size)

    return Steps(create, abstract_state, train_step_at, make_eval_step(model, config, mesh), statistics_step_at)


def initial_state(
    model: nn.Module, optimizer: optax.GradientTransformation, config: Config, mesh: Mesh, channels: int
) -> tuple[Callable[[], TrainState], TrainState]:
    """A function that makes the state before the first step; and that state's shapes, dtypes and placement.

    Args:
        model: the network.
        optimizer: as `make_optimizer` returns it.
        config: the run.
        mesh: as `make_mesh` returns it; its devices need not be here.
        channels: of the images.

    Raises:
        UserError: the network does not take images of this shape, or of one of the sizes in `progressive`.
    """

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
    create = jax.jit(
        lambda: new_state(config.image_size), out_shardings=shardings, compiler_options=quick_to_compile(mesh)
    )
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
    return create, abstract_state


def _abstract(create: Callable[[], TrainState], config: Config, size: int, channels: int) -> TrainState:
    try:
        return jax.eval_shape(create)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"model={config.model!r} on images of {(size, size, channels)}: {error}") from error


def _alike(a: Any, b: Any) -> bool:
    return jax.tree.map(lambda leaf: leaf.shape, a) == jax.tree.map(lambda leaf: leaf.shape, b)


def check_devices(config: Config, devices: int) -> None:
    """Raises UserError unless the batches, and the parts of the weights, can be divided evenly among the devices."""
    if devices % config.weight_shards:
        raise UserError(f"weight_shards={config.weight_shards}: must divide the {devices} devices")
    for name, parts in (("batch_size", config.accumulate), ("eval_batch_size", 1)):
        size = getattr(config, name)
        if size is not None and size % (parts * devices):
            in_parts = f"the {devices} devices" + (f" times accumulate={parts}" if parts > 1 else "")
            raise UserError(f"{name}={size}: must be a multiple of {in_parts}")
