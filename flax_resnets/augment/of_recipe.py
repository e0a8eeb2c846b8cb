"""An augmentation that a recipe gives itself, as a function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax

from flax_resnets import own
from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.fields import OneOf

Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""A function of a PRNG key and images `(N, size, size, C)`, of any float dtype and with pixels of 0 to 255. It returns
images of the same shape and dtype."""


@dataclass(frozen=True, kw_only=True)
class RecipeAugmentation(Augmentation):
    """A recipe's own augmentation, the last one before normalisation.

    Attributes:
        augmentation: a recipe's function, see `Augment`; docs/functions.md. None for none.
    """

    augmentation: Annotated[str | Augment, OneOf(())] | None = None

    DRAWS = 11

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`. Raises UserError if the function fails, or returns another shape or dtype."""
        if self.augmentation is None:
            return images
        text = str(self.augmentation)
        function = own.function_of("augmentation", text)
        with own.blamed("augmentation", text):
            augmented = function(key, images)
        own.check_result("augmentation", text, augmented, images.shape, str(images.dtype), "images")
        return augmented
