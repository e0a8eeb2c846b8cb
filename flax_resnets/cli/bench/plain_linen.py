"""A plain linen ResNet to compare this package with: nn.Conv, nn.BatchNorm, nn.max_pool.

It has torchvision's graph. It does less than this package: its batch is normalised beforehand, and it does not check
whether its loss is finite.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.cli.bench import plain_step
from flax_resnets.cli.bench.plain_step import CLASSES


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions."""

    width: int
    stride: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `(N, H, W, C)` to `(N, H / stride, W / stride, C')`."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        y = conv(self.width, (3, 3), (self.stride, self.stride), padding=1)(x)
        y = nn.relu(norm()(y))
        y = conv(self.width, (3, 3), padding=1)(y)
        y = norm()(y)
        if x.shape != y.shape:
            x = norm()(conv(self.width, (1, 1), (self.stride, self.stride))(x))
        return nn.relu(x + y)


class BottleneckBlock(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions; the last one has four times the width."""

    width: int
    stride: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `(N, H, W, C)` to `(N, H / stride, W / stride, C')`."""
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=self.dtype)
        y = conv(self.width, (1, 1))(x)
        y = nn.relu(norm()(y))
        y = conv(self.width, (3, 3), (self.stride, self.stride), padding=1)(y)
        y = nn.relu(norm()(y))
        y = conv(4 * self.width, (1, 1))(y)
        y = norm()(y)
        if x.shape != y.shape:
            x = norm()(conv(4 * self.width, (1, 1), (self.stride, self.stride))(x))
        return nn.relu(x + y)


class ResNet(nn.Module):
    """He et al. 2015, arXiv:1512.03385, table 1."""

    blocks: Sequence[int]
    block: type[BasicBlock] | type[BottleneckBlock]
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps normalised images `(N, H, W, 3)` to logits."""
        x = nn.Conv(64, (7, 7), (2, 2), padding=3, use_bias=False, dtype=self.dtype)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=self.dtype)(x)
        by_one: Any = ((1, 1), (1, 1))  # annotated as `str` only
        x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), padding=by_one)
        for stage, blocks in enumerate(self.blocks):
            for block in range(blocks):
                x = self.block(64 * 2**stage, 2 if stage and not block else 1, self.dtype)(x, train)
        return nn.Dense(CLASSES)(x.mean((1, 2)))


NETWORKS = {
    "resnet18": ResNet((2, 2, 2, 2), BasicBlock),
    "resnet34": ResNet((3, 4, 6, 3), BasicBlock),
    "resnet50": ResNet((3, 4, 6, 3), BottleneckBlock),
    "resnet101": ResNet((3, 4, 23, 3), BottleneckBlock),
}


def prepare(
    network: str,
    work: Literal["train", "inference"],
    batch: int,
    size: int,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Prepares a contender; for the arguments see `ours.prepare`."""
    return plain_step.prepare(NETWORKS[network].clone(dtype=jnp.dtype(precision)), work, batch, size)
