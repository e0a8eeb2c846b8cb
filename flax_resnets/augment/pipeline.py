"""All augmentations of a training batch, in order."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax.typing import Dtype

from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.augment.color import ColorJitter
from flax_resnets.augment.erasing import RandomErasing
from flax_resnets.augment.geometry import RandomAffine, RandomFlip, RandomResizedCrop, RandomTranslate
from flax_resnets.augment.normalise import Normalise
from flax_resnets.augment.of_recipe import RecipeAugmentation
from flax_resnets.augment.policies import AutoAugment


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(
    RandomResizedCrop,
    RandomFlip,
    RandomTranslate,
    RandomAffine,
    AutoAugment,
    ColorJitter,
    RecipeAugmentation,
    Normalise,
    RandomErasing,
):
    """What happens to each training image, in the order of the base classes.

    Example:
        >>> AugmentConfig(mean=(0.5,), std=(0.25,), translate=4).flip
        True
    """


def for_training(
    key: jax.Array, images: jax.Array, config: AugmentConfig, size: int, dtype: Dtype = jnp.float32
) -> jax.Array:
    """Augments a training batch. An augmentation that is off costs nothing and does not change the draws of the others.

    Args:
        key: PRNG key of the batch; see `Augmentation.DRAWS`.
        images: uint8 `(N, H, W, C)`.
        config: which augmentations to apply.
        size: side of the result, in pixels.
        dtype: of the intermediate images and the result; the network's dtype. Rounding is then no coarser than that of
            the network's own input, and bfloat16 and float16 move half the bytes of float32. Both hold all pixel values
            of 0 to 255 exactly.

    Returns:
        `(N, size, size, C)` in `dtype`.

    Example:
        >>> config = AugmentConfig(mean=(0.5,), std=(0.25,), crop_scale=(0.35, 1.0))
        >>> for_training(jax.random.key(0), jnp.zeros((2, 40, 30, 1), jnp.uint8), config, size=32).shape
        (2, 32, 32, 1)
    """
    images = images.astype(dtype)
    for step in AugmentConfig.__bases__:
        assert issubclass(step, Augmentation)
        images = step.augment(config, jax.random.fold_in(key, step.DRAWS), images, size)
    return images
