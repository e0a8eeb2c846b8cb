"""Recomputes running statistics for weights that no training step has used, such as an average over many steps."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from flax_resnets import augment
from flax_resnets.data.batches import Batch
from flax_resnets.models.normalization import BatchNorm
from flax_resnets.training.compilation import for_speed
from flax_resnets.training.config import Config
from flax_resnets.training.finetune import with_norms_at_rest
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.network import DTYPES
from flax_resnets.training.placement import batch_sharding, per_device, replicated, splits_weights, whole_weights
from flax_resnets.training.state import TrainState
from flax_resnets.training.step import dropout_key, step_key

StatisticsStep = Callable[[Any, Any, jax.Array, Batch[jax.Array]], Any]


def make_statistics_step(
    model: nn.Module, config: Config, mesh: Mesh, *, image_size: int | None = None, at_rest: Collection[str] = ()
) -> StatisticsStep:
    """Compiles the pass over one training batch that computes the batch's statistics and nothing else.

    Args:
        model: the network.
        config: the run.
        mesh: as `make_mesh` returns it.
        image_size: see `make_train_step`.
        at_rest: modules whose norms are frozen.

    Returns:
        A function of params, any batch_stats, the number of a training step and the batch of that step. It returns the
        statistics of the batch, structured like batch_stats. The images are augmented as in that step, but not mixed,
        since images are not mixed in evaluation either. Frozen norms return the statistics they were given.
    """
    statistics = partial(_statistics, with_norms_at_rest(model, at_rest))
    if config.batch_norm == "device":
        statistics = per_device(statistics, mesh, split=(False, False, True, False))

    def step(params: Any, batch_stats: Any, number: jax.Array, batch: Batch[jax.Array]) -> Any:
        key = step_key(config, number)
        size = image_size or config.image_size
        images = augment.for_training(key, batch.images, config, size, DTYPES[config.precision])
        return statistics(whole_weights(params, mesh), batch_stats, images, dropout_key(key))

    one, split = replicated(mesh), batch_sharding(mesh)
    weights = None if splits_weights(mesh) else one
    return jax.jit(step, in_shardings=(weights, one, one, split), out_shardings=one, compiler_options=for_speed(mesh))


def _statistics(
    apply: Callable[..., Any],
    params: Any,
    batch_stats: Any,
    images: jax.Array,
    dropout_key: jax.Array,
    axis_names: tuple[str, ...] | None = None,
) -> Any:
    """The statistics of the images in each norm, averaged over the devices of `axis_names`, if given."""
    if axis_names is not None:
        params, batch_stats = jax.lax.pcast((params, batch_stats), axis_names, to="varying")
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_names))
    variables = {"params": params, "batch_stats": batch_stats}
    _, updates = apply(variables, images, train=True, mutable=["batch_stats"], rngs={"dropout": dropout_key})
    # A norm returns momentum * old + (1 - momentum) * batch statistics: solve this for the batch statistics. A frozen
    # one returns the old ones, which that would round.
    kept = BatchNorm.momentum
    seen = jax.tree.map(
        lambda new, old: jnp.where(new == old, old, (new - kept * old) / (1 - kept)),
        updates.get("batch_stats", {}),
        batch_stats,
    )
    return seen if axis_names is None else jax.lax.pmean(seen, axis_names)


def recalibrate(
    statistics_step: StatisticsStep,
    state: TrainState,
    batches: Iterable[tuple[int, Batch[jax.Array]]],
) -> Any:
    """Running statistics for the averaged weights: the mean of the statistics of some training batches.

    This is what torch's `update_bn` does for stochastic weight averaging: Izmailov et al. 2018, arXiv:1803.05407,
    section 3.1.

    Args:
        statistics_step: as `make_statistics_step` returns it.
        state: with an average.
        batches: numbers of training steps, each with the batch of that step.

    Returns:
        Running statistics, structured like `state.batch_stats`.

    Raises:
        ValueError: the state keeps no average, or there are no batches.
    """
    if state.ema is None:
        raise ValueError("the state keeps no average: ema_decay is not set")
    params = state.ema.params
    started = (statistics_step(params, state.batch_stats, jnp.int32(number), batch) for number, batch in batches)
    each = list(each_computed(started))
    if not each:
        raise ValueError("no batches to take statistics from")
    return jax.tree.map(_mean, *each)


def _mean(*leaves: jax.Array) -> jax.Array:
    first = leaves[0]  # to it differences are added, so that the mean of equal numbers is not rounded
    return first + sum((leaf - first for leaf in leaves[1:]), start=jnp.zeros_like(first)) / len(leaves)
