"""Resized images and crops are PIL's and jax's, whichever of the two ways computes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flax_resnets.augment.resampling import resize, resized_crop

# Height and width of the images, side of the result: larger, smaller, and with so many pixels for one that a CPU
# multiplies with matrices too.
SHAPES = [((30, 40), 24), ((16, 16), 40), ((80, 60), 12), ((200, 40), 10), ((1, 5), 4)]


def pictures(n: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, height, width, 3), np.uint8)


def crops(n: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners and sides of n rectangles, the first of which is the whole image."""
    draw = np.random.default_rng(seed)
    limits = np.array([height, width], np.float32)
    sides = (draw.uniform(0.1, 1, (n, 2)) * limits).astype(np.float32)
    sides[0] = limits
    return (draw.uniform(0, 1, (n, 2)) * (limits - sides)).astype(np.float32), sides


@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_a_crop_is_pils_resize_of_the_rectangle(shape: tuple[int, int], size: int):
    images = pictures(3, *shape)
    corners, sides = crops(3, *shape, seed=1)
    out = np.asarray(resized_crop(jnp.asarray(images, jnp.float32), jnp.asarray(corners), jnp.asarray(sides), size))
    for image, result, (top, left), (height, width) in zip(images, out, corners, sides, strict=True):
        box = left, top, min(left + width, shape[1]), min(top + height, shape[0])
        for channel in range(3):  # in float, for which PIL does not round in between
            of_pil = Image.fromarray(image[:, :, channel].astype(np.float32)).resize(
                (size, size), Image.Resampling.BILINEAR, box=tuple(map(float, box))
            )
            np.testing.assert_allclose(result[:, :, channel], np.asarray(of_pil), atol=0.05)


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31))
def test_a_crop_is_jaxs(shape_and_size: tuple[tuple[int, int], int], seed: int):
    shape, size = shape_and_size
    images = jnp.asarray(pictures(2, *shape), jnp.float32)
    corners, sides = crops(2, *shape, seed)
    out = resized_crop(images, jnp.asarray(corners), jnp.asarray(sides), size)
    for image, result, corner, side in zip(images, out, corners, sides, strict=True):
        zoom = size / side
        of_jax = jax.image.scale_and_translate(
            image, (size, size, 3), (0, 1), jnp.asarray(zoom), jnp.asarray(-corner * zoom), "bilinear"
        )
        np.testing.assert_allclose(result, of_jax, atol=0.05)  # of 255


@pytest.mark.parametrize(("shape", "size"), SHAPES)
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.float32, jnp.bfloat16])
def test_a_resized_image_is_jaxs(shape: tuple[int, int], size: int, dtype):
    images = jnp.asarray(pictures(2, *shape)).astype(dtype)
    out = resize(images, size)
    of_jax = jax.image.resize(images.astype(jnp.float32), (2, size, size, 3), "bilinear")
    assert out.dtype == (jnp.float32 if dtype == jnp.uint8 else dtype)
    np.testing.assert_allclose(out.astype(jnp.float32), of_jax, atol=3 if dtype == jnp.bfloat16 else 0.05)  # of 255


def test_an_image_of_that_size_stays_as_it_is():
    images = jnp.asarray(pictures(2, 20, 20))
    assert (resize(images, 20) == images).all()
    assert resize(images, 20).dtype == jnp.uint8
