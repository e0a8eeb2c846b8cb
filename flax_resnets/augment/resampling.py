"""Cutting a rectangle out of each image and resizing it, with antialiasing, in two ways that give the same pixels."""

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

    def by_products(images: jax.Array, corners: jax.Array, sides: jax.Array) -> jax.Array:
        return jax.vmap(partial(_by_products, size=size))(images, corners, sides)

    def by_taps(images: jax.Array, corners: jax.Array, sides: jax.Array) -> jax.Array:
        return _by_taps(images, corners, sides, size)

    if not jnp.issubdtype(images.dtype, jnp.floating):
        images = images.astype(jnp.float32)
    if max(_taps(side, size) for side in images.shape[1:3]) > _MOST_TAPS:
        return by_products(images, corners, sides)
    # A pixel of the result is a sum of few pixels, the taps. Accelerators multiply with matrices of mostly zeros faster
    # than they gather; on CPUs gathering is ten times as fast.
    return jax.lax.platform_dependent(images, corners, sides, cpu=by_taps, default=by_products)


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
    # With the weights and the rows in memory; otherwise XLA computes them again for each pixel that uses them.
    rows, row_weights, columns, column_weights = jax.lax.optimization_barrier(
        (rows, row_weights, columns, column_weights)
    )
    # A row's pixels and channels lie side by side in memory: as one axis, they are summed many at a time.
    flat = images.reshape(n, height, width * channels)
    tall = sum(row_weights[:, :, tap, None] * jax.vmap(_take)(flat, rows[:, :, tap]) for tap in range(rows.shape[2]))
    tall = jax.lax.optimization_barrier(tall).reshape(n, size, width, channels)
    square = sum(
        column_weights[:, None, :, tap, None] * jax.vmap(jax.vmap(_take, (0, None)))(tall, columns[:, :, tap])
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


def _take(rows: jax.Array, places: jax.Array) -> jax.Array:
    return rows.at[places].get(mode="promise_in_bounds")
