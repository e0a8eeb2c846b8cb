"""Levels, compared with PIL's ImageOps."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from flax_resnets.augment import levels


@st.composite
def narrow(draw: st.DrawFn) -> np.ndarray:
    """Two images whose channels have different ranges; one channel has a single level."""
    seed = draw(st.integers(0, 2**32 - 1))
    ends = draw(hnp.arrays(np.int64, (2, 2, 3), elements=st.integers(0, 255)))
    low, high = ends.min(0)[:, None, None, :], ends.max(0)[:, None, None, :]
    return np.random.default_rng(seed).integers(low, high + 1, (2, 24, 30, 3)).astype(np.uint8)


@settings(max_examples=10)
@given(pixels=narrow(), bits=st.tuples(st.integers(1, 8), st.integers(1, 8)))
def test_posterize_is_pils(pixels: np.ndarray, bits: tuple[int, int]):
    out = levels.posterize(jnp.asarray(pixels, jnp.float32), jnp.array(bits))
    for image, own, result in zip(pixels, bits, out, strict=True):
        np.testing.assert_array_equal(result, np.asarray(ImageOps.posterize(Image.fromarray(image), own)))


@settings(max_examples=10)
@given(pixels=narrow(), thresholds=st.tuples(st.integers(0, 256), st.integers(0, 256)))
def test_solarize_is_pils(pixels: np.ndarray, thresholds: tuple[int, int]):
    out = levels.solarize(jnp.asarray(pixels, jnp.float32), jnp.array(thresholds))
    for image, own, result in zip(pixels, thresholds, out, strict=True):
        np.testing.assert_array_equal(result, np.asarray(ImageOps.solarize(Image.fromarray(image), own)))


@settings(max_examples=10)
@given(pixels=narrow())
def test_autocontrast_is_pils_but_for_its_rounding_down(pixels: np.ndarray):
    out = levels.autocontrast(jnp.asarray(pixels, jnp.float32))
    for image, result in zip(pixels, out, strict=True):
        np.testing.assert_allclose(result, np.asarray(ImageOps.autocontrast(Image.fromarray(image))), atol=1.001)


@settings(max_examples=10)
@given(pixels=narrow())
def test_equalize_is_pils(pixels: np.ndarray):
    out = levels.equalize(jnp.asarray(pixels, jnp.float32))
    for image, result in zip(pixels, out, strict=True):
        np.testing.assert_array_equal(result, np.asarray(ImageOps.equalize(Image.fromarray(image))))


@pytest.mark.parametrize("pixel", [0, 9, 255])
def test_one_level_alone_stays_what_it_is(pixel: int):
    images = jnp.full((1, 20, 20, 1), pixel, jnp.bfloat16)
    for change in (levels.autocontrast, levels.equalize):
        out = change(images)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_array_equal(out, images)


def test_pixels_between_levels_are_rounded_to_them():
    images = jnp.array([99.6, 100.4, 127.5]).reshape(1, 1, 3, 1)
    assert levels.posterize(images, jnp.array([8])).ravel().tolist() == [100, 100, 128]
    assert levels.equalize(images).ravel().tolist() == [100, 100, 128]  # too few pixels to spread
