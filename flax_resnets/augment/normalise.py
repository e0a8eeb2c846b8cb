"""Normalisation of pixels to zero mean and unit variance."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.errors import UserError
from flax_resnets.fields import Rule, shown


@dataclass(frozen=True, kw_only=True)
class Normalise(Augmentation):
    """Normalisation of the pixels, in training and in evaluation.

    Attributes:
        mean, std: mean and standard deviation of the pixels, for each channel, on the scale 0 to 1. Normalisation
            subtracts the mean and divides by the standard deviation.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    RULES = (
        Rule("mean", lambda v: len(v) >= 1, "a number for each channel, or one for all"),
        Rule("std", lambda v: all(s > 1e-6 for s in v), "above 0.000001 in each channel"),
    )

    def check(self) -> None:
        """See `Fields.check`."""
        super().check()
        if len(self.mean) != len(self.std):
            raise UserError(f"std={shown(self.std)}: must have a value for each of mean's {len(self.mean)}")

    DRAWS = 9  # draws nothing, but every augmentation has a number of its own

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `normalise`."""
        return normalise(images, self.mean, self.std).astype(images.dtype)


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
