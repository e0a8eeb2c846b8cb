"""The compiled training step and the compiled evaluation step."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from flax import linen as nn
from flax.training.dynamic_scale import DynamicScale
from jax.sharding import Mesh

from flax_resnets import augment
from flax_resnets.data import labels
from flax_resnets.data.batches import Batch
from flax_resnets.training.average import Average, averaged
from flax_resnets.training.compilation import for_speed
from flax_resnets.training.config import Config
from flax_resnets.training.eval_sums import EvalScores, EvalSums, eval_sums
from flax_resnets.training.finetune import divided, with_norms_at_rest
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.loss import image_weights, loss_function
from flax_resnets.training.multilabel import multilabel_figures
from flax_resnets.training.network import DTYPES
from flax_resnets.training.own_metric import metric_function
from flax_resnets.training.placement import (
    batch_sharding,
    per_device,
    replicated,
    split_weights,
    splits_weights,
    to_devices,
    whole_weights,
)
from flax_resnets.training.state import TrainState


class StepOutput(NamedTuple):
    """What a training step returns besides the state.

    Attributes:
        loss: float32, of this batch.
        learning_rate: float32, of this update.
        momentum: float32, of this update.
        skipped_in_a_row: int32, number of consecutive skipped steps up to this one; 0 if this step was not skipped.
    """

    loss: jax.Array
    learning_rate: jax.Array
    momentum: jax.Array
    skipped_in_a_row: jax.Array


class Evaluation(NamedTuple):
    """Figures over a whole split; see `EpochMetrics` for what they mean.

    Some are None: `top5_accuracy` if an image may have any number of classes, otherwise the two after it; `metric` if
    the recipe has none of its own; `confusion`, int64 images by class and predicted class, of more than 60 classes.
    """

    loss: float
    accuracy: float
    top5_accuracy: float | None = None
    mean_average_precision: float | None = None
    f1: float | None = None
    metric: float | None = None
    confusion: np.ndarray | None = None

    def as_row(self, prefix: str = "") -> dict[str, Any]:
        """The figures by the names that they have in `EpochMetrics`, which begin with the prefix."""
        names = {"loss": "valid_loss"}
        return {
            prefix + names.get(name, name): figure for name, figure in self._asdict().items() if name != "confusion"
        }


def make_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    config: Config,
    mesh: Mesh,
    *,
    image_size: int | None = None,
    mix_until: int | None = None,
    frozen: Collection[str] = (),
    waiting: Collection[str] = (),
    norms_rest: bool = True,
) -> Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, StepOutput]]:
    """Compiles the training step: augmentation, forward pass, backward pass and update in one program.

    If the loss or a gradient is not finite, the step counts as skipped: parameters, running statistics and optimizer
    state stay as they were. All random draws depend on `(config.seed, state.step)` alone.

    Args:
        model: the network, with its dtype, batch_norm and num_classes set.
        optimizer: as `make_optimizer` returns it.
        config: the run's configuration.
        mesh: as `make_mesh` returns it.
        image_size: side of the images that the network sees, in pixels; None for `config.image_size`.
        mix_until: first step without mixup and CutMix; None to use them in all steps.
        frozen: modules of the network that never change. The optimizer knows nothing of them.
        waiting: modules that these steps do not change. The optimizer has a state for them, which rests.
        norms_rest: whether the norms in both use their running statistics, which then do not change either.

    Returns:
        A function from state and batch to the next state and the step's figures. The state passed in is donated: it
        cannot be used afterwards.
    """
    class_weights = config.class_weights
    if class_weights == "balanced":
        raise ValueError("class_weights is 'balanced', for which only the data has numbers: see `completed`")
    still = {*frozen, *waiting}
    at_rest = still if norms_rest else ()
    gradients = partial(_gradients, with_norms_at_rest(model, at_rest), str(config.loss), config.accumulate)
    if config.batch_norm == "device":
        gradients = per_device(gradients, mesh, split=(False, False, False, False, True, True, True, False))

    def step(state: TrainState, batch: Batch[jax.Array]) -> tuple[TrainState, StepOutput]:
        key = step_key(config, state.step)
        mixing = True if mix_until is None else state.step < mix_until
        images, targets = network_inputs(key, batch, config, cast(Any, model).num_classes, image_size, mixing)
        weights = None if class_weights is None else image_weights(targets, class_weights)
        targets = optax.smooth_labels(targets, config.label_smoothing)
        trained, others = divided(whole_weights(state.params, mesh), still)
        loss, batch_stats, grads, loss_scale = gradients(
            trained, others, state.batch_stats, state.loss_scale, images, targets, weights, dropout_key(key)
        )
        grads = split_weights(grads, mesh)
        finite = jnp.isfinite(loss) & jnp.isfinite(optax.tree.norm(grads))
        grads |= jax.tree.map(jnp.zeros_like, divided(state.params, waiting)[1])  # which the optimizer ignores
        updates, opt_state = optimizer.update(grads, state.opt_state, divided(state.params, frozen)[0])
        trained, others = divided(state.params, still)
        # An update of zero would change the sign of a zero.
        moved = optax.apply_updates(trained, divided(cast(Any, updates), still)[0])
        learned = {**others, **cast(Any, moved)}, batch_stats, opt_state
        kept = state.params, state.batch_stats, state.opt_state
        params, batch_stats, opt_state = jax.tree.map(partial(jnp.where, finite), learned, kept)
        skipped_in_a_row = jnp.where(finite, 0, state.skipped_in_a_row + 1)
        state = TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            loss_scale=loss_scale,
            loss_sum=state.loss_sum + jnp.where(finite, loss, 0.0),
            loss_count=state.loss_count + finite,
            skipped=state.skipped + ~finite,
            skipped_in_a_row=skipped_in_a_row,
            ema=averaged(state.ema, Average(params, batch_stats), state.step, config, still, at_rest),
        )
        state = split_weights(state, mesh)
        scheduled = optax.tree.get(opt_state, "hyperparams")  # the entry of `inject_hyperparams`
        return state, StepOutput(loss, scheduled["learning_rate"], scheduled["momentum"], skipped_in_a_row)

    if splits_weights(mesh):  # the state keeps the placement of `create_state`
        return jax.jit(step, donate_argnums=0, compiler_options=for_speed(mesh))
    # The placement of every leaf is given, so that a restored state and a fresh one run the same program.
    one, split = replicated(mesh), batch_sharding(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(one, split),
        out_shardings=(one, one),
        compiler_options=for_speed(mesh),
    )


def step_key(config: Config, step: jax.Array) -> jax.Array:
    """The PRNG key of a training step: all its draws derive from this key."""
    return jax.random.fold_in(jax.random.key(config.seed), step)


def dropout_key(step_key: jax.Array) -> jax.Array:
    """The PRNG key for dropout in a step, derived from the step's key."""
    # Augmentation folds in 0, 1 (as splitting a key in two does) and numbers from 3 on.
    return jax.random.fold_in(step_key, 2)


_MIX = 8  # the first number that augmentation does not use


def network_inputs(
    key: jax.Array,
    batch: Batch[jax.Array],
    config: Config,
    num_classes: int,
    image_size: int | None = None,
    mixing: jax.Array | bool = True,
) -> tuple[jax.Array, jax.Array]:
    """The images and targets of a training step: images after augmentation, targets before label smoothing.

    Args:
        key: as `step_key` returns it.
        batch: images as they are stored.
        config: the run's configuration.
        num_classes: number of classes in the targets.
        image_size: see `make_train_step`.
        mixing: whether mixup and CutMix are on, if the configuration has them.

    Returns:
        Normalised images `(N, image_size, image_size, C)` in the run's precision, and float32 `(N, num_classes)`.
    """
    size = image_size or config.image_size
    images = augment.for_training(key, batch.images, config, size, DTYPES[config.precision])
    targets = labels.targets(batch.labels, num_classes)
    return augment.mix(jax.random.fold_in(key, _MIX), images, targets, config, mixing)


def _gradients(
    apply: Callable[..., Any],
    loss_name: str,
    parts: int,
    params: Any,
    others: Any,
    batch_stats: Any,
    loss_scale: DynamicScale | None,
    images: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None,
    dropout_key: jax.Array,
    axis_names: tuple[str, ...] | None = None,
) -> tuple[jax.Array, Any, Any, DynamicScale | None]:
    """Loss, new statistics, gradients by `params` alone, loss scale; averaged over `axis_names`, if given."""
    loss_of = loss_function(loss_name)

    def loss_and_stats(
        params: Any,
        batch_stats: Any,
        images: jax.Array,
        targets: jax.Array,
        weights: jax.Array | None,
        key: jax.Array,
    ) -> tuple[jax.Array, Any]:
        variables = {"params": {**params, **others}, "batch_stats": batch_stats}
        logits, updates = apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": key})
        losses = loss_of(logits, targets)
        if weights is not None:
            losses = weights * losses
        return losses.mean(), updates.get("batch_stats", {})

    if axis_names is not None:
        # Mark them as values that vary over devices. Otherwise autodiff would sum the gradients over devices in an
        # all-reduce of its own, besides the one below.
        params, others, batch_stats = jax.lax.pcast((params, others, batch_stats), axis_names, to="varying")
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_names))
    inputs = batch_stats, images, targets, weights, dropout_key
    if loss_scale is not None:
        names: Any = axis_names  # Flax annotates one name; jax.lax.pmean, which it calls, takes several
        differentiate = loss_scale.value_and_grad(loss_and_stats, has_aux=True, axis_name=names)
        loss_scale, _, (loss, stats), grads = differentiate(params, *inputs)
        if axis_names is not None:
            loss, stats = jax.lax.pmean((loss, stats), axis_names)
        return loss, stats, grads, loss_scale
    differentiate = jax.value_and_grad(loss_and_stats, has_aux=True)
    if parts == 1:
        (loss, stats), grads = differentiate(params, *inputs)
    else:
        loss, stats, grads = _in_parts(differentiate, parts, params, *inputs)
    if axis_names is not None:
        loss, stats, grads = jax.lax.pmean((loss, stats, grads), axis_names)
    return loss, stats, grads, loss_scale


def _in_parts(
    differentiate: Callable[..., Any],
    parts: int,
    params: Any,
    batch_stats: Any,
    images: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None,
    key: jax.Array,
) -> tuple[jax.Array, Any, Any]:
    """Computes a batch in parts, one after the other: mean loss, last running statistics, mean gradients."""

    def part(carry: Any, inputs: Any) -> tuple[Any, None]:
        batch_stats, sums = carry
        part_of_batch, number = inputs
        (loss, batch_stats), grads = differentiate(params, batch_stats, *part_of_batch, jax.random.fold_in(key, number))
        return (batch_stats, jax.tree.map(jnp.add, sums, (loss, grads))), None

    # A part is every parts-th image, so that each device already holds its share of every part.
    batch = jax.tree.map(
        lambda array: rearrange(array, "(n part) ... -> part n ...", part=parts), (images, targets, weights)
    )
    # Multiplied by 0, so that they vary over devices as the parameters do.
    zeros = jax.tree.map(lambda leaf: leaf * 0, params)
    start = batch_stats, ((targets * 0).sum(), zeros)
    (batch_stats, sums), _ = jax.lax.scan(part, start, (batch, jnp.arange(parts)))
    loss, grads = jax.tree.map(lambda total: total / parts, sums)
    return loss, batch_stats, grads


EvalStep = Callable[[Any, Any, Batch[jax.Array]], EvalSums | EvalScores]


def make_eval_step(model: nn.Module, config: Config, mesh: Mesh) -> EvalStep:
    """Compiles the evaluation of one batch, with running statistics; for the arguments see `make_train_step`.

    Returns:
        A function from params, batch_stats and batch to the batch's `eval_sums`. Images with label −1 are not counted.
    """
    metric = metric_function(config)

    def step(params: Any, batch_stats: Any, batch: Batch[jax.Array]) -> EvalSums | EvalScores:
        variables = {"params": whole_weights(params, mesh), "batch_stats": batch_stats}

        def network(images: jax.Array) -> jax.Array:
            return cast(jax.Array, model.apply(variables, images, train=False))

        logits = augment.evaluated(network, batch.images, config, config.image_size)
        return eval_sums(logits, jnp.asarray(batch.labels), metric)

    one, split = replicated(mesh), batch_sharding(mesh)
    weights = None if splits_weights(mesh) else one  # None: as they are placed
    return jax.jit(step, in_shardings=(weights, one, split), out_shardings=one, compiler_options=for_speed(mesh))


def evaluate(
    eval_step: EvalStep,
    state: TrainState | Average,
    batches: Iterable[Batch[np.ndarray]],
    mesh: Mesh,
) -> Evaluation:
    """Figures over all images of the batches; independent of batch size and number of devices.

    Args:
        eval_step: as `make_eval_step` returns it.
        state: gives params and batch_stats: the run's state or its average.
        batches: as `eval_batches` returns them.
        mesh: as `make_mesh` returns it.
    """
    # The sums stay on the devices until the end, and are added up here in float64.
    sums = list(each_computed(eval_step(state.params, state.batch_stats, to_devices(batch, mesh)) for batch in batches))
    sums = jax.device_get(sums)

    def total(name: str) -> float:
        return sum(float(getattr(each, name)) for each in sums)

    if isinstance(sums[0], EvalScores):
        classes = np.concatenate([each.labels for each in sums])
        real = labels.is_real(classes)
        scores = np.concatenate([each.logits for each in sums])[real]
        images, figures = int(real.sum()), multilabel_figures(scores, classes[real])._asdict()
    else:
        images = total("images")
        figures: dict[str, Any] = {"accuracy": total("top1") / images, "top5_accuracy": total("top5") / images}
        if sums[0].confusion is not None:
            figures["confusion"] = np.sum([each.confusion for each in sums], 0, dtype=np.int64)
    metric = None if sums[0].metric is None else total("metric") / images
    return Evaluation(total("loss") / images, metric=metric, **figures)
