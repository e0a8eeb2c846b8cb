"""What an augmentation is: its configuration fields, and what they do to a batch."""

from dataclasses import dataclass
from typing import ClassVar

import jax

from flax_resnets.fields import Fields


@dataclass(frozen=True, kw_only=True)
class Augmentation(Fields):
    """One step on a training batch's way from stored pixels to the network.

    To add one: a subclass with its fields, `RULES`, `DRAWS` and `augment`, in a file of this folder, and its name among
    the bases of `AugmentConfig`, at the place where it is to happen.

    Attributes:
        DRAWS: number that is folded into the batch's PRNG key for this step's draws. No two steps share one, and none
            changes: a run that resumes must draw what it drew. 2 and 8 are taken by training itself.
    """

    DRAWS: ClassVar[int]

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """The batch after this step; where the fields turn the step off, the batch as it is.

        Args:
            key: of this step's draws alone.
            images: `(N, H, W, C)`, float; pixels of 0 to 255 until `Normalise`.
            size: side of the network's images, in pixels.

        Returns:
            `(N, H, W, C)` of the same dtype.
        """
        raise NotImplementedError
