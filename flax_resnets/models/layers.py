"""The smaller layers of a network: the fully connected layer, Mish, pooling, squeeze-excite, dropout.

Images are NHWC. Some functions compute the same numbers in a faster way on a CPU, as in
`flax_resnets.models.convolution`.
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.models.convolution import NHWC, has_known_size, window
from flax_resnets.models.initializers import KERNEL_INITS, Initializer, uniform


def perturbed(module: nn.Module, name: str, x: jax.Array) -> jax.Array:
    """A value inside a network, plus the perturbation of that name, if the caller of `apply` gives one.

    The gradient with respect to a perturbation of 0 is the gradient with respect to the value:

        variables | {"perturbations": {"stage4": zeros}}

    Flax's `Module.perturb` does the same, but also adds the zeros to what `init` returns.

    Args:
        module: the module that computes the value.
        name: of the value.
        x: the value, of any shape; the perturbation has its shape and dtype.
    """
    if not module.has_variable("perturbations", name):
        return x
    return x + module.get_variable("perturbations", name)


class Linear(nn.Module):
    """A fully connected layer. It computes in float32, whatever the network's dtype, so that logits are precise.

    Args of the call:
        x: `(N, C)`.

    Returns:
        `(N, features)`, float32.

    Attributes:
        features: number of outputs.
        initializer: `torchvision` is torch's default: kernel and bias are uniform within ±1/sqrt(C). `fastai` draws the
            kernel from a normal distribution (fan in) and sets the bias to 0.
    """

    features: int
    initializer: Initializer = "torchvision"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer; shapes as in the class."""
        if self.initializer == "torchvision":
            kernel_init = bias_init = uniform(1 / math.sqrt(x.shape[-1]))
        else:
            kernel_init, bias_init = KERNEL_INITS["fastai"], nn.initializers.zeros_init()
        kernel = self.param("kernel", kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        return x.astype(jnp.float32) @ kernel + bias


@jax.custom_jvp
@partial(jax.jit, inline=True)  # traced once for a shape, see `convolve`
def mish(x: jax.Array) -> jax.Array:
    """Mish, x tanh(softplus(x)): Misra 2019, arXiv:1908.08681, equation 2.

    It equals `jax.nn.mish` up to rounding, and is faster because it computes one exponential. x may have any shape.
    float16 and bfloat16 are computed in float32.

    Example:
        >>> [round(float(y), 4) for y in mish(jnp.array([-1.0, 0.0, 1.0]))]
        [-0.3034, 0.0, 0.8651]
    """
    # With e = exp(x) and n = e (e + 2), tanh(log(1 + e)) is n / (n + 2). From x = 20 on that is 1 in float64.
    wide = at_least_float32(x)
    e = jnp.exp(jnp.minimum(wide, 20.0))
    n = e * (e + 2)
    return (wide * (n / (n + 2))).astype(x.dtype)


@mish.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    slope = _slope_of_mish(x)
    return mish(x), (tangent.astype(slope.dtype) * slope).astype(x.dtype)


@partial(jax.jit, inline=True)
def _slope_of_mish(x: jax.Array) -> jax.Array:
    # This formula uses exp(-|x|), where the forward pass uses exp(x). XLA would keep a term that both share in memory
    # until the backward pass, and reading it takes longer than computing it again. With t = tanh(softplus(x)) =
    # numerator / denominator, the slope is t + x (1 - t²) sigmoid(x). It is written as one fraction, because XLA also
    # keeps the result of every division that is used twice.
    wide = at_least_float32(x)
    e = jnp.exp(-jnp.abs(wide))
    right = wide >= 0
    denominator = jnp.where(right, 1 + 2 * e * (1 + e), 2 + e * (2 + e))
    numerator = jnp.where(right, 1 + 2 * e, e * (2 + e))
    rest = jnp.where(right, e, 1) * 4 * e * (1 + e)
    return (numerator * denominator + wide * rest) / (denominator * denominator)


def at_least_float32(x: jax.Array) -> jax.Array:
    """Converts float16 and bfloat16 to float32; wider dtypes stay."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def max_pool(x: jax.Array, strides: int = 2, size: int = 3, padding: int = 1) -> jax.Array:
    """A max-pool, padded with −∞. The defaults are those of the stem: 3x3, stride 2, one pixel of padding.

    XLA's `SAME` would pad an image of even size only below and to the right. The gradient of a window goes to its
    largest pixel; if several are equally large, to the first of them, row by row.

    Args:
        x: `(N, H, W, C)`.
        strides: stride of the window, in pixels.
        size: side of the window, in pixels.
        padding: rows and columns of −∞ on each side of the image.

    Returns:
        `(N, H', W', C)`, with the H' and W' of torch's MaxPool2d.

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
        # XLA's gradient of `reduce_window` searches each window again. The gradient of a `where` has its mask.
        return _max_along(_max_along(x, 2, strides, size, padding), 1, strides, size, padding)

    if not has_known_size(x):
        return plain(x)
    return jax.lax.platform_dependent(x, cpu=by_rows_and_columns, default=plain)


def _max_along(x: jax.Array, axis: int, strides: int, size: int, padding: int) -> jax.Array:
    """Maximum over `size` pixels along one axis, at every `strides`-th position; NaN if one of them is NaN."""
    beyond = [(padding, padding) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, beyond, constant_values=-jnp.inf)
    places = padded.shape[axis] - size + 1
    largest, *others = (jax.lax.slice_in_dim(padded, i, i + places, strides, axis) for i in range(size))
    for other in others:
        largest = jnp.where((largest >= other) | jnp.isnan(largest), largest, other)
    return largest


def avg_pool(x: jax.Array, strides: int = 2) -> jax.Array:
    """A 2x2 average-pool, `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), C)`.

    At stride 2, a window that reaches beyond the last row or column averages only the pixels inside the image, as torch
    does with `ceil_mode=True, count_include_pad=False`; the average is computed in float32 or wider. At stride 1 such a
    window counts zeros outside the image, as timm's `AvgPool2dSame` does.
    """
    if strides == 1:
        return sum_pool(x, 1, (1, 1)) / 4
    # For a symbolic size, a row and a column are always added. For an even size no window begins there.
    bottom, right = (side % 2 if isinstance(side, int) else 1 for side in x.shape[1:3])
    sums = at_least_float32(sum_pool(x, 2, (bottom, right)))
    return sums / sum_pool(jnp.ones((*x.shape[:-1], 1), sums.dtype), 2, (bottom, right))


def sum_pool(x: jax.Array, strides: int, beyond: tuple[int, int] = (0, 0)) -> jax.Array:
    """Sums over windows of 2x2 pixels: `(N, H, W, C)` to `(N, H', W', C)`.

    Args:
        x: images.
        strides: stride of the window, in pixels.
        beyond: rows of 0 added below the image, and columns of 0 added to its right.

    Example:
        >>> sum_pool(jnp.arange(9.0).reshape(1, 3, 3, 1), 1).squeeze().tolist()
        [[8.0, 12.0], [20.0, 24.0]]
    """
    padding = ((0, 0), (0, beyond[0]), (0, beyond[1]), (0, 0))
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, strides, strides, 1), padding)


def blur_pool(x: jax.Array, strides: int = 2) -> jax.Array:
    """Blurs an image with (1, 2, 1)/4 in both directions and keeps every `strides`-th pixel; borders are mirrored.

    `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), C)`: Zhang 2019, "Making Convolutional Networks
    Shift-Invariant Again", arXiv:1904.11486, section 3.2.
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
        x, kernel, (strides, strides), "VALID", dimension_numbers=NHWC, feature_group_count=channels
    )


def anti_alias(x: jax.Array, kind: Literal["blur", "average"], strides: int = 2) -> jax.Array:
    """Filters an image before it keeps every `strides`-th pixel; dtype and shape as of `blur_pool`.

    `blur` is `blur_pool`. `average` is the mean of 2x2 pixels, as in timm's `resnetaa*`; in the last row or column of
    an odd size, of those inside the image, where timm's network raises an error. At stride 1 it does nothing.
    """
    if kind == "blur":
        return blur_pool(x, strides)
    return x if strides == 1 else avg_pool(x, strides).astype(x.dtype)


def subsample(x: jax.Array, strides: int) -> jax.Array:
    """Every `strides`-th row and column: `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), C)`."""
    if has_known_size(x):
        return window(x, (0, 0), x.shape[1:3], strides)
    # A pool of size 1. Its symbolic size has the same form as a convolution's, so that JAX can add the two.
    return max_pool(x, strides, size=1, padding=0)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """The mean over an image's pixels, computed in float32: `(N, H, W, C)` to `(N, C)`."""
    return x.astype(jnp.float32).mean((1, 2))


def global_pool(x: jax.Array, kind: str = "avg") -> jax.Array:
    """Pools over an image's pixels in float32: `(N, H, W, C)` to `(N, C)`, or `(N, 2 C)` for `catavgmax`.

    Args:
        x: feature maps.
        kind: `avg`; `max`; `avgmax`, the mean of both; or `catavgmax`, the one beside the other. The words are timm's.

    Example:
        >>> global_pool(jnp.array([1.0, 1.0, 4.0, 2.0]).reshape(1, 2, 2, 1), "catavgmax").tolist()
        [[2.0, 4.0]]
    """
    if kind == "avg":
        return global_avg_pool(x)
    largest = x.astype(jnp.float32).max((1, 2))
    if kind == "max":
        return largest
    mean = global_avg_pool(x)
    return (mean + largest) / 2 if kind == "avgmax" else jnp.concatenate([mean, largest], axis=-1)


class SqueezeExcite(nn.Module):
    """Multiplies each channel by a weight computed from the whole image: Hu et al. 2017, arXiv:1709.01507, section 3.

    The mean over the image's pixels passes two fully connected layers and a sigmoid. `(N, H, W, C)` in and out.

    Attributes:
        dtype: of the result; the layers themselves are float32.
        ratio: share of the channels that are between the two layers, rounded to a multiple of 8, as in timm.
    """

    dtype: Dtype = jnp.float32
    ratio: float = 1 / 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies the channels of x by their weights; the shape stays."""
        channels = x.shape[-1]
        narrow = max(8, 8 * int(channels * self.ratio / 8 + 0.5))
        weights = nn.relu(Linear(narrow, name="reduce")(global_avg_pool(x)))
        weights = nn.sigmoid(Linear(channels, name="expand")(weights))
        return (x * weights[:, None, None, :].astype(x.dtype)).astype(self.dtype)


class EfficientChannelAttention(nn.Module):
    """Multiplies each channel by a weight computed from its neighbours: Wang et al. 2020, arXiv:1910.03151, section 3.

    The means over the image's pixels pass a convolution along the channels and a sigmoid. The kernel's size grows with
    the number of channels: the paper's equation 12, with γ = 2 and b = 1. `(N, H, W, C)` in and out.

    Attributes:
        dtype: of the result; the convolution itself is float32.
    """

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies the channels of x by their weights; the shape stays."""
        size = max(3, int((math.log2(x.shape[-1]) + 1) / 2) // 2 * 2 + 1)  # an even size becomes odd
        weights = nn.sigmoid(ChannelConv(size, name="conv")(global_avg_pool(x)[..., None]))
        return (x * weights[:, None, None, :, 0].astype(x.dtype)).astype(self.dtype)


class ChannelConv(nn.Module):
    """A convolution along the channels with one kernel, padded with 0: `(N, C, 1)` in and out, float32.

    Attributes:
        size: of the kernel, odd.
    """

    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the convolution; shapes as in the class."""
        kernel = self.param("kernel", uniform(self.size**-0.5), (self.size, 1, 1), jnp.float32)
        beyond = self.size // 2
        padded = jnp.pad(x, ((0, 0), (beyond, beyond), (0, 0)))
        places = (jax.lax.slice_in_dim(padded, i, i + x.shape[1], axis=1) for i in range(self.size))
        return sum((place * kernel[i, 0, 0] for i, place in enumerate(places)), jnp.zeros((), x.dtype))


class StochasticDepth(nn.Module):
    """Drops a residual branch for some of the images: Huang et al. 2016, arXiv:1603.09382, section 3.

    In training, the branches that are kept are divided by the share that is kept. Evaluation drops nothing. The random
    numbers come from the `dropout` stream.

    Attributes:
        rate: share of the images for which the branch is dropped.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Sets x to 0 for some of its images in training; the shape stays."""
        if not train or self.rate == 0:
            return x
        return _drop(x, self.rate, self.make_rng("dropout"), (x.shape[0],) + (1,) * (x.ndim - 1))


class Dropout(nn.Dropout):
    """`flax.linen.Dropout` with the same random numbers, which also works on meshes with Explicit axes."""

    @nn.compact
    def __call__(self, inputs: jax.Array, deterministic: bool | None = None, rng: jax.Array | None = None) -> jax.Array:
        """Sets some of the numbers to 0 in training; the shape stays."""
        if nn.merge_param("deterministic", self.deterministic, deterministic) or self.rate == 0:
            return inputs
        key = self.make_rng(self.rng_collection) if rng is None else rng
        return _drop(inputs, self.rate, key, inputs.shape)


def _drop(x: jax.Array, rate: float, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Sets a share `rate` of x to 0 and divides the rest by 1 - rate. There is one draw for each item of `shape`."""
    # `ones_like(x)` gives the draw the sharding of x.
    kept = jax.random.bernoulli(key, 1 - rate, shape) & jnp.ones_like(x, bool)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)
