"""What the blocks are made of: convolution, batch normalisation, pooling, and the two families of initial weights.

All of it works on NHWC images. Padding is written out in pixels, as torch does it: XLA's `SAME` pads a stride-2
convolution on the other side, and weights trained with one do not fit the other.

Where a CPU is faster with other words for the same mathematics, `jax.lax.platform_dependent` chooses them when the
program is compiled for it; what GPUs and TPUs compile is what stands in the `default`, and so does every platform for
images of symbolic size (`jax.export`). Numbers agree to float32's rounding.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.typing import Dtype
from jax.sharding import NamedSharding, PartitionSpec

Initializer = Literal["torchvision", "fastai"]

# What torch calls kaiming_normal_: no truncation, and a gain of 2 for the half of the inputs that ReLU drops.
_KERNEL_INITS = {
    "torchvision": nn.initializers.variance_scaling(2.0, "fan_out", "normal"),
    "fastai": nn.initializers.variance_scaling(2.0, "fan_in", "normal"),
}


class Conv(nn.Module):
    """A convolution without bias, zero-padded so that stride 1 keeps the image's size.

    Args of the call:
        x: `(N, H, W, C)`, any float dtype.

    Returns:
        `(N, ceil(H / strides), ceil(W / strides), features)` in `dtype`.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, in pixels; odd.
        strides: step of the kernel, in pixels.
        dilation: distance between the kernel's taps, in pixels.
        groups: the channels are split into so many groups that do not see each other.
        initializer: `torchvision` (normal, fan out) or `fastai` (normal, fan in): He et al. 2015,
            arXiv:1502.01852, section 2.2; or a function of Flax's that draws the kernel.
        dtype: of the computation; parameters stay float32.
    """

    features: int
    kernel_size: int = 3
    strides: int = 1
    dilation: int = 1
    groups: int = 1
    initializer: Initializer | nn.initializers.Initializer = "torchvision"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolve; shapes as in the class."""
        pad = self.dilation * (self.kernel_size // 2)
        kernel_shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        init = _KERNEL_INITS[self.initializer] if isinstance(self.initializer, str) else self.initializer
        kernel = self.param("kernel", init, kernel_shape, jnp.float32)
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, pad, self.dilation, self.groups)


def convolve(
    x: jax.Array, kernel: jax.Array, strides: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> jax.Array:
    """A convolution: `(N, H, W, C)` by `(K, K, C / groups, F)` to `(N, H', W', F)`, with H' as torch's Conv2d has it.

    Args:
        x: images.
        kernel: of x's dtype.
        strides: step of the kernel, in pixels.
        padding: rows and columns of 0 on every side.
        dilation: distance between the kernel's taps, in pixels.
        groups: the channels are split into so many groups that do not see each other.

    Raises:
        ValueError: the kernel does not fit into the images.

    Example:
        >>> convolve(jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1)), strides=2).ravel().tolist()
        [9.0, 9.0, 9.0, 9.0]
    """

    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(strides, strides),
            padding=((padding, padding), (padding, padding)),
            rhs_dilation=(dilation, dilation),
            dimension_numbers=_NHWC,
            feature_group_count=groups,
        )

    size, (height, width, channels) = kernel.shape[0], x.shape[1:]
    reach = dilation * (size - 1)
    if any(side + 2 * padding <= reach for side in (height, width) if isinstance(side, int)):
        raise ValueError(f"the image is too small: {height} x {width} is left for a kernel of {size} x {size}")
    if not has_known_size(x):
        return plain(x, kernel)
    if size == 1 and padding == 0 and groups == 1:
        return jax.lax.platform_dependent(x, kernel, cpu=lambda x, k: _as_product(x, k, strides), default=plain)
    # A stem: on so few channels XLA's kernels for processors leave most of a vector register empty.
    if size == 7 and strides == 2 and padding == 3 and dilation == 1 and channels <= 4 and height % 2 == width % 2 == 0:
        return jax.lax.platform_dependent(x, kernel, cpu=_space_to_depth, default=plain)
    if groups == 1 and (min(height, width) + 2 * padding - reach - 1) // strides < reach:
        # Onto an image smaller than the kernel. XLA has but a plain loop for it or for its gradient: eight times
        # ResNet-18's step at 64 px, where the last stage's images are 2x2.
        cpu = partial(_by_patches, strides=strides, padding=padding, dilation=dilation)
        return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=plain)
    # The gradient by the kernel wants x transposed. Behind a barrier that copies x; without, XLA computes x, a norm and
    # an activation, anew for each number it transposes.
    return jax.lax.platform_dependent(
        x, kernel, cpu=lambda x, kernel: plain(jax.lax.optimization_barrier(x), kernel), default=plain
    )


_NHWC = ("NHWC", "HWIO", "NHWC")


def has_known_size(x: jax.Array) -> bool:
    """Whether height and width of `(N, H, W, C)` are numbers, not symbols as in a program that `jax.export` makes."""
    return all(isinstance(side, int) for side in x.shape[1:3])


def _as_product(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """A 1x1 convolution as a matrix product, whose gradient by the kernel XLA computes several times faster."""
    x = x[:, ::strides, ::strides]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)


def _by_patches(x: jax.Array, kernel: jax.Array, strides: int, padding: int, dilation: int) -> jax.Array:
    """A convolution as one matrix product, of what each position sees by the kernel."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    reach = dilation * (size - 1)
    taps = [(dilation * i, dilation * j) for i in range(size) for j in range(size)]
    height, width = x.shape[1] - reach, x.shape[2] - reach
    patches = jnp.concatenate([x[:, i : i + height : strides, j : j + width : strides] for i, j in taps], axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _space_to_depth(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 7x7 convolution of stride 2 as a 4x4 of stride 1 over 2x2 pixels at a time, a row and column of 0 added."""
    # Width, then height: of both at once JAX cannot tell where the result lies, if the axes of the mesh are Explicit.
    x = rearrange(x, "n h (w j) c -> n h w (j c)", j=2)
    x = rearrange(x, "n (h i) w c -> n h w (i c)", i=2)
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = rearrange(kernel, "(h i) (w j) c f -> h w (i j c) f", i=2, j=2)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((2, 1), (2, 1)), dimension_numbers=_NHWC)


class Linear(nn.Module):
    """A fully connected layer in float32, whatever the network's dtype: logits are compared, exponentiated, summed.

    Args of the call:
        x: `(N, C)`.

    Returns:
        `(N, features)`, float32.

    Attributes:
        features: outputs.
        initializer: `torchvision` keeps torch's default, uniform within ±1/sqrt(C) for kernel and bias;
            `fastai` draws the kernel from a normal (fan in) and starts the bias at 0.
    """

    features: int
    initializer: Initializer = "torchvision"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the layer; shapes as in the class."""
        if self.initializer == "torchvision":
            kernel_init = bias_init = _uniform_init(1 / math.sqrt(x.shape[-1]))
        else:
            kernel_init, bias_init = _KERNEL_INITS["fastai"], nn.initializers.zeros_init()
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        return x.astype(jnp.float32) @ kernel + bias


def _uniform_init(bound: float) -> nn.initializers.Initializer:
    """Draws from ±bound (`nn.initializers.uniform` draws from 0 to its scale)."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


EPSILON = 1e-5
"""What batch normalisation adds to the variance, in torch as here."""


def ghost_size(batch_norm: str) -> int | None:
    """Images that share their statistics under `batch_norm`: K for `ghost:K`, None for the other words.

    Raises:
        ValueError: for any other word.

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


def batch_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    statistics: tuple[jax.Array, jax.Array] | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mathematics of batch normalisation: Ioffe and Szegedy 2015, arXiv:1502.03167, algorithm 1.

    Args:
        x: `(G, N, ..., C)`: G batches of N images, each batch with statistics of its own.
        scale: γ, `(C,)`.
        bias: β, `(C,)`.
        epsilon: added to the variance.
        statistics: a mean and a variance `(C,)` to normalise by, as in evaluation; None to take those of x.
        axis_name: a mapped axis over which to take them.

    Returns:
        float32: x normalised, and the mean and the biased variance it was normalised by: `(G, C)`, or `statistics`.

    Example:
        >>> x = jnp.array([[[1.0], [3.0]]])  # one batch of two images of one number
        >>> y, mean, var = batch_norm(x, jnp.ones(1), jnp.zeros(1), epsilon=0.0)
        >>> y.ravel().tolist(), mean.item(), var.item()
        ([-1.0, 1.0], 2.0, 1.0)
    """
    x = x.astype(jnp.float32)
    if statistics is None:
        axes = tuple(range(1, x.ndim - 1))
        # The two moments travel together, so that devices meet once a layer, not twice.
        moments = jnp.stack([x.mean(axes), jnp.square(x).mean(axes)])
        if axis_name is not None:
            moments = jax.lax.pmean(moments, axis_name)
        mean, mean_of_squares = moments
        # E[x^2] - E[x]^2 needs one pass over x, not two; rounding can take it below 0.
        var = jnp.maximum(mean_of_squares - jnp.square(mean), 0.0)
        to_x = (-1, *(1 for _ in axes), x.shape[-1])
        statistics = mean.reshape(to_x), var.reshape(to_x)
    else:
        mean, var = statistics
    # As one slope and one offset a channel, whose gradients are the only two sums over x that the backward pass needs.
    slope = jax.lax.rsqrt(statistics[1] + epsilon) * scale
    return x * slope + (bias - statistics[0] * slope), mean, var


class BatchNorm(nn.Module):
    """Batch normalisation with its statistics chosen by name: the parameters and running statistics of `batch_norm`.

    Statistics and parameters are float32 whatever `dtype` is. The running variance is the *unbiased* one (divided by
    n - 1), as torch keeps it, so that a network trained here evaluates as the same network trained there;
    `flax.linen.BatchNorm` keeps the biased one, which `unbiased=False` gives. `momentum` is Flax's: the share of the
    old value that stays, torch's momentum subtracted from 1.

    Args of the call:
        x: `(N, ..., C)`, any float dtype.
        train: normalise by this batch's statistics and update the running ones (the `batch_stats` collection must
            be mutable); otherwise normalise by the running ones and touch nothing.

    Returns:
        x normalised, in `dtype`.

    Raises:
        ValueError: N is not a multiple of a ghost's size.

    Attributes:
        batch_norm: `global`: over every image this call sees, and over the devices of `axis_name` where one is given.
            Under plain `jax.jit` the call sees the whole batch, however it is sharded.
            `device`: over the images this call sees, never across devices; differs from `global` inside
            `jax.shard_map`, where a call sees one device's share.
            `ghost:K`: over K consecutive images at a time (Hoffer et al. 2017, arXiv:1705.08741, algorithm 1).
            `folded`: over nothing: β alone is left, see `flax_resnets.fold_batch_norm`, and training refused.
        axis_name: a mapped axis to average over, as in `flax.linen.BatchNorm`.
        momentum: share of the old running statistic kept at each update.
        epsilon: added to the variance.
        unbiased: which variance is kept as running statistic.
        frozen: normalise by the running statistics in training too, and keep them as they are, as in fine-tuning on
            batches too small to have statistics. γ and β stay trainable.
        scale_init: initialises γ; zeros for the last norm of a residual branch.
        bias_init: initialises β.
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
        """Normalise; shapes as in the class."""
        features = (x.shape[-1],)
        bias = self.param("bias", self.bias_init, features, jnp.float32)
        if self.batch_norm == "folded":
            if train:
                raise ValueError("batch_norm='folded': has no statistics to train with; train the network it came from")
            wide = _at_least_float32(x)
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
        meet = self.axis_name if self.batch_norm == "global" and not self.is_initializing() else None

        def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            groups = x[None] if size is None else rearrange(x, "(ghost n) ... -> ghost n ...", n=size)
            y, mean, var = batch_norm(groups, scale, bias, self.epsilon, axis_name=meet)
            return y.reshape(x.shape), mean, var

        y, mean, var = (normalise if size is None else _by_the_compiler(normalise))(x, scale, bias)
        if not self.is_initializing():
            count = math.prod((size or x.shape[0], *x.shape[1:-1])) * (jax.lax.axis_size(meet) if meet else 1)
            running_mean.value = self._update(running_mean.value, mean.mean(0))
            running_var.value = self._update(running_var.value, var.mean(0) * self._correction(count))
        return y.astype(self.dtype)

    def _correction(self, count: Any) -> Any:
        """What makes the variance of so many numbers an unbiased one."""
        if not self.unbiased:
            return 1.0
        if isinstance(count, int):
            return count / max(count - 1, 1)
        count = jnp.asarray(count).astype(jnp.float32)  # a symbol's value
        return count / jnp.maximum(count - 1, 1)

    def _update(self, old: jax.Array, new: jax.Array) -> jax.Array:
        return self.momentum * old + (1 - self.momentum) * new


def _by_the_compiler(function: Callable[..., tuple[jax.Array, ...]]) -> Callable[..., tuple[jax.Array, ...]]:
    """A function whose first result lies on the devices as its first argument does, the others whole on each.

    Ghosts may end within a device's share, or reach over several. JAX has no words for where that lies, and raises an
    error if the axes of the mesh are Explicit; XLA finds a way, as it does where they are Auto.
    """

    def on_auto_axes(x: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
        sharding = jax.typeof(x).sharding
        if sharding.spec[0] is None:  # whole, or on Auto axes already
            return function(x, *others)
        whole = NamedSharding(sharding.mesh, PartitionSpec())
        spread: Any = jax.sharding.auto_axes(function, out_sharding=(sharding, whole, whole))
        return spread(x, *others)

    return on_auto_axes


@jax.custom_jvp
def mish(x: jax.Array) -> jax.Array:
    """Mish, x tanh(softplus(x)): Misra 2019, arXiv:1908.08681, equation 2; `jax.nn.mish` by one exponential.

    Any shape; half precisions are computed in float32.

    Example:
        >>> [round(float(y), 4) for y in mish(jnp.array([-1.0, 0.0, 1.0]))]
        [-0.3034, 0.0, 0.8651]
    """
    # With e = exp(x), tanh(log(1 + e)) is n / (n + 2), n = e (e + 2); from 20 on that is 1 in float64.
    wide = _at_least_float32(x)
    e = jnp.exp(jnp.minimum(wide, 20.0))
    n = e * (e + 2)
    return (wide * (n / (n + 2))).astype(x.dtype)


@mish.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    # In other words than above, by e = exp(-|x|): what the two had in common, XLA would keep from the forward pass to
    # the backward, and reading that takes longer than computing it anew. With t the tanh, numerator / denominator, the
    # slope is t + x (1 - t²) sigmoid(x); as one fraction, because XLA keeps the result of every division that is used
    # twice.
    (x,), (tangent,) = primals, tangents
    wide = _at_least_float32(x)
    e = jnp.exp(-jnp.abs(wide))
    right = wide >= 0
    denominator = jnp.where(right, 1 + 2 * e * (1 + e), 2 + e * (2 + e))
    numerator = jnp.where(right, 1 + 2 * e, e * (2 + e))
    rest = jnp.where(right, e, 1) * 4 * e * (1 + e)
    slope = (numerator * denominator + wide * rest) / (denominator * denominator)
    return mish(x), (tangent.astype(slope.dtype) * slope).astype(x.dtype)


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def max_pool(x: jax.Array, strides: int = 2, size: int = 3, padding: int = 1) -> jax.Array:
    """A max-pool padded with −∞; as it stands, the stem's: 3x3, a pixel on every side.

    XLA's `SAME` would pad an even image only below and to the right. The gradient of a window goes to the first of its
    largest pixels, row by row.

    Args:
        x: `(N, H, W, C)`.
        strides: step of the window, in pixels.
        size: side of the window, in pixels.
        padding: rows and columns of −∞ on every side.

    Returns:
        `(N, H', W', C)`, with H' as torch's MaxPool2d has it.

    Example:
        >>> max_pool(jnp.arange(25.0).reshape(1, 5, 5, 1), strides=3).squeeze().tolist()
        [[6.0, 9.0], [21.0, 24.0]]
    """

    def plain(x: jax.Array) -> jax.Array:
        around = (padding, padding)
        return jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, strides, strides, 1), ((0, 0), around, around, (0, 0))
        )

    def by_rows_and_columns(x: jax.Array) -> jax.Array:
        # XLA's gradient of `reduce_window` searches each window anew; that of a choice between two knows who won.
        return _largest(_largest(x, 2, strides, size, padding), 1, strides, size, padding)

    if not has_known_size(x):
        return plain(x)
    return jax.lax.platform_dependent(x, cpu=by_rows_and_columns, default=plain)


def _largest(x: jax.Array, axis: int, strides: int, size: int, padding: int) -> jax.Array:
    """The largest of so many pixels along one axis, at every `strides`-th place; NaN if one is NaN."""
    beyond = [(padding, padding) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, beyond, constant_values=-jnp.inf)
    places = padded.shape[axis] - size + 1
    largest, *others = (jax.lax.slice_in_dim(padded, i, i + places, strides, axis) for i in range(size))
    for other in others:
        largest = jnp.where((largest >= other) | jnp.isnan(largest), largest, other)
    return largest


def avg_pool(x: jax.Array, strides: int = 2) -> jax.Array:
    """A 2x2 average-pool, `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), C)`.

    At stride 2 a window that reaches beyond the last row or column averages the pixels there are (torch's
    `ceil_mode=True, count_include_pad=False`), in float32 at least; at stride 1 it counts zeros there, as timm's
    `AvgPool2dSame` does.
    """
    if strides == 1:
        return sum_pool(x, 1, (1, 1)) / 4
    # Of a symbolic size, a row and a column beyond are always there: windows that begin on them are none.
    bottom, right = (side % 2 if isinstance(side, int) else 1 for side in x.shape[1:3])
    sums = _at_least_float32(sum_pool(x, 2, (bottom, right)))
    return sums / sum_pool(jnp.ones((*x.shape[:-1], 1), sums.dtype), 2, (bottom, right))


def sum_pool(x: jax.Array, strides: int, beyond: tuple[int, int] = (0, 0)) -> jax.Array:
    """The sums of 2x2 pixels, `(N, H, W, C)` to `(N, H', W', C)`.

    Args:
        x: images.
        strides: step of the window, in pixels.
        beyond: rows of 0 below the image, columns of 0 to its right.

    Example:
        >>> sum_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 1).squeeze().tolist()
        [[8.0, 12.0], [20.0, 24.0]]
    """
    padding = ((0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0))
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, strides, strides, 1), padding)


def blur_pool(x: jax.Array, strides: int = 2) -> jax.Array:
    """Blurs an image with (1, 2, 1)/4 in both directions, its border mirrored, and keeps every `strides`-th pixel.

    Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", arXiv:1904.11486, section 3.2; `(N, H, W, C)` to
    `(N, ceil(H / strides), ceil(W / strides), C)`.
    """
    channels = x.shape[-1]
    taps = jnp.array([1.0, 2.0, 1.0], x.dtype) / 4
    kernel = jnp.broadcast_to((taps[:, None] * taps)[:, :, None, None], (3, 3, 1, channels))
    if has_known_size(x):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    else:
        for axis in (1, 2):
            second, last_but_one = (
                jax.lax.dynamic_slice_in_dim(x, jnp.asarray(i), 1, axis) for i in (1, x.shape[axis] - 2)
            )
            x = jnp.concatenate([second, x, last_but_one], axis)
    return jax.lax.conv_general_dilated(
        x, kernel, (strides, strides), "VALID", dimension_numbers=_NHWC, feature_group_count=channels
    )


def every(x: jax.Array, strides: int) -> jax.Array:
    """Every `strides`-th row and column: `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), C)`."""
    if has_known_size(x):
        return x[:, ::strides, ::strides]
    return max_pool(x, strides, size=1, padding=0)  # a symbolic size in the words of convolutions, to be added to them


def global_avg_pool(x: jax.Array) -> jax.Array:
    """The mean over an image's pixels, in float32: `(N, H, W, C)` to `(N, C)`."""
    return x.astype(jnp.float32).mean((1, 2))


class SqueezeExcite(nn.Module):
    """Weighs channels by what the whole image holds: Hu et al. 2017, arXiv:1709.01507, section 3.

    The image's mean passes two fully connected layers, narrow between (a sixteenth of the channels, rounded to a
    multiple of 8, as timm has it), and a sigmoid. `(N, H, W, C)` in and out.

    Attributes:
        dtype: of the result; the layers themselves are float32.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Weigh the channels of x."""
        channels = x.shape[-1]
        narrow = max(8, 8 * int(channels / 16 / 8 + 0.5))
        weights = nn.relu(Linear(narrow, name="reduce")(global_avg_pool(x)))
        weights = nn.sigmoid(Linear(channels, name="expand")(weights))
        return (x * weights[:, None, None, :].astype(x.dtype)).astype(self.dtype)


class StochasticDepth(nn.Module):
    """Drops a residual branch for whole images at a time: Huang et al. 2016, arXiv:1603.09382, section 3.

    What is kept is divided by the share kept, so that evaluation changes nothing. Draws from the `dropout` stream.

    Attributes:
        rate: share of the images for which the branch is dropped.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Drop x for some of its images; its shape stays."""
        if not train or self.rate == 0:
            return x
        return _dropped(x, self.rate, self.make_rng("dropout"), (x.shape[0],) + (1,) * (x.ndim - 1))


class Dropout(nn.Dropout):
    """`flax.linen.Dropout`, to the bit, but also for what lies on a mesh with Explicit axes."""

    @nn.compact
    def __call__(self, inputs: jax.Array, deterministic: bool | None = None, rng: jax.Array | None = None) -> jax.Array:
        """Drop some of the inputs' numbers in training; the shape stays."""
        if nn.merge_param("deterministic", self.deterministic, deterministic) or self.rate == 0:
            return inputs
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return _dropped(inputs, self.rate, key, inputs.shape)


def _dropped(x: jax.Array, rate: float, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Puts 0 where a draw of that shape says so, and divides the rest by the share kept."""
    # Together with `True` everywhere that x is, the draw lies where x lies.
    kept = jax.random.bernoulli(key, 1 - rate, shape) & jnp.ones_like(x, bool)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)
