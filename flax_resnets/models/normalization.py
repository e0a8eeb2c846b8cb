"""Batch normalisation: over the whole batch, over each device's part of it, or over ghost batches."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.typing import Dtype
from jax.sharding import NamedSharding, PartitionSpec

from flax_resnets.models.layers import at_least_float32

EPSILON = 1e-5
"""The number that batch normalisation adds to the variance; torch's default."""


def ghost_size(batch_norm: str) -> int | None:
    """The number of images that share statistics: K for `ghost:K`, None for `global`, `device` and `folded`.

    Raises:
        ValueError: `batch_norm` is none of these.

    Example:
        >>> ghost_size("ghost:32")
        32
    """
    kind, _, size = batch_norm.partition(":") if isinstance(batch_norm, str) else ("", "", "")
    if kind == "ghost" and size.isascii() and size.isdecimal() and len(size) < 10 and int(size) > 0:
        return int(size)
    if batch_norm in ("global", "device", "folded"):
        return None
    raise ValueError(
        f"batch_norm={batch_norm!r}: must be 'global', 'device' or 'ghost:K' with K images, such as ghost:32"
    )


# Traced once for a shape, see `convolve`.
@partial(jax.jit, static_argnames=("epsilon", "axis_name"), inline=True)
def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    statistics: tuple[jax.Array, jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The formula of batch normalisation: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.

    Args:
        x: `(G, N, ..., C)`: G batches of N images; each batch has its own statistics.
        scale: γ, `(C,)`.
        bias: β, `(C,)`.
        epsilon: added to the variance.
        statistics: mean and variance, each `(C,)`, to normalise by, as in evaluation; None to compute them from x.
        axis_name: a mapped axis over whose devices the statistics are averaged.

    Returns:
        x normalised, and the mean and the biased variance that were used: `(G, C)`, or those of `statistics`. All
            float32.

    Example:
        >>> x = jnp.array([[[1.0], [3.0]]])  # one batch of two images of one number
        >>> y, mean, var = batch_norm(x, jnp.ones(1), jnp.zeros(1), epsilon=0.0)
        >>> y.ravel().tolist(), mean.item(), var.item()
        ([-1.0, 1.0], 2.0, 1.0)
    """
    x = x.astype(jnp.float32)
    if statistics is None:
        axes = tuple(range(1, x.ndim - 1))
        # Both moments in one array, so that each layer needs one all-reduce, not two.
        moments = jnp.stack([x.mean(axes), jnp.square(x).mean(axes)])
        if axis_name is not None:
            moments = jax.lax.pmean(moments, axis_name)
        mean, mean_of_squares = moments
        # E[x²] - E[x]² reads x once, not twice. Rounding can make it negative.
        var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
        to_x = (-1, *(1 for _ in axes), x.shape[-1])
        statistics = mean.reshape(to_x), var.reshape(to_x)
    else:
        mean, var = statistics
    # As one slope and one offset for each channel. Their gradients are the only two sums over x in the backward pass.
    slope = jax.lax.rsqrt(statistics[1] + epsilon) * scale
    return x * slope + (bias - statistics[0] * slope), mean, var


class BatchNorm(nn.Module):
    """Batch normalisation. `batch_norm` says over which images the statistics are computed.

    Parameters and statistics are float32, whatever `dtype` is. The running variance is the unbiased one (divided by n -
    1), as in torch, so that the same weights evaluate in the same way here and there. `flax.linen.BatchNorm` keeps the
    biased variance; `unbiased=False` gives that. `momentum` is defined as in Flax: the share of the old value that
    stays, which is 1 minus torch's momentum.

    Args of the call:
        x: `(N, ..., C)`, any float dtype.
        train: normalise by this batch's statistics and update the running statistics; the `batch_stats` collection must
            then be mutable. Otherwise normalise by the running statistics, which stay as they are.

    Returns:
        x normalised, in `dtype`.

    Raises:
        ValueError: N is not a multiple of K, or a folded network is called with `train=True`.

    Attributes:
        batch_norm: `global`: over all images of the call, and over the devices of `axis_name` if that is given. Under
            plain `jax.jit` a call gets the whole batch, however it is sharded.
            `device`: over the images of the call, never across devices. This differs from `global` inside
            `jax.shard_map`, where a call gets one device's part of the batch.
            `ghost:K`: over K consecutive images at a time (Hoffer et al. 2017, arXiv:1705.08741, algorithm 1).
            `folded`: no statistics; only β is added, see `flax_resnets.fold_batch_norm`. For inference only.
        axis_name: a mapped axis to average over, as in `flax.linen.BatchNorm`.
        momentum: share of the old running statistics that an update keeps.
        epsilon: added to the variance.
        unbiased: whether the running variance is the unbiased one.
        frozen: normalise by the running statistics in training too, and do not update them, as in fine-tuning on small
            batches. γ and β stay trainable.
        scale_init: initializer of γ; zeros for the last norm of a residual branch.
        bias_init: initializer of β.
        dtype: of the result.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> variables = BatchNorm().init(jax.random.key(0), jnp.ones((8, 4, 4, 3)))
        >>> sorted(variables["params"]), sorted(variables["batch_stats"])
        (['bias', 'scale'], ['mean', 'var'])
    """

    batch_norm: str = "global"
    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = EPSILON
    unbiased: bool = True
    frozen: bool = False
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros_init()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalises x; shapes as in the class."""
        features = (x.shape[-1],)
        bias = self.param("bias", self.bias_init, features, jnp.float32)
        if self.batch_norm == "folded":
            if train:
                raise ValueError(
                    "batch_norm='folded': has no statistics, so it cannot be trained; train the network it came from"
                )
            wide = at_least_float32(x)
            return (wide + bias.astype(wide.dtype)).astype(self.dtype)
        scale = self.param("scale", self.scale_init, features, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, features, jnp.float32)

        if not train or self.frozen:
            y, _, _ = batch_norm(x, scale, bias, self.epsilon, (running_mean.value, running_var.value))
            return y.astype(self.dtype)

        size = ghost_size(self.batch_norm)
        if size is not None and x.shape[0] % size != 0:
            raise ValueError(f"batch_norm={self.batch_norm!r}: a batch of {x.shape[0]} is not a multiple of {size}")
        axis_name = self.axis_name if self.batch_norm == "global" and not self.is_initializing() else None

        def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            groups = x[None] if size is None else rearrange(x, "(ghost n) ... -> ghost n ...", n=size)
            y, mean, var = batch_norm(groups, scale, bias, self.epsilon, axis_name=axis_name)
            return y.reshape(x.shape), mean, var

        y, mean, var = (normalise if size is None else _sharded_by_compiler(normalise))(x, scale, bias)
        if not self.is_initializing():
            count = math.prod((size or x.shape[0], *x.shape[1:-1])) * (jax.lax.axis_size(axis_name) if axis_name else 1)
            running_mean.value = self._update(running_mean.value, mean.mean(0))
            running_var.value = self._update(running_var.value, var.mean(0) * self._correction(count))
        return y.astype(self.dtype)

    def _correction(self, count: Any) -> Any:
        """The factor from the biased variance of `count` numbers to the one that is kept."""
        if not self.unbiased:
            return 1.0
        if isinstance(count, int):
            return count / max(count - 1, 1)
        count = jnp.asarray(count).astype(jnp.float32)  # `count` is symbolic under `jax.export`
        return count / jnp.maximum(count - 1, 1)

    def _update(self, old: jax.Array, new: jax.Array) -> jax.Array:
        return self.momentum * old + (1 - self.momentum) * new


GROUPS = 32
"""The number of groups of `GroupNorm`, that of the paper and of timm."""


class GroupNorm(nn.Module):
    """Group normalisation: Wu and He 2018, arXiv:1803.08494, equation 7, with 32 groups of channels.

    Mean and variance are those of one image's group, in training and in evaluation, so there are no running statistics.

    Args of the call:
        x: `(N, ..., C)`, any float dtype.
        train: changes nothing.

    Returns:
        x normalised, in `dtype`.

    Raises:
        ValueError: C is not a multiple of 32.

    Attributes:
        epsilon: added to the variance.
        scale_init: initializer of γ.
        dtype: of the result.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> list(GroupNorm().init(jax.random.key(0), jnp.ones((1, 4, 4, 64))))
        ['params']
    """

    epsilon: float = EPSILON
    scale_init: nn.initializers.Initializer = nn.initializers.ones_init()
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Normalises x; shapes as in the class."""
        channels = x.shape[-1]
        if channels % GROUPS:
            raise ValueError(f"norm='group': {channels} channels are not a multiple of {GROUPS} groups")
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,), jnp.float32)
        scale = self.param("scale", self.scale_init, (channels,), jnp.float32)
        groups = x.astype(jnp.float32).reshape(*x.shape[:-1], GROUPS, channels // GROUPS)
        axes = (*range(1, x.ndim - 1), x.ndim)
        centred = groups - groups.mean(axes, keepdims=True)
        y = centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + self.epsilon)
        return (y.reshape(x.shape) * scale + bias).astype(self.dtype)


def no_norm(**_: Any) -> Callable[[jax.Array, bool], jax.Array]:
    """In the place of a norm: x as it is."""
    return lambda x, train: x


def _sharded_by_compiler(function: Callable[..., tuple[jax.Array, ...]]) -> Callable[..., tuple[jax.Array, ...]]:
    """Lets the compiler choose the sharding inside the function, where the axes of the mesh are Explicit.

    A ghost batch may end within a device's part of the batch, or span several devices. JAX cannot express that sharding
    for Explicit axes and raises an error. The function's first result gets the sharding of its first argument; the
    other results are replicated.
    """

    def on_auto_axes(x: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
        sharding = jax.typeof(x).sharding
        if sharding.spec[0] is None:  # replicated, or on Auto axes already
            return function(x, *others)
        whole = NamedSharding(sharding.mesh, PartitionSpec())
        by_compiler: Callable[..., Any] = jax.sharding.auto_axes(function, out_sharding=(sharding, whole, whole))
        return by_compiler(x, *others)

    return on_auto_axes
