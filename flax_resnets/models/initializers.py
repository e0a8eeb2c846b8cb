"""How kernels are initialised.

The numbers are drawn in one row and get the kernel's shape afterwards. Drawn in four axes they are the same, but each
such draw takes about a second to compile for a CPU: the first weights of a network take three times as long.
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Literal["torchvision", "fastai"]


def scaled(
    scale: float, mode: Literal["fan_in", "fan_out", "fan_avg"], distribution: Literal["normal", "uniform"]
) -> nn.initializers.Initializer:
    """`nn.initializers.variance_scaling` for kernels `(..., C, F)`, with the same numbers.

    Args:
        scale: the variance, times the fan.
        mode: the fan: `fan_in`, the numbers that one output depends on; `fan_out`, the outputs that one number of the
            input counts for; `fan_avg`, the mean of both.
        distribution: `normal`, which is not truncated, or `uniform`.

    Example:
        >>> scaled(2.0, "fan_in", "normal")(jax.random.key(0), (3, 3, 64, 128), jnp.float32).shape
        (3, 3, 64, 128)
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        fan_in, fan_out = (math.prod(shape[:-2]) * channels for channels in shape[-2:])
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        # Without axes of inputs and outputs the fan is 1.
        row = nn.initializers.variance_scaling(
            scale / fan, "fan_in", distribution, in_axis=(), out_axis=(), batch_axis=0
        )
        return row(key, (math.prod(shape),), dtype).reshape(shape)

    return init


def uniform(bound: float) -> nn.initializers.Initializer:
    """A uniform distribution from -bound to bound; `nn.initializers.uniform` begins at 0."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> jax.Array:
        return jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound).reshape(shape)

    return init


# The same as torch's kaiming_normal_: He et al. 2015, arXiv:1502.01852, section 2.2. The gain is 2, because ReLU sets
# half of its inputs to 0.
KERNEL_INITS = {"torchvision": scaled(2.0, "fan_out", "normal"), "fastai": scaled(2.0, "fan_in", "normal")}
