"""Posterize, solarize, autocontrast and equalize, as PIL's `ImageOps` and torchvision define them.

Images are `(N, H, W, C)` of any float dtype, with pixels of 0 to 255. Each image or channel is changed independently.
"""

import jax
import jax.numpy as jnp


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
    """Rounds pixels to whole levels and keeps their highest bits; `bits` is int `(N,)`, from 1 to 8 for each image.

    Example:
        >>> posterize(jnp.full((1, 1, 1, 1), 255.0), jnp.array([1])).squeeze().tolist()
        128.0
    """
    dropped = 8 - bits[:, None, None, None]
    return ((_whole(images) >> dropped) << dropped).astype(images.dtype)


def solarize(images: jax.Array, thresholds: jax.Array) -> jax.Array:
    """Inverts the pixels at or above a threshold; thresholds are `(N,)`.

    Example:
        >>> solarize(jnp.array([[[[10.0], [200.0]]]]), jnp.array([128.0])).squeeze().tolist()
        [10.0, 55.0]
    """
    return jnp.where(images >= thresholds[:, None, None, None], 255 - images, images)


def autocontrast(images: jax.Array) -> jax.Array:
    """Stretches each channel to the range from 0 to 255; a channel with one level only stays as it is.

    Example:
        >>> autocontrast(jnp.array([[[[50.0], [75.0], [100.0]]]])).squeeze().tolist()
        [0.0, 127.5, 255.0]
    """
    pixels = images.astype(jnp.float32)
    low, high = pixels.min((1, 2), keepdims=True), pixels.max((1, 2), keepdims=True)
    spread = (pixels - low) * (255 / jnp.where(high == low, 1, high - low))
    return jnp.where(high == low, pixels, spread).astype(images.dtype)


def equalize(images: jax.Array) -> jax.Array:
    """Makes the histogram of each channel as flat as whole levels allow, after rounding pixels to whole levels.

    Let n be the number of pixels below the highest level that occurs. A level becomes the number of pixels below it,
    divided by n // 255. With n below 255, the channel is only rounded.

    Example:
        >>> equalize(jnp.arange(100.0, 164.0).repeat(8).reshape(1, 16, 32, 1)).max().tolist()
        255.0
    """
    per_channel = jax.vmap(jax.vmap(_equalized, in_axes=2, out_axes=2))
    return per_channel(_whole(images)).astype(images.dtype)


def _equalized(pixels: jax.Array) -> jax.Array:
    """`equalize` for one channel, int `(H, W)`."""
    counts = jnp.zeros(256, jnp.int32).at[pixels].add(1, mode="promise_in_bounds")
    below = jnp.cumsum(counts) - counts
    step = below[pixels.max()] // 255
    equal = jnp.minimum((below + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step == 0, jnp.arange(256), equal).at[pixels].get(mode="promise_in_bounds")


def _whole(images: jax.Array) -> jax.Array:
    return jnp.round(images).astype(jnp.int32)
