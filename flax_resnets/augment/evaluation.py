"""Preprocessing of evaluation batches, without randomness."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp

from flax_resnets.augment.geometry import centre_crop
from flax_resnets.augment.normalise import HasStatistics, normalise, statistics_of
from flax_resnets.augment.resampling import resize
from flax_resnets.fields import Fields, Rule


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(Fields):
    """How images are evaluated.

    Attributes:
        crop_pct: share of a side that the centre crop keeps in evaluation; 1 for the whole image.
        eval_flip: evaluate by the mean of the logits of an image and of its mirror image. This is a test-time
            augmentation: say so wherever you quote the accuracy.
    """

    crop_pct: float = 1.0
    eval_flip: bool = False

    RULES = (Rule("crop_pct", lambda v: 0 < v <= 1, "above 0 and up to 1"),)


class Preprocessing(HasStatistics, Protocol):
    """The fields that `for_evaluation` reads; every `Config` has them."""

    @property
    def crop_pct(self) -> float:
        """See `EvaluationConfig`."""
        ...

    @property
    def eval_flip(self) -> bool:
        """See `EvaluationConfig`."""
        ...


def for_evaluation(images: jax.Array, config: Preprocessing, size: int) -> jax.Array:
    """Prepares an evaluation batch for the network: centre crop, resize, normalise.

    Args:
        images: uint8 `(N, H, W, C)`.
        config: gives `crop_pct`, `mean` and `std`.
        size: side of the result, in pixels.

    Returns:
        float32 `(N, size, size, C)`.
    """
    images = centre_crop(images, config.crop_pct)
    return normalise(resize(images.astype(jnp.float32), size), *statistics_of(config))


def evaluated(
    network: Callable[[jax.Array], jax.Array], images: jax.Array, config: Preprocessing, size: int
) -> jax.Array:
    """What a network gives for an evaluation batch; with `eval_flip`, the mean over each image and its mirror image.

    Evaluation and inference both call this, so both compute the same numbers.

    Args:
        network: takes float32 images `(N, size, size, C)`, already normalised; returns `(N, outputs)`.
        images: uint8 `(N, H, W, C)`.
        config: see `for_evaluation`; also gives `eval_flip`.
        size: side of the images that the network sees, in pixels.

    Returns:
        `(N, outputs)`.
    """
    prepared = for_evaluation(images, config, size)
    outputs = network(prepared)
    return (outputs + network(jax.lax.rev(prepared, (2,)))) / 2 if config.eval_flip else outputs
