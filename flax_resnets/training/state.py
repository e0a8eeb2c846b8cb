"""The state that a run carries from step to step, and the digest that shows whether two states are equal."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from flax.training.dynamic_scale import DynamicScale

from flax_resnets.training.average import Average
from flax_resnets.training.finetune import divided
from flax_resnets.training.placement import on_host


class TrainState(struct.PyTreeNode):
    """The state of a run at one step. All of it is saved, so that a resumed run computes the same bits.

    Attributes:
        step: int32, steps taken, including skipped ones; the next step's images and random draws depend on it.
        params: the network's parameters, float32.
        batch_stats: its running statistics, float32.
        opt_state: the optimizer's state.
        loss_scale: dynamic loss scale for float16; None in other precisions.
        loss_sum: float32, sum of the finite losses of the epoch so far.
        loss_count: int32, number of these losses.
        skipped: int32, steps skipped in the whole run.
        skipped_in_a_row: int32, number of consecutive skipped steps up to this one.
        ema: EMA of the weights; None if it is not kept.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    loss_scale: DynamicScale | None
    loss_sum: jax.Array
    loss_count: jax.Array
    skipped: jax.Array
    skipped_in_a_row: jax.Array
    ema: Average | None = None


def create_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    image_shape: tuple[int, int, int],
    seed: int,
    *,
    scale_loss: bool = False,
    ema: bool = False,
    pretrained: Mapping[str, Any] | None = None,
    draw: jax.Array | int = 0,
    frozen: Collection[str] = (),
) -> TrainState:
    """The state before the first step.

    Args:
        model: the network.
        optimizer: the optimizer that will train it.
        image_shape: `(H, W, C)` of the images.
        seed: for the initial parameters.
        scale_loss: whether to add float16's dynamic loss scale.
        ema: whether to keep an EMA of the weights.
        pretrained: `{"params": ..., "batch_stats": ...}` to begin with; modules that they lack, such as the head, have
            their initial weights. None for initial weights alone.
        draw: number that, with the seed, decides the initial weights where there is `pretrained`: if that was trained
            with the same seed, its own head began with the numbers of the seed alone.
        frozen: modules that never train, for which the optimizer has no state.

    Returns:
        The state, on the default device.
    """
    key = jax.random.key(seed)
    if pretrained is not None:
        key = jax.random.fold_in(key, draw)
    variables: Any = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    params, batch_stats = (
        {**variables.get(part, {}), **(pretrained or {}).get(part, {})} for part in ("params", "batch_stats")
    )
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(divided(params, frozen)[0]),
        loss_scale=new_loss_scale() if scale_loss else None,
        loss_sum=jnp.float32(0),
        loss_count=jnp.int32(0),
        skipped=jnp.int32(0),
        skipped_in_a_row=jnp.int32(0),
        # Copies: a donated state must not contain the same buffer twice.
        ema=jax.tree.map(jnp.copy, Average(params, batch_stats)) if ema else None,
    )


def new_loss_scale() -> DynamicScale:
    """float16's dynamic loss scale before the first step."""
    return DynamicScale().replace(fin_steps=jnp.int32(0), scale=jnp.float32(2**16))


def state_digest(state: TrainState) -> str:
    """sha256 in hex over every leaf of params, batch_stats and opt_state: path, dtype, shape and bytes."""
    return tree_digest({"params": state.params, "batch_stats": state.batch_stats, "opt_state": state.opt_state})


def tree_digest(tree: Any) -> str:
    """sha256 in hex over every leaf of a pytree of arrays, in the order of its paths.

    Example:
        >>> tree_digest({"a": jnp.zeros(2)}) == tree_digest({"a": jnp.zeros(2)})
        True
        >>> tree_digest({"a": jnp.zeros(2)}) == tree_digest({"a": jnp.ones(2)})
        False
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(on_host(tree)):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
