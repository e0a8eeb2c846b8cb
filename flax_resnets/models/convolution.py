"""Convolution.

Images are NHWC. Padding is a number of pixels, as in torch. XLA's `SAME` pads a stride-2 convolution on the other side:
weights that were trained with one padding do not fit the other.

On a CPU some convolutions are faster when they are computed in another way. `jax.lax.platform_dependent` chooses that
way when the program is compiled for a CPU. Programs for GPUs and TPUs, and programs that `jax.export` makes for images
of symbolic size, use XLA's convolution. Both ways give the same numbers, up to rounding in float32.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.models.initializers import KERNEL_INITS, Initializer


class Conv(nn.Module):
    """A convolution without bias. Zero padding keeps the image's size at stride 1.

    Args of the call:
        x: `(N, H, W, C)`, any float dtype.

    Returns:
        `(N, ceil(H / strides), ceil(W / strides), features)` in `dtype`.

    Attributes:
        features: output channels.
        kernel_size: side of the square kernel, in pixels; odd.
        strides: stride of the kernel, in pixels.
        dilation: distance between the kernel's taps, in pixels.
        groups: the channels are split into this many groups; an output channel depends on one group alone.
        initializer: `torchvision` (normal, fan out) or `fastai` (normal, fan in), see He et al. 2015, arXiv:1502.01852,
            section 2.2; or one of Flax's initializers.
        dtype: dtype of the computation; parameters stay float32.
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
        """Applies the convolution; shapes as in the class."""
        pad = self.dilation * (self.kernel_size // 2)
        kernel_shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        init = KERNEL_INITS[self.initializer] if isinstance(self.initializer, str) else self.initializer
        kernel = self.weights(self.param("kernel", init, kernel_shape, jnp.float32))
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.strides, pad, self.dilation, self.groups)

    def weights(self, kernel: jax.Array) -> jax.Array:
        """What the images are convolved with."""
        return kernel


class StandardizedConv(Conv):
    """A convolution with weight standardisation: Qiao et al. 2019, arXiv:1903.10520, section 3.

    Of each output channel, the weights have mean 0 and variance 1.

    Attributes:
        epsilon: added to the variance; that of timm's BiT.
    """

    epsilon: float = 1e-8

    def weights(self, kernel: jax.Array) -> jax.Array:
        """See the class."""
        centred = kernel - kernel.mean((0, 1, 2))
        return centred * jax.lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + self.epsilon)


class ScaledConv(StandardizedConv):
    """A convolution for networks without norms, with scaled weight standardisation and a bias.

    Brock et al. 2021, "Characterizing signal propagation to close the performance gap in unnormalized ResNets",
    arXiv:2101.08692, section 4.3: of activations of numbers with variance 1, the outputs have variance 1.

    Attributes:
        epsilon: that of timm's `ScaledStdConv2d`.
        gamma: 1 divided by the standard deviation of the activation function of a normal variable.
        gain_init: initializer of the factor of each output channel; zeros for the end of a residual branch.
    """

    epsilon: float = 1e-6
    gamma: float = 1.0
    gain_init: nn.initializers.Initializer = nn.initializers.ones_init()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the convolution; shapes as in the class."""
        y = super().__call__(x)
        return y + self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32).astype(y.dtype)

    def weights(self, kernel: jax.Array) -> jax.Array:
        """See the class."""
        gain = self.param("gain", self.gain_init, (self.features,), jnp.float32)
        return super().weights(kernel) * (gain * self.gamma / math.prod(kernel.shape[:-1]) ** 0.5)


# A jitted function is traced once for a shape, not once in each layer. Inlined, it leaves the whole program as it was.
@partial(jax.jit, static_argnames=("strides", "padding", "dilation", "groups"), inline=True)
def convolve(
    x: jax.Array, kernel: jax.Array, strides: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> jax.Array:
    """The convolution of x, `(N, H, W, C)`, with a kernel `(K, K, C / groups, F)`, as torch's Conv2d computes it.

    Args:
        x: images, `(N, H, W, C)`, any float dtype.
        kernel: `(K, K, C / groups, F)`, of the same dtype.
        strides: stride of the kernel, in pixels.
        padding: rows and columns of 0 on each side of the images.
        dilation: distance between the kernel's taps, in pixels.
        groups: the channels are split into this many groups; an output channel depends on one group alone.

    Returns:
        `(N, H', W', F)`, with the H' and W' of torch's Conv2d.

    Raises:
        ValueError: the kernel is larger than the padded images.

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
            dimension_numbers=NHWC,
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
    # The stem. XLA's kernels for CPUs leave most of a vector register empty when an image has so few channels.
    is_stem = size == 7 and strides == 2 and padding == 3 and dilation == groups == 1 and channels <= 4
    if is_stem and height % 2 == width % 2 == 0:
        return jax.lax.platform_dependent(x, kernel, cpu=_space_to_depth, default=plain)
    if groups == 1 and (min(height, width) + 2 * padding - reach - 1) // strides < reach:
        # The result is smaller than the kernel. For such a convolution or its gradient XLA has only a plain loop, which
        # takes eight times as long for ResNet-18's step at 64 px, where the last stage's images are 2x2.
        cpu = partial(_as_product_of_patches, strides=strides, padding=padding, dilation=dilation)
        return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=plain)
    # The gradient with respect to the kernel needs x transposed. The barrier makes XLA copy x. Without it XLA computes
    # x, which is the result of a norm and an activation, again for each number that it transposes.
    return jax.lax.platform_dependent(
        x, kernel, cpu=lambda x, kernel: plain(jax.lax.optimization_barrier(x), kernel), default=plain
    )


NHWC = ("NHWC", "HWIO", "NHWC")


def has_known_size(x: jax.Array) -> bool:
    """Whether height and width of `(N, H, W, C)` are numbers. In programs for `jax.export` they can be symbols."""
    return all(isinstance(side, int) for side in x.shape[1:3])


def window(x: jax.Array, corner: tuple[int, int], size: tuple[int, ...], strides: int) -> jax.Array:
    """Every `strides`-th row and column of a part of `(N, H, W, C)`.

    Indexing does the same, but gathers single numbers where N is a symbol.

    Args:
        x: images.
        corner: the part's first row and column.
        size: the part's rows and columns.
        strides: distance between the rows and columns that stay, in pixels.

    Example:
        >>> window(jnp.arange(9.0).reshape(1, 3, 3, 1), (0, 1), (3, 2), 2).squeeze().tolist()
        [1.0, 7.0]
    """
    n, *_, channels = x.shape
    (top, left), (height, width) = corner, size
    if x.shape[1:3] == size and strides == 1:
        return x
    steps = None if strides == 1 else (1, strides, strides, 1)
    return jax.lax.slice(x, (0, top, left, 0), (n, top + height, left + width, channels), steps)


def _as_product(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """A 1x1 convolution as a matrix product. XLA computes its gradient for the kernel several times faster."""
    x = window(x, (0, 0), x.shape[1:3], strides)
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)


def _as_product_of_patches(x: jax.Array, kernel: jax.Array, strides: int, padding: int, dilation: int) -> jax.Array:
    """A convolution as one matrix product of the kernel with the image's patches, one patch for each output pixel."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    reach = dilation * (size - 1)
    taps = [(dilation * i, dilation * j) for i in range(size) for j in range(size)]
    height, width = x.shape[1] - reach, x.shape[2] - reach
    patches = jnp.concatenate([window(x, tap, (height, width), strides) for tap in taps], axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def _space_to_depth(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 7x7 convolution of stride 2 as a 4x4 convolution of stride 1 over blocks of 2x2 pixels.

    A block becomes one pixel with four times the channels. The kernel gets a row and a column of 0, which make it 8x8.
    """
    # First the width, then the height: on a mesh with Explicit axes JAX cannot infer the sharding of one rearrangement
    # that splits both.
    x = rearrange(x, "n h (w j) c -> n h w (j c)", j=2)
    x = rearrange(x, "n (h i) w c -> n h w (i c)", i=2)
    kernel = jnp.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))
    kernel = rearrange(kernel, "(h i) (w j) c f -> h w (i j c) f", i=2, j=2)
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((2, 1), (2, 1)), dimension_numbers=NHWC)
