"""Geometry: the same key gives the same result, and pixels are where PIL and numpy put them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flax_resnets import augment
from flax_resnets.augment.geometry import rotation, warp


def pictures(n: int, side: int, channels: int = 3) -> jax.Array:
    return jax.random.randint(jax.random.key(0), (n, side, side, channels), 0, 256).astype(jnp.uint8)


@settings(max_examples=10)
@given(
    low=st.floats(0.05, 1.0),
    ratio=st.floats(0.3, 1.0),
    size=st.sampled_from([8, 12, 20]),
    seed=st.integers(0, 2**31),
)
def test_a_crop_stays_inside_the_image(low, ratio, size, seed):
    ramp = jnp.broadcast_to(jnp.arange(16.0)[:, None, None] + 1, (4, 16, 16, 1))
    out = augment.random_resized_crop(jax.random.key(seed), ramp, size, (low, 1.0), (ratio, 1 / ratio))
    assert out.shape == (4, size, size, 1)
    assert float(out.min()) >= 1 - 1e-3  # no zeros from beyond the border
    assert float(out.max()) <= 16 + 1e-3
    assert (np.diff(np.asarray(out)[:, :, 0, 0], axis=1) > -1e-4).all()


def test_a_crop_covers_the_share_of_the_image_it_was_asked_for():
    ramp = jnp.broadcast_to(jnp.arange(64.0)[:, None, None], (256, 64, 64, 1))
    out = np.asarray(augment.random_resized_crop(jax.random.key(0), ramp, 64, (0.25, 0.25), (1.0, 1.0)))
    heights = (out[:, -2, 0, 0] - out[:, 1, 0, 0]) * 64 / 61
    np.testing.assert_allclose(heights, 32, rtol=0.02)
    tops = out[:, 0, 0, 0]
    assert tops.min() < 3
    assert tops.max() > 29  # everywhere between 0 and 32


def test_a_whole_crop_is_pils_resize():
    images = pictures(1, 40)
    out = augment.random_resized_crop(jax.random.key(0), images, 24, (1.0, 1.0), (1.0, 1.0))
    by_pil = np.asarray(Image.fromarray(np.asarray(images[0])).resize((24, 24), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(out[0], by_pil, atol=1.0)
    np.testing.assert_allclose(augment.resize(images.astype(jnp.float32), 24)[0], by_pil, atol=1.0)


def test_flip_mirrors_about_half_and_leaves_the_rest():
    images = pictures(400, 4)
    out = augment.random_flip(jax.random.key(0), images)
    mirrored = np.asarray((out == images[:, :, ::-1]).all((1, 2, 3)))
    kept = np.asarray((out == images).all((1, 2, 3)))
    assert (mirrored | kept).all()
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize(("dtype", "levels"), [(jnp.bfloat16, 3.0), (jnp.float16, 0.4)])
def test_a_crop_in_half_precision_is_float32s_to_its_rounding(dtype, levels: float):
    """The crop's place must not be rounded: an error of pixels would change noise by tens of 255 levels."""
    images = pictures(4, 60)
    crop = partial(augment.random_resized_crop, jax.random.key(1), size=48, scale=(0.35, 1.0), ratio=(3 / 4, 4 / 3))
    half = crop(images=images.astype(dtype))
    assert half.dtype == dtype
    np.testing.assert_allclose(half.astype(jnp.float32), crop(images=images.astype(jnp.float32)), atol=levels)


def smooth_picture(side: int) -> np.ndarray:
    """Float32 `(side, side)`, smooth: with noise, the smallest shift would make a large difference."""
    y, x = np.mgrid[:side, :side] / side
    return (127 + 60 * np.sin(5 * x + 3 * y) + 60 * np.cos(4 * y)).astype(np.float32)


@pytest.mark.parametrize("crop_pct", [1.0, 0.9, 0.875, 0.5, 0.01])
def test_a_centre_crop_keeps_its_share_of_each_side_around_the_middle(crop_pct: float):
    ramp = jnp.broadcast_to(jnp.arange(24.0)[:, None, None], (1, 24, 40, 1))
    out = augment.centre_crop(ramp, crop_pct)
    assert out.shape == (1, max(1, round(24 * crop_pct)), max(1, round(40 * crop_pct)), 1)
    assert abs(float(out.mean()) - 11.5) <= 0.5


def test_translation_is_a_crop_of_the_mirrored_image():
    images = np.asarray(pictures(64, 9))
    out = np.asarray(augment.random_translate(jax.random.key(0), jnp.asarray(images), 2))
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    found = []
    for i, image in enumerate(out):
        places = [(y, x) for y in range(5) for x in range(5) if (padded[i, y : y + 9, x : x + 9] == image).all()]
        assert len(places) == 1
        found += places
    assert {y for y, _ in found} == {x for _, x in found} == set(range(5))  # each shift from -2 to 2 in each direction


@settings(max_examples=10)
@given(angle=st.floats(-180, 180))
def test_a_rotation_is_pils(angle: float):
    image = smooth_picture(33)
    sources = rotation(jnp.radians(jnp.array([angle])), jnp.zeros(1), 33, 33)
    out = np.asarray(warp(jnp.asarray(image)[None, :, :, None], sources, "mirror"))[0, :, :, 0]
    by_pil = np.asarray(Image.fromarray(image).rotate(angle, Image.Resampling.BILINEAR))
    y, x = np.mgrid[:33, :33] - 16
    inside = np.hypot(y, x) < 16
    np.testing.assert_allclose(out[inside], by_pil[inside], atol=0.05)


def test_a_slope_moves_rows_sideways_about_the_middle_one():
    image = smooth_picture(33)
    out = np.asarray(warp(jnp.asarray(image)[None, :, :, None], rotation(jnp.zeros(1), jnp.ones(1), 33, 33), "mirror"))
    for row, right in ((16, 0), (18, 2), (11, -5)):
        np.testing.assert_allclose(out[0, row, 8:-8, 0], np.roll(image[row], right)[8:-8], atol=1e-3)


@pytest.mark.parametrize(("dx", "dy"), [(0.0, 0.0), (3.0, -2.0), (-11.0, 30.0), (0.25, 0.5)])
def test_a_mirrored_border_is_numpys_reflect(dx: float, dy: float):
    image = np.asarray(pictures(1, 10, 1), np.float32)[0, :, :, 0]
    out = warp(jnp.asarray(image)[None, :, :, None], jnp.array([[[1, 0, dx], [0, 1, dy]]]), "mirror")[0, :, :, 0]
    padded = np.pad(image, 40, mode="reflect")
    top, left = 40 + int(np.floor(dy)), 40 + int(np.floor(dx))
    fy, fx = dy % 1, dx % 1
    part = padded[top : top + 11, left : left + 11]
    rows = (1 - fy) * part[:-1] + fy * part[1:]
    np.testing.assert_allclose(out, (1 - fx) * rows[:, :-1] + fx * rows[:, 1:], atol=1e-3)


def test_beyond_a_black_border_is_black():
    image = jnp.full((1, 4, 4, 1), 100.0)
    out = warp(image, jnp.array([[[1, 0, 2.0], [0, 1, 0]]]), "black")
    np.testing.assert_array_equal(out[0, :, :, 0], [[100, 100, 0, 0]] * 4)


def test_one_pixel_mirrors_to_itself():
    out = warp(jnp.full((1, 1, 1, 1), 7.0), jnp.array([[[1, 0, 0.4], [0, 1, 5]]]), "mirror")
    assert float(out.squeeze()) == pytest.approx(7)


def test_each_image_turns_and_slants_by_its_own_draw_within_the_bounds():
    """The gradient of a ramp shows the rotation, as (sin, cos), and the shear."""
    y, x = np.mgrid[:65, :65].astype(np.float32)
    ramps = jnp.broadcast_to(jnp.asarray(np.stack([x, y], axis=2)), (100, 65, 65, 2))
    out = np.asarray(augment.random_affine(jax.random.key(0), ramps, rotate=20.0, shear=10.0))
    across, down = out[:, 32, 33] - out[:, 32, 31], out[:, 33, 32] - out[:, 31, 32]
    x_across, y_across = across.T / 2
    x_down, y_down = down.T / 2
    angles = np.degrees(np.arctan2(y_across, y_down))
    np.testing.assert_allclose(x_across * y_down - y_across * x_down, 1, atol=1e-3)  # areas do not change
    radians = np.radians(angles)
    slants = np.degrees(np.arctan(-x_down * np.cos(radians) - x_across * np.sin(radians)))
    for drawn, limit in ((angles, 20), (slants, 10)):
        assert np.abs(drawn).max() <= limit * 1.001
        assert drawn.max() > 0.8 * limit
        assert drawn.min() < -0.8 * limit
    assert abs(np.corrcoef(angles, slants)[0, 1]) < 0.3


@pytest.mark.parametrize(("dtype", "levels"), [(jnp.bfloat16, 1.0)])
def test_a_warp_in_half_precision_is_float32s_to_its_rounding(dtype, levels: float):
    images = pictures(4, 40)
    turn = partial(augment.random_affine, jax.random.key(1), rotate=30.0, shear=10.0)
    half = turn(images=images.astype(dtype))
    assert half.dtype == dtype
    np.testing.assert_allclose(half.astype(jnp.float32), turn(images=images.astype(jnp.float32)), atol=levels)
