"""Normalisation of pixels to zero mean and unit variance."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp

from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.errors import UserError
from flax_resnets.fields import Rule, shown

Statistic = tuple[float, ...] | Literal["imagenet"] | None
"""The type of the fields `mean` and `std`."""

IMAGENET: Mapping[str, tuple[float, ...]] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Mean and standard deviation of ImageNet's training images, as torchvision and timm have them."""


@dataclass(frozen=True, kw_only=True)
class Normalise(Augmentation):
    """Normalisation of the pixels, in training and in evaluation.

    Attributes:
        mean, std: mean and standard deviation of the pixels, for each channel, on the scale 0 to 1. Normalisation
            subtracts the mean and divides by the standard deviation. None for those of the training images, which are
            computed when the data is open; `imagenet` for ImageNet's.
    """

    mean: Statistic = None
    std: Statistic = None

    RULES = (
        Rule("mean", lambda v: len(v) >= 1, "a number for each channel, or one for all"),
        Rule("std", lambda v: v == "imagenet" or all(s > 1e-6 for s in v), "above 0.000001 in each channel"),
    )

    def check(self) -> None:
        """See `Fields.check`."""
        super().check()
        if self.mean is None and self.std is None:
            return
        for (name, value), (other, its) in itertools.permutations((("mean", self.mean), ("std", self.std))):
            if value is None:
                raise UserError(f"{name}=none: {other} is {shown(its)}; give both, or none for both")
        mean, std = statistics_of(self)
        if len(mean) != len(std):
            raise UserError(f"std={shown(self.std)}: must have a value for each of mean's {len(mean)}")

    DRAWS = 9  # draws nothing, but every augmentation has a number of its own

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `normalise`."""
        return normalise(images, *statistics_of(self)).astype(images.dtype)


class HasStatistics(Protocol):
    """The fields that `statistics_of` reads."""

    @property
    def mean(self) -> Statistic:
        """See `Normalise`."""
        ...

    @property
    def std(self) -> Statistic:
        """See `Normalise`."""
        ...


def statistics_of(config: HasStatistics) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The numbers that `mean` and `std` stand for.

    Raises:
        ValueError: they are None, so only the data can tell: `flax_resnets.training.completion.completed` puts numbers
            in their place.

    Example:
        >>> statistics_of(Normalise(mean="imagenet", std="imagenet"))
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    """
    if config.mean is None or config.std is None:
        raise ValueError("mean and std are None, which stands for those of the training images: see `completed`")
    return (
        IMAGENET["mean"] if config.mean == "imagenet" else config.mean,
        IMAGENET["std"] if config.std == "imagenet" else config.std,
    )


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Normalises pixels of 0 to 255 to zero mean and unit variance in each channel, in float32.

    Args:
        images: `(N, H, W, C)`, any real dtype.
        mean: for each channel, on the scale 0 to 1.
        std: for each channel, on the scale 0 to 1.

    Example:
        >>> float(normalise(jnp.full((1, 1, 1, 1), 255), (0.5,), (0.5,)).squeeze())
        1.0
    """
    scale = 1 / (255 * jnp.array(std, jnp.float32))
    shift = jnp.array(mean, jnp.float32) / jnp.array(std, jnp.float32)
    return images.astype(jnp.float32) * scale - shift
