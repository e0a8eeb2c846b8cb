"""The order of things: a training batch and an evaluation batch as the network sees them."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax.typing import Dtype

from flax_resnets.data.augment import color, erasing, geometry, policies


def normalise(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Brings pixels of 0 to 255 to zero mean and unit variance per channel, in float32.

    Args:
        images: `(N, H, W, C)`, any real dtype.
        mean: per channel on the scale 0 to 1.
        std: likewise.

    Example:
        >>> float(normalise(jnp.full((1, 1, 1, 1), 255), (0.5,), (0.5,)).squeeze())
        1.0
    """
    scale = 1 / (255 * jnp.array(std, jnp.float32))
    shift = jnp.array(mean, jnp.float32) / jnp.array(std, jnp.float32)
    return images.astype(jnp.float32) * scale - shift


def for_training(
    key: jax.Array,
    images: jax.Array,
    *,
    size: int,
    crop_scale: tuple[float, float],
    crop_ratio: tuple[float, float],
    flip: bool,
    translate: int = 0,
    rotate: float = 0.0,
    shear: float = 0.0,
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0),
    auto_augment: Literal["randaugment", "trivialaugment"] | None = None,
    randaugment: tuple[int, float] = (2, 9.0),
    random_erasing: float = 0.0,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: Dtype = jnp.float32,
) -> jax.Array:
    """A training batch as the network sees it.

    Cropped or resized, flipped, translated, turned and slanted, put through a policy, its colours jittered, normalised,
    and erased, in this order. What is off costs nothing, and changes no other's draws.

    Args:
        key: of every draw. All that is drawn comes from what folding 0 to 7 into it gives, but for 2, which is left to
            the caller, as is 8 and above.
        images: uint8 `(N, H, W, C)`.
        size: side of the result, in pixels.
        crop_scale: see `random_resized_crop`; (1, 1) resizes the whole image instead.
        crop_ratio: see `random_resized_crop`.
        flip: see `random_flip`.
        translate: see `random_translate`, in pixels of the result.
        rotate: see `random_affine`, in degrees.
        shear: see `random_affine`, in degrees.
        color_jitter: of brightness, contrast, saturation and hue; see `color_jitter`.
        auto_augment: see `policies.randaugment` and `policies.trivialaugment`.
        randaugment: operations and magnitude, see `policies.randaugment`.
        random_erasing: the probability; see `random_erasing`.
        mean: see `normalise`.
        std: see `normalise`.
        dtype: of the pixels on the way and of the result, so the network's: its rounding is that of the network's own
            input, and the bytes moved are half of float32's. All pixel values of 0 to 255 are exact in bfloat16 and
            float16.

    Returns:
        `(N, size, size, C)` in `dtype`.
    """
    # Splitting gives what folding in 0 and 1 would, and the training step folds in 2 for dropout: 3 is the first free.
    crop_key, flip_key = jax.random.split(key)
    if crop_scale == (1.0, 1.0):
        images = geometry.resize(images.astype(dtype), size)
    else:
        images = geometry.random_resized_crop(crop_key, images.astype(dtype), size, crop_scale, crop_ratio)
    if flip:
        images = geometry.random_flip(flip_key, images)
    if translate:
        images = geometry.random_translate(jax.random.fold_in(key, 3), images, translate)
    if rotate or shear:
        images = geometry.random_affine(jax.random.fold_in(key, 4), images, rotate, shear)
    if auto_augment == "randaugment":
        images = policies.randaugment(jax.random.fold_in(key, 5), images, *randaugment)
    elif auto_augment == "trivialaugment":
        images = policies.trivialaugment(jax.random.fold_in(key, 5), images)
    if any(color_jitter):
        images = color.color_jitter(jax.random.fold_in(key, 6), images, *color_jitter)
    images = normalise(images, mean, std).astype(dtype)
    if random_erasing:
        images = erasing.random_erasing(jax.random.fold_in(key, 7), images, random_erasing)
    return images


def for_evaluation(
    images: jax.Array, *, size: int, crop_pct: float = 1.0, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """An evaluation batch as the network sees it: its centre, resized and normalised; nothing drawn.

    Args:
        images: uint8 `(N, H, W, C)`.
        size: side of the result, in pixels.
        crop_pct: see `centre_crop`; 1 for the whole image.
        mean: see `normalise`.
        std: see `normalise`.

    Returns:
        float32 `(N, size, size, C)`.
    """
    images = geometry.centre_crop(images, crop_pct)
    return normalise(geometry.resize(images.astype(jnp.float32), size), mean, std)
