"""Brightness, contrast, saturation, hue and sharpness, as torchvision's `adjust_*` functions define them.

Images are `(N, H, W, C)` of any float dtype, with pixels of 0 to 255 and one or three channels. Each image has its own
factor; factors are `(N,)`. Results are computed in float32 and not rounded to whole levels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.fields import Rule


@dataclass(frozen=True, kw_only=True)
class ColorJitter(Augmentation):
    """Random brightness, contrast, saturation and hue; see `color_jitter`.

    Attributes:
        color_jitter: largest change of brightness, contrast, saturation and hue, in the units of torchvision's
            `ColorJitter`; all 0 for none.
    """

    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    DRAWS = 6
    RULES = (
        Rule(
            "color_jitter", lambda v: all(j >= 0 for j in v) and v[3] <= 0.5, "four numbers from 0 up, hue's up to 0.5"
        ),
    )

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        return color_jitter(key, images, *self.color_jitter) if any(self.color_jitter) else images


def brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Multiplies the pixels by a factor: 0 gives a black image, 1 the original.

    Example:
        >>> brightness(jnp.full((1, 1, 1, 3), 100.0), jnp.array([1.5])).squeeze().tolist()
        [150.0, 150.0, 150.0]
    """
    return blend(images, 0.0, factors)


def contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Moves pixels away from the mean of the grey image: 0 gives that mean everywhere, 1 the original image."""
    return blend(images, grey(images).mean((1, 2, 3), keepdims=True), factors)


def saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Moves pixels away from their grey value: 0 gives a grey image, 1 the original. Leaves grey images unchanged.

    Example:
        >>> saturation(jnp.array([[[[100.0, 0.0, 0.0]]]]), jnp.zeros(1)).round().squeeze().tolist()
        [30.0, 30.0, 30.0]
    """
    return images if images.shape[3] == 1 else blend(images, grey(images), factors)


def hue(images: jax.Array, turns: jax.Array) -> jax.Array:
    """Rotates the hue (as in HSV) by -0.5 to 0.5 of a full circle. Leaves grey images unchanged.

    Example:
        >>> red = jnp.array([[[[255.0, 0.0, 0.0]]]])
        >>> hue(red, jnp.array([0.5])).squeeze().tolist()  # its complement
        [0.0, 255.0, 255.0]
    """
    if images.shape[3] == 1:
        return images
    pixels = images.astype(jnp.float32)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    value = pixels.max(3)
    chroma = value - pixels.min(3)
    divisor = jnp.where(chroma == 0, 1, chroma)  # a grey pixel has no hue: any divisor above 0 will do
    sixths = jnp.where(
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths += 6 * turns[:, None, None]

    def channel(offset: float) -> jax.Array:
        """One colour channel: it falls from the largest to the smallest value and rises again as the hue rotates."""
        place = (offset + sixths) % 6
        return value - chroma * jnp.clip(jnp.minimum(place, 4 - place), 0, 1)

    return jnp.stack([channel(5), channel(3), channel(1)], axis=3).astype(images.dtype)


def sharpness(images: jax.Array, factors: jax.Array) -> jax.Array:
    """Moves pixels away from the smoothed image: 0 gives the smoothed image, 1 the original."""
    return blend(images, smoothed(images), factors)


def color_jitter(
    key: jax.Array, images: jax.Array, brightness: float, contrast: float, saturation: float, hue: float
) -> jax.Array:
    """Changes brightness, contrast, saturation and hue by random factors in random order: torchvision's `ColorJitter`.

    Each image has its own factors. The order is drawn once for the whole batch, where torchvision draws it for each
    image: this way each change is computed once instead of four times.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype.
        brightness: x, for factors uniform between max(0, 1 - x) and 1 + x; 0 for none.
        contrast: x, as for brightness.
        saturation: x, as for brightness.
        hue: h, for rotations uniform between -h and h of a full circle; at most 0.5.

    Returns:
        Shape and dtype of `images`.

    Example:
        >>> color_jitter(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), 0.4, 0.4, 0.4, 0.1).shape
        (2, 8, 8, 3)
    """
    n, _, _, channels = images.shape
    order_key, *keys = jax.random.split(key, 5)
    around_one = [(max(0.0, 1 - strength), 1 + strength) for strength in (brightness, contrast, saturation)]
    changes: list[Callable[[jax.Array], jax.Array]] = []
    for name, strength, (low, high), factor_key in zip(
        ("brightness", "contrast", "saturation", "hue"),
        (brightness, contrast, saturation, hue),
        (*around_one, (-hue, hue)),
        keys,
        strict=True,
    ):
        if strength > 0 and (channels == 3 or name in ("brightness", "contrast")):
            factors = jax.random.uniform(factor_key, (n,), minval=low, maxval=high)
            changes.append(_with(_CHANGES[name], factors))
    if not changes:
        return images
    order = jax.random.permutation(order_key, len(changes))

    def change(place: jax.Array, images: jax.Array) -> jax.Array:
        return jax.lax.switch(order[place], changes, images)

    return jax.lax.fori_loop(0, len(changes), change, images.astype(jnp.float32)).astype(images.dtype)


_CHANGES = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}


def _with(change: Callable[[jax.Array, jax.Array], jax.Array], factors: jax.Array) -> Callable[[jax.Array], jax.Array]:
    return lambda images: change(images, factors)


def grey(images: jax.Array) -> jax.Array:
    """Luma of ITU-R BT.601, float32 `(N, H, W, 1)`; an image of one channel is returned as it is."""
    if images.shape[3] == 1:
        return images.astype(jnp.float32)
    return (images * jnp.array([0.299, 0.587, 0.114], jnp.float32)).sum(3, keepdims=True)


def smoothed(images: jax.Array) -> jax.Array:
    """Each pixel averaged with its eight neighbours, at weight 5 of 13; border pixels stay. float32, shape kept."""
    pixels = images.astype(jnp.float32)
    _, height, width, _ = pixels.shape
    if min(height, width) < 3:
        return pixels
    columns = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    neighbourhoods = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
    inner = pixels[:, 1:-1, 1:-1]
    return pixels.at[:, 1:-1, 1:-1].set((neighbourhoods + 4 * inner) / 13)


def blend(images: jax.Array, others: jax.Array | float, factors: jax.Array) -> jax.Array:
    """`others` at factor 0, `images` at 1, extrapolated above 1; clipped to 0..255, in the dtype of `images`."""
    factors = factors[:, None, None, None]
    return jnp.clip(factors * images + (1 - factors) * others, 0, 255).astype(images.dtype)
