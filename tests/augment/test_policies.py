"""Policies: operations compared with PIL's, and draws found among all possible ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from flax_resnets.augment import randaugment, trivialaugment
from flax_resnets.augment.policies import OPERATIONS, Ranges, apply_operations

RANGES = Ranges(shear=0.3, translate=(9.0, 12.0), rotate=30.0, factor=0.9, bits=4)
WIDE = Ranges(shear=0.99, translate=(32.0, 32.0), rotate=135.0, factor=0.99, bits=6)


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def by_pil(image: Image.Image, name: str, amount: float) -> Image.Image:
    """PIL's result for the strongest form of an operation, times the amount."""

    def transform(*figures: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, figures, Image.Resampling.BILINEAR)

    match name:
        case "shear_x":
            return transform(1, 0.3 * amount, 0, 0, 1, 0)
        case "shear_y":
            return transform(1, 0, 0, 0.3 * amount, 1, 0)
        case "translate_x":
            return transform(1, 0, -int(12 * amount), 0, 1, 0)
        case "translate_y":
            return transform(1, 0, 0, 0, 1, -int(9 * amount))
        case "rotate":
            return image.rotate(30 * amount, Image.Resampling.BILINEAR)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(1 + 0.9 * amount)
        case "saturation":
            return ImageEnhance.Color(image).enhance(1 + 0.9 * amount)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(1 + 0.9 * amount)
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(1 + 0.9 * amount)
        case "posterize":
            return ImageOps.posterize(image, 8 - round(4 * abs(amount)))
        case "solarize":
            return ImageOps.solarize(image, 255 * (1 - abs(amount)))
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
    return image


@pytest.mark.parametrize("amount", [0.0, 0.55, -0.8])
def test_each_operation_is_pils(amount: float):
    image = picture(40, 48)
    batch = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (len(OPERATIONS), *image.shape))
    out = apply_operations(batch, jnp.arange(len(OPERATIONS)), jnp.full(len(OPERATIONS), amount), RANGES)
    for name, result in zip(OPERATIONS, np.asarray(out), strict=True):
        expected = np.asarray(by_pil(Image.fromarray(image), name, amount), np.float32)
        close = (np.abs(result - expected) <= 1.75).all(axis=2)  # PIL rounds
        # At the border of a warped image PIL repeats the last pixel, ours is half black: one line or two.
        assert close.mean() >= (0.93 if name in ("shear_x", "shear_y", "rotate") else 1), name


def drawn_from(out: np.ndarray, image: np.ndarray, amounts: np.ndarray, ranges: Ranges) -> list[tuple[str, float]]:
    """The operations and amounts that gave each result: the only possible ones that fit."""
    pairs = [(number, amount) for number in range(len(OPERATIONS)) for amount in amounts]
    numbers, each = (jnp.array(column) for column in zip(*pairs, strict=True))
    batch = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (len(pairs), *image.shape))
    possible = np.asarray(apply_operations(batch, numbers, each, ranges))
    found = []
    for result in out:
        distances = np.abs(possible - result).mean((1, 2, 3))
        assert distances.min() < 0.01
        number, amount = pairs[distances.argmin()]
        found.append((OPERATIONS[number], float(amount)))
    return found


def test_what_accelerators_compile_is_the_same(monkeypatch):
    amounts = jnp.linspace(-1, 1, len(OPERATIONS))
    batch = jnp.broadcast_to(jnp.asarray(picture(20, 24), jnp.float32), (len(OPERATIONS), 20, 24, 3))
    arguments = batch, jnp.arange(len(OPERATIONS)), amounts, RANGES
    one_by_one = apply_operations(*arguments)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *operands, cpu, default: default(*operands))
    np.testing.assert_allclose(apply_operations(*arguments), one_by_one, atol=1e-3)


def test_randaugment_draws_each_operation_and_sign_at_its_magnitude():
    image = picture(16, 20)
    ranges = Ranges(0.3, (150 / 331 * 16, 150 / 331 * 20), 30.0, 0.9, 4)
    batch = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (400, *image.shape))
    out = np.asarray(randaugment(jax.random.key(0), batch, ops=1, magnitude=6.0))
    drawn = drawn_from(out, image, np.array([-0.6, 0.6]), ranges)
    counts = [sum(name == operation for name, _ in drawn) for operation in OPERATIONS]
    assert min(counts) > 400 / 14 / 2
    assert max(counts) < 400 / 14 * 2
    assert {amount for name, amount in drawn if name == "rotate"} == {-0.6, 0.6}


def test_randaugment_applies_its_operations_one_after_the_other():
    image = jnp.asarray(picture(16, 20), jnp.float32)
    batch = jnp.broadcast_to(image, (64, *image.shape))
    once = np.asarray(randaugment(jax.random.key(0), batch, ops=1, magnitude=9.0))
    twice = np.asarray(randaugment(jax.random.key(0), batch, ops=2, magnitude=9.0))
    untouched = [int((result == np.asarray(image)).all((1, 2, 3)).sum()) for result in (once, twice)]
    assert untouched[1] < untouched[0]


def test_trivialaugment_draws_a_magnitude_of_31_as_well():
    image = picture(16, 20)
    batch = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (400, *image.shape))
    out = np.asarray(trivialaugment(jax.random.key(0), batch))
    drawn = drawn_from(out, image, np.arange(-30, 31, dtype=np.float32) / np.float32(30), WIDE)
    assert {name for name, _ in drawn} >= {"rotate", "brightness", "contrast", "autocontrast", "equalize", "solarize"}
    assert len({amount for name, amount in drawn if name in ("rotate", "contrast", "saturation")}) > 30


@pytest.mark.parametrize(
    ("policy", "channels", "dtype"),
    [(trivialaugment, 1, jnp.float32), (lambda key, images: randaugment(key, images, 2, 9.0), 3, jnp.bfloat16)],
)
def test_a_policy_depends_on_its_key_alone_and_stays_in_range(policy, channels: int, dtype):
    images = jnp.asarray(picture(12, 12))[None, :, :, :channels].repeat(16, 0).astype(dtype)
    policy = jax.jit(policy)
    out = policy(jax.random.key(0), images)
    assert (out.shape, out.dtype) == (images.shape, dtype)
    assert 0 <= float(out.min()) <= float(out.max()) <= 255
    np.testing.assert_array_equal(out, policy(jax.random.key(0), images))
    assert bool((out != policy(jax.random.key(1), images)).any())
