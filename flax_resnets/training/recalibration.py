"""Running statistics taken anew, for weights that no training step ever normalised by: an average of many steps'."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from flax_resnets import augment
from flax_resnets.data.batches import Batch
from flax_resnets.models.layers import BatchNorm
from flax_resnets.training.compilation import for_speed
from flax_resnets.training.config import Config
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.network import DTYPES
from flax_resnets.training.placement import batch_sharding, replicated, splits_weights, whole_weights
from flax_resnets.training.state import TrainState
from flax_resnets.training.step import dropout_key, step_key

StatisticsStep = Callable[[Any, Any, jax.Array, Batch[jax.Array]], Any]


def make_statistics_step(
    model: nn.Module, config: Config, mesh: Mesh, *, image_size: int | None = None
) -> StatisticsStep:
    """The compiled pass of one training batch that looks at the batch's statistics alone.

    Args:
        model: the network.
        config: the run.
        mesh: as `make_mesh` gives it.
        image_size: as `make_train_step`'s.

    Returns:
        A function from params, any batch_stats, the training step's number and its batch to that batch's statistics,
        structured as batch_stats. The images are augmented as that step's were, but not mixed: evaluation's are not.
        Frozen norms give what they were given.
    """
    statistics = partial(_statistics, model)
    if config.batch_norm == "device":
        split_in_batches = batch_sharding(mesh).spec
        statistics = jax.shard_map(
            partial(statistics, axis_names=mesh.axis_names),
            mesh=mesh,
            in_specs=(P(), P(), split_in_batches, P()),
            out_specs=P(),
        )

    def step(params: Any, batch_stats: Any, number: jax.Array, batch: Batch[jax.Array]) -> Any:
        key = step_key(config, number)
        size = image_size or config.image_size
        images = augment.for_training(key, batch.images, config, size, DTYPES[config.precision])
        return statistics(whole_weights(params, mesh), batch_stats, images, dropout_key(key))

    one, split = replicated(mesh), batch_sharding(mesh)
    weights = None if splits_weights(mesh) else one
    return jax.jit(step, in_shardings=(weights, one, one, split), out_shardings=one, compiler_options=for_speed(mesh))


def _statistics(
    model: nn.Module,
    params: Any,
    batch_stats: Any,
    images: jax.Array,
    dropout_key: jax.Array,
    axis_names: tuple[str, ...] | None = None,
) -> Any:
    """What the norms see of the images; averaged over `axis_names` where each device sees its own share."""
    if axis_names is not None:
        params, batch_stats = jax.lax.pcast((params, batch_stats), axis_names, to="varying")
        dropout_key = jax.random.fold_in(dropout_key, jax.lax.axis_index(axis_names))
    _, updates = cast(
        tuple[jax.Array, Any],
        model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        ),
    )
    # A norm leaves momentum * old + (1 - momentum) * the batch's.
    kept = BatchNorm.momentum
    seen = jax.tree.map(lambda new, old: (new - kept * old) / (1 - kept), updates.get("batch_stats", {}), batch_stats)
    return seen if axis_names is None else jax.lax.pmean(seen, axis_names)


def recalibrate(
    statistics_step: StatisticsStep,
    state: TrainState,
    batches: Iterable[tuple[int, Batch[jax.Array]]],
) -> Any:
    """Statistics for the weights' average: the mean of those of some training batches.

    As torch's `update_bn` takes them for stochastic weight averaging: Izmailov et al. 2018, arXiv:1803.05407,
    section 3.1.

    Args:
        statistics_step: as `make_statistics_step` gives it.
        state: with an average.
        batches: numbers of training steps, and what those see.

    Returns:
        As `state.batch_stats`.

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
    return sum(leaves[1:], start=leaves[0]) / len(leaves)
