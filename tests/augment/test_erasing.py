"""Random erasing: the sizes of the rectangles, and the noise in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets.augment import random_erasing


def erased_rectangles(out: np.ndarray) -> np.ndarray:
    """The rectangles that changed in images that were 9 everywhere: (top, left, height, width) of each."""
    found = []
    for image in out:
        changed = (image != 9).any(2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        rectangle = rows[0], columns[0], len(rows), len(columns)
        assert changed.sum() == len(rows) * len(columns)  # one rectangle and nothing else
        assert np.ptp(rows) + 1 == len(rows)
        found.append(rectangle)
    return np.array(found)


def test_a_rectangle_has_its_share_of_the_area_its_ratio_and_any_place():
    out = np.asarray(random_erasing(jax.random.key(0), jnp.full((500, 60, 60, 1), 9.0), 1.0))
    tops, lefts, heights, widths = erased_rectangles(out).T
    shares, ratios = heights * widths / 3600, widths / heights
    assert 0.015 < shares.min() < 0.03
    assert 0.30 < shares.max() < 0.35
    assert shares.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.01)
    assert 0.25 < ratios.min() < 0.4
    assert 2.5 < ratios.max() < 4
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.1)
    for start, side in ((tops, heights), (lefts, widths)):
        share_before = start / np.maximum(60 - side, 1)
        assert share_before.mean() == pytest.approx(0.5, abs=0.05)
        assert share_before.max() == 1


def test_noise_is_standard_normal_and_differs_from_value_to_value():
    out = np.asarray(random_erasing(jax.random.key(1), jnp.full((100, 32, 32, 3), 9.0), 1.0))
    noise = out[out != 9]
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert len(np.unique(noise)) > 0.95 * len(noise)


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_its_share_of_the_images_is_erased_and_the_rest_untouched(probability: float):
    out = np.asarray(random_erasing(jax.random.key(2), jnp.full((400, 12, 12, 1), 9.0), probability))
    assert (out != 9).any((1, 2, 3)).mean() == pytest.approx(probability, abs=0.07)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_it_depends_on_its_key_alone_and_keeps_the_dtype(dtype):
    images = jnp.zeros((4, 8, 8, 3), dtype)
    out = random_erasing(jax.random.key(0), images, 1.0)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, random_erasing(jax.random.key(0), images, 1.0))
    assert bool((out != random_erasing(jax.random.key(1), images, 1.0)).any())
