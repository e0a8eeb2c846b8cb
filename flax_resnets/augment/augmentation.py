"""The base class of every augmentation: its configuration fields, and what it does to a batch."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from flax_resnets.fields import Fields


@dataclass(frozen=True, kw_only=True)
class Augmentation(Fields):
    """One transformation of a training batch on its way from stored pixels to the network.

    To add one, write a subclass with its fields, `RULES`, `DRAWS` and `augment` in a new file of this folder. Then add
    it to the bases of `AugmentConfig`, at the place where it should be applied.

    Attributes:
        DRAWS: an integer folded into the batch's PRNG key, so that each augmentation draws from its own key. Every
            augmentation has a different one, and none may change: a resumed run must draw the same numbers. Training
            itself uses 2 and 8.
    """

    DRAWS: ClassVar[int]

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """Augments the batch, or returns it unchanged where the fields turn this augmentation off.

        Args:
            key: PRNG key for this augmentation alone.
            images: `(N, H, W, C)`, any float dtype; pixels of 0 to 255 until `Normalise` is applied.
            size: side of the network's images, in pixels.

        Returns:
            `(N, H, W, C)`, dtype unchanged.
        """
        raise NotImplementedError
