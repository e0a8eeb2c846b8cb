"""Resizing images, or a rectangle of each, bilinearly and with antialiasing, in two ways that give the same pixels.

A pixel of the result is a sum of few pixels of the image, the taps. Accelerators multiply with matrices of mostly zeros
faster than they gather. On CPUs gathering the taps takes a tenth of the time.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

_MOST_TAPS = 8  # with more, the program takes longer to compile and is hardly faster


@partial(jax.jit, static_argnames="size")  # so that calls outside of a program compile once for each shape
def resized_crop(images: jax.Array, corners: jax.Array, sides: jax.Array, size: int) -> jax.Array:
    """Cuts a rectangle out of each image and resizes it to a square, bilinearly and antialiased like PIL's resize.

    Args:
        images: `(N, H, W, C)`, any real dtype.
        corners: float32 `(N, 2)`, upper left corner of each rectangle: row and column in pixels, not rounded.
        sides: float32 `(N, 2)`, height and width of each rectangle in pixels, not rounded. The rectangle must lie
            inside the image.
        size: side of the result, in pixels.

    Returns:
        `(N, size, size, C)`, in the dtype of the images; float32 for integers.

    Example:
        >>> ramp = jnp.arange(4.0)[None, :, None, None]
        >>> corner, side = jnp.array([[1.0, 0.0]]), jnp.array([[2.0, 1.0]])
        >>> resized_crop(ramp, corner, side, 2)[0, :, 0, 0].tolist()
        [1.0, 2.0]
    """
    images = _as_floats(images)
    by_products = jax.vmap(partial(_by_products, size=size))
    if not _has_few_taps(images, size):
        return by_products(images, corners, sides)
    by_taps = partial(_by_taps, size=size)
    return jax.lax.platform_dependent(images, corners, sides, cpu=by_taps, default=by_products)


@partial(jax.jit, static_argnames="size")
def resize(images: jax.Array, size: int) -> jax.Array:
    """Resizes images to squares, bilinearly and antialiased like PIL's resize. Images of that size stay as they are.

    Args:
        images: `(N, H, W, C)`, any real dtype.
        size: side of the result, in pixels.

    Returns:
        `(N, size, size, C)`, in the dtype of the images; float32 for integers, if their size changes.

    Example:
        >>> resize(jnp.zeros((2, 40, 40, 3)), 32).shape
        (2, 32, 32, 3)
    """
    n, height, width, channels = images.shape
    if height == width == size:
        return images
    images = _as_floats(images)

    def by_products(images: jax.Array) -> jax.Array:
        return jax.image.resize(images, (n, size, size, channels), "bilinear", antialias=True)

    symbolic = not all(isinstance(length, int) for length in images.shape)  # in a program for `jax.export`
    if symbolic or not _has_few_taps(images, size):
        return by_products(images)

    def by_taps(images: jax.Array) -> jax.Array:
        whole = jnp.array([height, width], jnp.float32)
        return _by_taps(images, jnp.zeros((n, 2)), jnp.broadcast_to(whole, (n, 2)), size)

    return jax.lax.platform_dependent(images, cpu=by_taps, default=by_products)


def _as_floats(images: jax.Array) -> jax.Array:
    return images if jnp.issubdtype(images.dtype, jnp.floating) else images.astype(jnp.float32)


def _has_few_taps(images: jax.Array, size: int) -> bool:
    return all(_taps(side, size) <= _MOST_TAPS for side in images.shape[1:3])


def _by_products(image: jax.Array, corner: jax.Array, side: jax.Array, size: int) -> jax.Array:
    """Two small matrix products for one image."""
    zoom = size / side
    shape = (size, size, image.shape[2])
    return jax.image.scale_and_translate(image, shape, (0, 1), zoom, -corner * zoom, "bilinear", antialias=True)


def _by_taps(images: jax.Array, corners: jax.Array, sides: jax.Array, size: int) -> jax.Array:
    """A sum over the taps of each row of the result, and then of each column."""
    n, height, width, channels = images.shape
    rows, row_weights = _places_and_weights(corners[:, 0], sides[:, 0], height, size)
    columns, column_weights = _places_and_weights(corners[:, 1], sides[:, 1], width, size)
    # The barriers put places, weights and summed rows in memory: XLA would compute them again for each pixel's use.
    rows, row_weights, columns, column_weights = jax.lax.optimization_barrier(
        (rows, row_weights, columns, column_weights)
    )
    # A row's pixels and channels lie side by side in memory: as one axis, they are summed many at a time.
    flat = images.reshape(n, height, width * channels)
    tall = sum(row_weights[:, :, tap, None] * jax.vmap(taken)(flat, rows[:, :, tap]) for tap in range(rows.shape[2]))
    tall = jax.lax.optimization_barrier(tall).reshape(n, size, width, channels)
    square = sum(
        column_weights[:, None, :, tap, None] * jax.vmap(jax.vmap(taken, (0, None)))(tall, columns[:, :, tap])
        for tap in range(columns.shape[2])
    )
    return jnp.asarray(square, images.dtype)


def _taps(side: int, size: int) -> int:
    """The most pixels in a row or column of an image that count for one pixel of the result."""
    return math.ceil(2 * max(1, side / size))


def _places_and_weights(corner: jax.Array, side: jax.Array, length: int, size: int) -> tuple[jax.Array, jax.Array]:
    """The places of the taps in an image's row or column of this length, and their weights: both `(N, size, taps)`."""
    pixel = (side / size)[:, None]  # a pixel of the result, in pixels of the image
    centres = corner[:, None] + (jnp.arange(size) + 0.5) * pixel - 0.5
    reach = jnp.maximum(pixel, 1)
    first = jnp.ceil(centres - reach)
    places = first[:, :, None] + jnp.arange(_taps(length, size))
    weights = jnp.maximum(0, 1 - jnp.abs(places - centres[:, :, None]) / reach[:, :, None])
    weights = jnp.where((places >= 0) & (places < length), weights, 0)
    return jnp.clip(places, 0, length - 1).astype(jnp.int32), weights / weights.sum(2, keepdims=True)


def taken(rows: jax.Array, places: jax.Array) -> jax.Array:
    """The rows at these places, all of which must be in range."""
    return rows.at[places].get(mode="promise_in_bounds")
