"""Builds what a configuration describes: network, schedules and optimizer, and the compiled steps."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from flax_resnets import own
from flax_resnets.augment.of_recipe import RecipeAugmentation
from flax_resnets.data.batches import Batch
from flax_resnets.errors import UserError
from flax_resnets.models.shapes import is_hashable
from flax_resnets.training.average import Average
from flax_resnets.training.compilation import quick_to_compile
from flax_resnets.training.config import FREE_ON_RESUME, Config
from flax_resnets.training.finetune import Plan, divided, phase_schedules, plan_of
from flax_resnets.training.loss import loss_function
from flax_resnets.training.network import DTYPES, taking
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.own_metric import check_metric
from flax_resnets.training.placement import weight_shardings
from flax_resnets.training.recalibration import StatisticsStep, make_statistics_step
from flax_resnets.training.state import TrainState, create_state, new_loss_scale, tree_digest
from flax_resnets.training.step import EvalStep, StepOutput, make_eval_step, make_train_step
from flax_resnets.training.timeline import Timeline


class CreateState(Protocol):
    """The type of `Steps.create_state`."""

    def __call__(self, pretrained: Mapping[str, Any] | None = None) -> TrainState:
        """The state before the first step."""
        ...


class Steps(NamedTuple):
    """The functions that a run calls on its mesh. They can also be compiled for a mesh that is not here.

    Attributes:
        create_state: makes the state before the first step, from random weights or from the variables that it is given;
            see `flax_resnets.training.state.create_state`.
        abstract_state: shapes, dtypes and placement of that state.
        train_step_at: the training step for an image size in pixels, see `make_train_step`; the same function for the
            same size.
        eval_step: see `make_eval_step`.
        statistics_step_at: the statistics step for an image size in pixels, see `make_statistics_step`.
        plan: which modules train.
        head_alone: the same functions for the first `freeze_epochs` epochs, in which only the head trains; None if
            there are no such epochs. Their states are alike.
        carried_over: makes of the state of another configuration, of the same network, the state from which a run goes
            on under this one; see `carry_over`.
    """

    create_state: CreateState
    abstract_state: TrainState
    train_step_at: Callable[[int], Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]]
    eval_step: EvalStep
    statistics_step_at: Callable[[int], StatisticsStep]
    carried_over: Callable[[TrainState, bool], tuple[TrainState, bool]]
    plan: Plan = Plan()
    head_alone: "Steps | None" = None

    def in_epoch(self, epoch: int, config: Config) -> "Steps":
        """The functions for an epoch, counted from 1."""
        return self.head_alone if self.head_alone and epoch <= config.freeze_epochs else self


def build_steps(
    config: Config,
    model: nn.Module,
    mesh: Mesh,
    channels: int,
    timeline: Timeline,
    begin: int = 0,
) -> Steps:
    """Builds the network's schedules, optimizer, initial state and compiled steps.

    A program that trains several times keeps the last four results. A run that goes on then has its compiled steps at
    once. Not kept is what uses a recipe's own functions: they may call what a notebook has defined anew.

    Args:
        config: the run.
        model: as `make_model` returns it.
        mesh: as `make_mesh` returns it; its devices need not be here.
        channels: of the images.
        timeline: of the run.
        begin: number of steps before the first one under this configuration; not 0 if the run is amended.

    Raises:
        UserError: the network does not take images of this shape, or of one of the sizes in `progressive`.
    """
    build = _kept
    if any(own.is_named(value) for value in vars(config).values()) or not is_hashable(model):
        build = _kept.__wrapped__
    return build(dataclasses.replace(config, **_OF_NO_EFFECT), model, mesh, channels, timeline, begin)


# The values that stand for any other of the fields that no step depends on.
_OF_NO_EFFECT = {
    field.name: field.default
    for field in dataclasses.fields(Config)
    if field.name in FREE_ON_RESUME and field.name != "weight_shards"
}


@lru_cache(maxsize=4)
def _kept(config: Config, model: nn.Module, mesh: Mesh, channels: int, timeline: Timeline, begin: int) -> Steps:
    """See `build_steps`."""
    steps = timeline.end_of(config.epochs) - begin
    epoch, position = timeline.place(begin)
    plan = plan_of(config, model, (config.image_size, config.image_size, channels))
    past = epoch + position / timeline.steps_per_epoch
    first, second = phase_schedules(config, steps, timeline.steps_per_epoch, past)
    optimizer = make_optimizer(config, *second, plan.groups)
    create, abstract_state = initial_state(model, optimizer, config, mesh, channels, plan.frozen)
    if own.is_named(config.optimizer):
        _check_own_optimizer(config, optimizer, abstract_state, plan.frozen)
    mix_until = None
    if config.mix_off_epoch is not None:
        mix_until = max(0, timeline.end_of(min(config.mix_off_epoch, config.epochs)))

    eval_step = make_eval_step(model, config, mesh)

    def phase(optimizer: optax.GradientTransformation, waiting: Collection[str]) -> Steps:
        @cache
        def train_step_at(size: int) -> Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]:
            return make_train_step(
                *(model, optimizer, config, mesh),
                image_size=size,
                mix_until=mix_until,
                frozen=plan.frozen,
                waiting=waiting,
                norms_rest=plan.norms_rest,
            )

        @cache
        def statistics_step_at(size: int) -> StatisticsStep:
            at_rest = {*plan.frozen, *waiting} if plan.norms_rest else ()
            return make_statistics_step(model, config, mesh, image_size=size, at_rest=at_rest)

        return Steps(create, abstract_state, train_step_at, eval_step, statistics_step_at, carried_over, plan)

    def carried_over(state: TrainState, same_optimizer: bool) -> tuple[TrainState, bool]:
        return carry_over(state, abstract_state, optimizer, same_optimizer, plan.frozen)

    whole = phase(optimizer, ())
    if not plan.waiting:
        return whole
    alone = make_optimizer(config, *first, plan.groups, plan.waiting)
    return whole._replace(head_alone=phase(alone, plan.waiting))


def check_own_functions(config: Config, num_classes: int, channels: int, multilabel: bool = False) -> None:
    """Raises UserError if a recipe's own loss, metric or augmentation fails or returns something else than it must.

    Args:
        config: the run.
        num_classes: number of the network's outputs.
        channels: of the images.
        multilabel: whether an image may have any number of classes.
    """
    check_metric(config, num_classes, multilabel)
    if own.is_named(config.loss):
        logits = jax.ShapeDtypeStruct((config.batch_size, num_classes), jnp.float32)
        jax.eval_shape(loss_function(str(config.loss)), logits, logits)
    if config.augmentation is not None:
        shape = config.batch_size, config.image_size, config.image_size, channels
        images = jax.ShapeDtypeStruct(shape, DTYPES[config.precision])
        jax.eval_shape(partial(RecipeAugmentation.augment, config, size=config.image_size), jax.random.key(0), images)


def _check_own_optimizer(
    config: Config, optimizer: optax.GradientTransformation, state: TrainState, frozen: Collection[str]
) -> None:
    """Raises UserError if a recipe's own optimizer cannot update this state."""
    moving, _ = divided(state.params, frozen)
    updates, after = jax.eval_shape(optimizer.update, moving, state.opt_state, moving)
    with own.blamed("optimizer", str(config.optimizer)):
        optax.tree.get(after, "hyperparams")  # there is one, unless the function injects some of its own
    for what, new, old in (("updates", updates, moving), ("a state", after, state.opt_state)):
        if jax.tree.structure(new) != jax.tree.structure(old) or not have_same_shapes(new, old):
            raise UserError(
                f"optimizer={config.optimizer}: its update returns {what} of other shapes than it was given"
            )


def carry_over(
    state: TrainState,
    like: TrainState,
    optimizer: optax.GradientTransformation,
    same_optimizer: bool,
    frozen: Collection[str] = (),
) -> tuple[TrainState, bool]:
    """The state from which a run goes on under a changed configuration.

    Weights, running statistics and counts are those of the old state. The schedules begin anew. The optimizer keeps its
    moments if it is the same one, with moments of the same shapes. An average of the weights that is new begins with
    the weights.

    Args:
        state: of the old configuration.
        like: structure, shapes, dtypes and placement of the new one.
        optimizer: of the new configuration.
        same_optimizer: whether the old one's was of the same name.
        frozen: modules that never train under the new configuration.

    Returns:
        The state, and whether the optimizer keeps its moments.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, like)
    old, new = _without_clipping(state.opt_state), _without_clipping(like.opt_state)
    kept = same_optimizer and jax.tree.structure(old) == jax.tree.structure(new) and have_same_shapes(old, new)
    if kept:
        opt_state = _with_new_schedules(old)
        if new is not like.opt_state:
            opt_state = (*cast(Any, like.opt_state)[:-1], opt_state)
    else:
        moving, _ = divided(state.params, frozen)
        opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(moving)
    ema = state.ema
    if like.ema is None or ema is None:
        # Copies: a donated state must not contain the same buffer twice.
        ema = None if like.ema is None else jax.tree.map(jnp.copy, Average(state.params, state.batch_stats))
    loss_scale = state.loss_scale
    if like.loss_scale is None or loss_scale is None:
        loss_scale = None if like.loss_scale is None else new_loss_scale()
    carried = state.replace(opt_state=opt_state, ema=ema, loss_scale=loss_scale)
    return jax.tree.map(jax.device_put, carried, shardings), kept


def _has_schedules(part: Any) -> bool:
    return hasattr(part, "hyperparams_states")  # the state of `optax.inject_hyperparams`


def _without_clipping(opt_state: Any) -> Any:
    """The optimizer's state without that of `clip_norm`, which is empty and comes first."""
    return opt_state if _has_schedules(opt_state) else opt_state[-1]


def _with_new_schedules(opt_state: optax.OptState) -> optax.OptState:
    """The optimizer's state with the schedules at their first step.

    The optimizers' own counts, by which they correct the bias of young moments, stay.
    """

    def anew(part: Any) -> Any:
        if not _has_schedules(part):
            return part
        counts = jax.tree.map(jnp.zeros_like, (part.count, part.hyperparams_states))
        return part._replace(count=counts[0], hyperparams_states=counts[1])

    return jax.tree.map(anew, opt_state, is_leaf=_has_schedules)


def initial_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: Config,
    mesh: Mesh,
    channels: int,
    frozen: Collection[str] = (),
) -> tuple[CreateState, TrainState]:
    """A function that makes the state before the first step; and that state's shapes, dtypes and placement.

    Args:
        model: the network.
        optimizer: as `make_optimizer` returns it.
        config: the run.
        mesh: as `make_mesh` returns it; its devices need not be here.
        channels: of the images.
        frozen: modules that never train.

    Raises:
        UserError: the network does not take images of this shape, or of one of the sizes in `progressive`.
    """

    def new_state(size: int, pretrained: Mapping[str, Any] | None = None, draw: Any = 0) -> TrainState:
        return create_state(
            model,
            optimizer,
            (size, size, channels),
            config.seed,
            scale_loss=config.precision == "float16",
            ema=config.ema_decay is not None,
            pretrained=pretrained,
            draw=draw,
            frozen=frozen,
        )

    abstract_state = _abstract(lambda: new_state(config.image_size), config, config.image_size, channels)
    shardings = weight_shardings(abstract_state, mesh)
    jitted = jax.jit(
        lambda pretrained, draw: new_state(config.image_size, pretrained, draw),
        out_shardings=shardings,
        compiler_options=quick_to_compile(mesh),
    )
    abstract_state = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract_state,
        shardings,
    )
    for _, size in config.progressive:
        if not have_same_shapes(_abstract(lambda size=size: new_state(size), config, size, channels), abstract_state):
            raise UserError(
                f"progressive: model={config.model!r} has other parameters for images of {size} px than of "
                f"{config.image_size}; it takes one size only"
            )

    def create(pretrained: Mapping[str, Any] | None = None) -> TrainState:
        # As numpy arrays they may be placed anywhere, also on a mesh of several processes.
        given = jax.tree.map(np.asarray, pretrained)
        return jitted(given, np.uint32(int(tree_digest(given)[:8], 16)))

    return create, abstract_state


def _abstract(create: Callable[[], TrainState], config: Config, size: int, channels: int) -> TrainState:
    with taking(config, (size, size, channels)):
        return jax.eval_shape(create)


def have_same_shapes(a: Any, b: Any) -> bool:
    """Whether two trees have the same structure, and leaves of the same shapes."""
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
