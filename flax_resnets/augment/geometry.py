"""Geometry: crops, flips, shifts and rotations."""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.augment.resampling import resize, resized_crop, taken
from flax_resnets.fields import Rule


@dataclass(frozen=True, kw_only=True)
class RandomResizedCrop(Augmentation):
    """Crops a random part of the image, or takes all of it, and resizes it; see `random_resized_crop`.

    Attributes:
        crop_scale: smallest and largest share of the image's area that the random crop takes; (1, 1) for no crop.
        crop_ratio: smallest and largest aspect ratio of the crop, width over height.
    """

    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)

    DRAWS = 0
    RULES = (
        Rule("crop_scale", lambda v: 0 < v[0] <= v[1] <= 1, "two shares above 0 and up to 1, the smaller first"),
        Rule("crop_ratio", lambda v: 0 < v[0] <= v[1], "two numbers above 0, the smaller first"),
    )

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        if self.crop_scale == (1.0, 1.0):
            return resize(images, size)
        return random_resized_crop(key, images, size, self.crop_scale, self.crop_ratio)


@dataclass(frozen=True, kw_only=True)
class RandomFlip(Augmentation):
    """Random mirroring; see `random_flip`.

    Attributes:
        flip: mirror half of the training images left to right.
    """

    flip: bool = True

    DRAWS = 1

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        return random_flip(key, images) if self.flip else images


@dataclass(frozen=True, kw_only=True)
class RandomTranslate(Augmentation):
    """Random shifts; see `random_translate`.

    Attributes:
        translate: largest shift of a training image in pixels, in each direction; empty borders are filled by
            mirroring. 0 for none.
    """

    translate: int = 0

    DRAWS = 3
    RULES = (Rule("translate", lambda v: v >= 0, "at least 0"),)

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        return random_translate(key, images, self.translate) if self.translate else images


@dataclass(frozen=True, kw_only=True)
class RandomAffine(Augmentation):
    """Random rotation and shear; see `random_affine`.

    Attributes:
        rotate: largest rotation of a training image in degrees, in either direction.
        shear: largest shear in degrees, in either direction.
    """

    rotate: float = 0.0
    shear: float = 0.0

    DRAWS = 4
    RULES = (
        Rule("rotate", lambda v: 0 <= v <= 180, "from 0 to 180 degrees"),
        Rule("shear", lambda v: 0 <= v < 90, "at least 0 and below 90 degrees"),
    )

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        return random_affine(key, images, self.rotate, self.shear) if self.rotate or self.shear else images


def random_resized_crop(
    key: jax.Array, images: jax.Array, size: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> jax.Array:
    """Cuts a random rectangle out of each image and resizes it to a square.

    Szegedy et al. 2014, arXiv:1409.4842, section 6: the area is uniform over `scale` times the image's area, the
    logarithm of the aspect ratio is uniform over the logarithms of `ratio`. A side longer than the image is cut to the
    image's side, where torchvision draws again: a device cannot loop a different number of times for each image.

    Args:
        key: PRNG key; the crop of image i depends on the key and on i alone.
        images: `(N, H, W, C)`, any float dtype.
        size: side of the result, in pixels.
        scale: smallest and largest share of the area.
        ratio: smallest and largest width over height.

    Returns:
        `(N, size, size, C)`, in the dtype of the images.

    Example:
        >>> images = jnp.ones((2, 40, 40, 3))
        >>> random_resized_crop(jax.random.key(0), images, 32, (0.35, 1.0), (3 / 4, 4 / 3)).shape
        (2, 32, 32, 3)
    """
    n, height, width, _ = images.shape
    area_key, ratio_key, place_key = jax.random.split(key, 3)
    area = height * width * jax.random.uniform(area_key, (n,), minval=scale[0], maxval=scale[1])
    aspect = jnp.exp(jax.random.uniform(ratio_key, (n,), minval=math.log(ratio[0]), maxval=math.log(ratio[1])))
    sides = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=1)
    limits = jnp.array([height, width], jnp.float32)
    sides = jnp.minimum(sides, limits)
    corners = jax.random.uniform(place_key, (n, 2)) * (limits - sides)

    return resized_crop(images, corners, sides, size)


def random_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image left to right with probability one half. Images are `(N, H, W, C)`, shape and dtype kept.

    Example:
        >>> random_flip(jax.random.key(0), jnp.zeros((2, 4, 4, 1))).shape
        (2, 4, 4, 1)
    """
    mirrored = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def centre_crop(images: jax.Array, crop_pct: float) -> jax.Array:
    """Keeps the centre of each image: `crop_pct` of each side, rounded to whole pixels.

    Args:
        images: `(N, H, W, C)`, any dtype.
        crop_pct: share of a side, above 0 and up to 1; 1 returns the images untouched.

    Example:
        >>> centre_crop(jnp.zeros((2, 40, 40, 3)), 0.875).shape
        (2, 35, 35, 3)
    """
    if crop_pct == 1:  # also of images of symbolic size, in a program that `jax.export` makes
        return images
    n, height, width, channels = images.shape
    kept_height, kept_width = (max(1, round(crop_pct * side)) for side in (height, width))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    # Not by indexing, which gathers where the batch has a symbolic size.
    return jax.lax.slice(images, (0, top, left, 0), (n, top + kept_height, left + kept_width, channels))


def random_translate(key: jax.Array, images: jax.Array, pixels: int) -> jax.Array:
    """Shifts each image by whole pixels, uniform from `-pixels` to `pixels` in each direction, and mirrors the border.

    The pad-and-crop of He et al. 2015, arXiv:1512.03385, section 4.2. Their border is black; this one is mirrored
    without repeating the pixel at the edge (`reflect` in numpy).

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, any dtype.
        pixels: largest shift.

    Returns:
        Shape and dtype of `images`.

    Example:
        >>> random_translate(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), 4).shape
        (2, 32, 32, 3)
    """
    around = (pixels, pixels)
    padded = jnp.pad(images, ((0, 0), around, around, (0, 0)), mode="reflect")
    corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pixels + 1)

    def crop(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, corners)


def random_affine(key: jax.Array, images: jax.Array, rotate: float, shear: float) -> jax.Array:
    """Rotates and shears each image about its centre in one bilinear warp; empty borders are filled by mirroring.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, any float dtype.
        rotate: largest rotation in degrees, in either direction; uniform.
        shear: largest slant of vertical lines in degrees, in either direction; uniform.

    Returns:
        Shape and dtype of `images`.

    Example:
        >>> random_affine(jax.random.key(0), jnp.zeros((2, 32, 32, 3)), rotate=10.0, shear=5.0).shape
        (2, 32, 32, 3)
    """
    n, height, width, _ = images.shape
    angles, slants = jnp.radians(jax.random.uniform(key, (2, n), minval=-1) * jnp.array([[rotate], [shear]]))
    return warp(images, rotation(angles, jnp.tan(slants), height, width), "mirror")


def rotation(angles: jax.Array, slopes: jax.Array, height: int, width: int) -> jax.Array:
    """The matrices with which `warp` shears images and then rotates them about their centre.

    Args:
        angles: `(N,)`, radians counterclockwise.
        slopes: `(N,)`, pixels to the right for each pixel down.
        height: of the images, in pixels.
        width: of the images, in pixels.

    Returns:
        float32 `(N, 2, 3)`.
    """
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    linear = jnp.stack([jnp.stack([cos - slopes * sin, -sin - slopes * cos], 1), jnp.stack([sin, cos], 1)], axis=1)
    centre = jnp.array([width / 2, height / 2])
    # Not a matrix product: accelerators would round its inputs to bfloat16.
    return jnp.concatenate([linear, (centre - (linear * centre).sum(2))[:, :, None]], axis=2)


def warp(images: jax.Array, sources: jax.Array, border: Literal["mirror", "black"]) -> jax.Array:
    """Fills each pixel of the result with the pixel of the image that an affine map points to, interpolated bilinearly.

    Args:
        images: `(N, H, W, C)`, any float dtype.
        sources: float32 `(N, 2, 3)`. Multiplied with a place `(x, y, 1)` in the result, it gives the place `(x, y)` in
            the image to read from. Places are in pixels from the upper left corner, so the centre of the first pixel is
            (0.5, 0.5).
        border: what lies beyond the image: its mirror image, without the edge pixel repeated, or black.

    Returns:
        Shape and dtype of `images`.

    Example:
        >>> image = jnp.array([[10.0, 20.0, 30.0]])[None, :, :, None]
        >>> half_a_pixel_left = jnp.array([[[1, 0, 0.5], [0, 1, 0]]])
        >>> warp(image, half_a_pixel_left, "mirror").squeeze().tolist()
        [15.0, 25.0, 25.0]
    """
    n, height, width, channels = images.shape
    y, x = jnp.meshgrid(jnp.arange(height) + 0.5, jnp.arange(width) + 0.5, indexing="ij")
    columns, rows = (
        sources[:, i, 0, None, None] * x + sources[:, i, 1, None, None] * y + sources[:, i, 2, None, None] - 0.5
        for i in (0, 1)
    )
    if border == "mirror":
        columns, rows = _mirrored(columns, width), _mirrored(rows, height)
    pixels = images.reshape(n, height * width, channels)
    left, top = jnp.floor(columns), jnp.floor(rows)
    result = jnp.zeros(images.shape, jnp.float32)
    for row, row_weight in ((top, top + 1 - rows), (top + 1, rows - top)):
        for column, column_weight in ((left, left + 1 - columns), (left + 1, columns - left)):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            places = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
            # One index for all channels of a pixel: they lie side by side in memory.
            found = jax.vmap(taken)(pixels, places.astype(jnp.int32))
            result += (inside * row_weight * column_weight)[..., None] * found
    return result.astype(images.dtype)


def _mirrored(places: jax.Array, side: int) -> jax.Array:
    if side == 1:
        return jnp.zeros_like(places)
    period = 2 * (side - 1)
    places = jnp.abs(places) % period
    return jnp.minimum(places, period - places)
