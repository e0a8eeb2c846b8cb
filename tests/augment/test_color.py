"""Colours, compared with PIL's ImageEnhance and the standard library's colorsys."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageEnhance

from flax_resnets.augment import color

PIXELS = hnp.arrays(np.uint8, (5, 6, 3))


def floats(pixels: np.ndarray) -> jax.Array:
    return jnp.asarray(pixels, jnp.float32)[None]


@pytest.mark.parametrize(
    ("change", "enhancer"),
    [
        (color.brightness, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturation, ImageEnhance.Color),
        (color.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_a_blend_is_pils(change, enhancer):
    @settings(max_examples=10)
    @given(pixels=PIXELS, factor=st.floats(0, 2))
    def check(pixels: np.ndarray, factor: float):
        out = np.asarray(change(floats(pixels), jnp.array([factor], jnp.float32)))[0]
        by_pil = np.asarray(enhancer(Image.fromarray(pixels)).enhance(factor), np.float32)
        # PIL rounds the image it blends with (by up to half a level) and the result (by up to one).
        np.testing.assert_allclose(out, by_pil, atol=1.75)

    check()


@settings(max_examples=10)
@given(pixels=PIXELS, turn=st.floats(-0.5, 0.5))
def test_hue_turns_the_hsv_colour(pixels: np.ndarray, turn: float):
    turn = float(np.float32(turn))
    out = np.asarray(color.hue(floats(pixels), jnp.array([turn])))[0]
    for pixel, turned in zip(pixels.reshape(-1, 3), out.reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        np.testing.assert_allclose(turned / 255, colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value), atol=1e-4)


@pytest.mark.parametrize("change", [color.brightness, color.contrast, color.saturation, color.sharpness])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_factor_of_one_changes_nothing_and_results_stay_in_range(change, dtype):
    images = jax.random.randint(jax.random.key(0), (3, 8, 8, 3), 0, 256).astype(dtype)
    np.testing.assert_array_equal(change(images, jnp.ones(3)), images)
    out = change(images, jnp.array([0.0, 1.5, 3.0]))
    assert out.dtype == dtype
    assert 0 <= float(out.min()) <= float(out.max()) <= 255


def test_each_image_has_its_own_factor():
    out = color.brightness(jnp.full((3, 2, 2, 1), 100.0), jnp.array([0.5, 1.0, 2.0]))
    np.testing.assert_allclose(out[:, 0, 0, 0], [50, 100, 200])


def test_one_channel_has_neither_saturation_nor_hue():
    images = jax.random.uniform(jax.random.key(0), (2, 4, 4, 1), maxval=255)
    assert color.saturation(images, jnp.zeros(2)) is images
    assert color.hue(images, jnp.full(2, 0.3)) is images
    assert color.color_jitter(jax.random.key(0), images, 0.0, 0.0, 0.9, 0.5) is images
    contrasted = color.contrast(images, jnp.zeros(2))
    np.testing.assert_allclose(
        contrasted, np.broadcast_to(np.asarray(images).mean((1, 2, 3), keepdims=True), (2, 4, 4, 1))
    )


def test_an_image_too_small_for_neighbours_is_not_sharpened():
    images = jax.random.uniform(jax.random.key(0), (1, 2, 5, 3), maxval=255)
    np.testing.assert_allclose(color.sharpness(images, jnp.zeros(1)), images)


@pytest.mark.parametrize("strength", [0.3, 1.5])
def test_jitter_draws_each_images_factor_uniformly_about_one(strength: float):
    images = jnp.full((500, 1, 1, 1), 10.0)
    out = color.color_jitter(jax.random.key(0), images, strength, 0.0, 0.0, 0.0)
    factors = np.asarray(out).ravel() / 10
    low, high = max(0.0, 1 - strength), 1 + strength
    assert low <= factors.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < factors.max() <= high + 1e-5
    assert factors.mean() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


def test_jitter_is_one_of_the_orders_of_its_changes_and_orders_vary():
    """White stays white if brightness comes first and is clipped, but not if contrast comes first."""
    images = jnp.concatenate([jnp.full((1, 1, 1, 1), 255.0), jnp.zeros((1, 1, 1, 1))], axis=1)
    jitter = jax.jit(lambda key: color.color_jitter(key, images, 1.0, 1.0, 0.0, 0.0))
    seen = set()
    for seed in range(20):
        key = jax.random.key(seed)
        out = np.asarray(jitter(key)).ravel()
        _, brightness_key, contrast_key, _, _ = jax.random.split(key, 5)
        bright = np.asarray(jax.random.uniform(brightness_key, (1,), maxval=2.0))
        strong = np.asarray(jax.random.uniform(contrast_key, (1,), maxval=2.0))
        pixels = np.array([255.0, 0.0])

        def brighten(pixels: np.ndarray, factor: np.ndarray = bright) -> np.ndarray:
            return np.clip(pixels * factor, 0, 255)

        def strengthen(pixels: np.ndarray, factor: np.ndarray = strong) -> np.ndarray:
            return np.clip(factor * pixels + (1 - factor) * pixels.mean(), 0, 255)

        first, second = strengthen(brighten(pixels)), brighten(strengthen(pixels))
        fits = np.allclose(out, first, atol=1e-2), np.allclose(out, second, atol=1e-2)
        assert any(fits)
        seen.add(fits)
    assert {(True, False), (False, True)} <= seen


def test_jitter_depends_on_its_key_alone_and_without_strength_is_nothing():
    images = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3), maxval=255).astype(jnp.bfloat16)
    jitter = jax.jit(lambda key: color.color_jitter(key, images, 0.4, 0.4, 0.4, 0.1))
    assert jitter(jax.random.key(0)).dtype == jnp.bfloat16
    np.testing.assert_array_equal(jitter(jax.random.key(0)), jitter(jax.random.key(0)))
    assert bool((jitter(jax.random.key(0)) != jitter(jax.random.key(1))).any())
    assert color.color_jitter(jax.random.key(0), images, 0.0, 0.0, 0.0, 0.0) is images
