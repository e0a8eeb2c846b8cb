"""The pipeline: augmentations are applied in order, and one that is off changes nothing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from flax_resnets import augment


def config(**fields) -> augment.AugmentConfig:
    return augment.AugmentConfig(**({"crop_scale": (0.35, 1.0), "mean": (0.5,), "std": (0.25,)} | fields))


def preprocessing(**fields) -> SimpleNamespace:
    return SimpleNamespace(**{"crop_pct": 1.0} | fields)


def pictures(n: int, side: int, channels: int = 3) -> jax.Array:
    return jax.random.randint(jax.random.key(0), (n, side, side, channels), 0, 256).astype(jnp.uint8)


def test_normalise_gives_zero_mean_and_unit_variance():
    images = pictures(8, 16)
    pixels = np.asarray(images, np.float64) / 255
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    out = np.asarray(augment.normalise(images, tuple(mean), tuple(std)))
    np.testing.assert_allclose(out.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize("crop_scale", [(1.0, 1.0), (0.35, 1.0)])
@pytest.mark.parametrize("flip", [False, True])
def test_a_training_batch_depends_on_its_key_alone(crop_scale, flip):
    def batch(seed: int) -> jax.Array:
        changed = config(crop_scale=crop_scale, flip=flip)
        return augment.for_training(jax.random.key(seed), pictures(4, 20), changed, size=16)

    assert batch(0).shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(batch(0), batch(0))
    drawn = flip or crop_scale != (1.0, 1.0)
    assert bool((batch(0) != batch(1)).any()) == drawn


def test_an_evaluation_batch_is_the_image_itself():
    images = pictures(2, 16)
    out = augment.for_evaluation(images, preprocessing(mean=(0.5,), std=(0.5,)), size=16)
    np.testing.assert_allclose(out, np.asarray(images, np.float32) / 127.5 - 1, atol=1e-5)


def test_with_all_else_off_a_batch_is_its_crop_and_flip_by_the_two_halves_of_the_key():
    """Recipes' results and resumed runs depend on these draws."""
    key, images = jax.random.key(5), pictures(4, 20)
    crop_key, flip_key = jax.random.split(key)
    cropped = augment.random_resized_crop(crop_key, images.astype(jnp.float32), 16, (0.35, 1.0), (3 / 4, 4 / 3))
    expected = augment.normalise(augment.random_flip(flip_key, cropped), (0.5,), (0.25,))
    np.testing.assert_array_equal(augment.for_training(key, images, config(), size=16), expected)


def test_everything_on_happens_in_its_order():
    key, images = jax.random.key(5), pictures(4, 20)
    everything = config(
        translate=2,
        rotate=10.0,
        shear=5.0,
        color_jitter=(0.4, 0.4, 0.4, 0.1),
        auto_augment="randaugment",
        randaugment=(1, 5.0),
        random_erasing=0.5,
    )
    out = augment.for_training(key, images, everything, size=16)
    crop_key, flip_key = jax.random.split(key)
    expected = augment.random_resized_crop(crop_key, images.astype(jnp.float32), 16, (0.35, 1.0), (3 / 4, 4 / 3))
    expected = augment.random_flip(flip_key, expected)
    expected = augment.random_translate(jax.random.fold_in(key, 3), expected, 2)
    expected = augment.random_affine(jax.random.fold_in(key, 4), expected, 10.0, 5.0)
    expected = augment.randaugment(jax.random.fold_in(key, 5), expected, 1, 5.0)
    expected = augment.color_jitter(jax.random.fold_in(key, 6), expected, 0.4, 0.4, 0.4, 0.1)
    expected = augment.normalise(expected, (0.5,), (0.25,))
    expected = augment.random_erasing(jax.random.fold_in(key, 7), expected, 0.5)
    np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_dtype_and_number_of_channels_goes_through(dtype, channels: int):
    everything = config(
        translate=2,
        rotate=10.0,
        color_jitter=(0.4, 0.4, 0.4, 0.1),
        auto_augment="trivialaugment",
        random_erasing=0.5,
    )
    out = jax.eval_shape(
        lambda key, images: augment.for_training(key, images, everything, 16, dtype),
        jax.random.key(0),
        jax.ShapeDtypeStruct((4, 20, 24, channels), jnp.uint8),
    )
    assert (out.shape, out.dtype) == ((4, 16, 16, channels), dtype)


def test_all_but_the_flip_is_off_by_default():
    key, images = jax.random.key(5), pictures(4, 16)
    out = augment.for_training(key, images, augment.AugmentConfig(mean=(0.5,), std=(0.25,)), size=16)
    flipped = augment.random_flip(jax.random.fold_in(key, 1), images)
    np.testing.assert_array_equal(out, augment.normalise(flipped, (0.5,), (0.25,)))


def test_no_two_augmentations_draw_from_one_key():
    """Draws also differ from those for which training folds in a number: 2 for dropout, 8 for mixing."""
    draws = [vars(step)["DRAWS"] for step in augment.AugmentConfig.__bases__]
    assert sorted(set(draws)) == sorted(draws)
    assert not {2, 8} & set(draws)


def test_evaluation_crops_the_centre_before_it_resizes():
    images = pictures(1, 40)
    out = augment.for_evaluation(images, preprocessing(crop_pct=0.8, mean=(0.0,), std=(1.0,)), size=24)
    centre = Image.fromarray(np.asarray(images[0])).crop((4, 4, 36, 36))
    by_pil = np.asarray(centre.resize((24, 24), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(255 * np.asarray(out[0]), by_pil, atol=1.0)
