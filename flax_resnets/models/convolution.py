"""Convolution, and the two families of initial weights.

Images are NHWC. Padding is written out in pixels, as torch does it: XLA's `SAME` pads a stride-2 convolution on the
other side, and weights trained with one do not fit the other.

Some convolutions are faster on a CPU when they are written another way. `jax.lax.platform_dependent` takes that way
when the program is compiled for a CPU. GPUs, TPUs, and images of symbolic size (`jax.export`) get the `default`. The
numbers agree to float32's rounding.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.typing import Dtype

Initializer = Literal["torchvision", "fastai"]

# What torch calls kaiming_normal_: no truncation, and a gain of 2 for the half of the inputs that ReLU drops.
KERNEL_INITS = {
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
        init = KERNEL_INITS[self.initializer] if isinstance(self.initializer, str) else self.initializer
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


NHWC = ("NHWC", "HWIO", "NHWC")


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
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), ((2, 1), (2, 1)), dimension_numbers=NHWC)
