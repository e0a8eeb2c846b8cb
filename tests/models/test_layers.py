"""Layers against what they claim to equal: flax.linen, numpy by hand, and torch's rules of padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st
from rounding import assert_same_to_rounding, images

from flax_resnets.models.layers import (
    Dropout,
    EfficientChannelAttention,
    Linear,
    SqueezeExcite,
    StochasticDepth,
    anti_alias,
    avg_pool,
    blur_pool,
    global_avg_pool,
    global_pool,
    max_pool,
    mish,
)


@pytest.mark.parametrize(
    ("shape", "strides", "size", "padding"),
    [
        ((2, 8, 8, 3), 2, 3, 1),  # a stem's
        ((1, 7, 9, 2), 2, 3, 1),
        ((1, 1, 2, 1), 2, 3, 1),
        ((2, 8, 7, 3), 1, 3, 1),
        ((1, 1, 2, 1), 1, 3, 1),
        ((2, 9, 8, 3), 2, 3, 0),  # AlexNet's
        ((2, 9, 8, 3), 2, 2, 0),  # VGG's
        ((1, 3, 3, 1), 2, 3, 0),
    ],
)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_is_the_same_in_other_words(shape, strides: int, size: int, padding: int, ties: bool):
    def plain(x):
        pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, strides, strides, 1), pads)

    x = images(*shape)
    x = jnp.round(x / 3) if ties else x  # as after ReLU, where most of a window can be 0
    value, pull_back = jax.vjp(lambda x: max_pool(x, strides, size, padding), x)
    expected, plain_pull_back = jax.vjp(plain, x)
    np.testing.assert_array_equal(value, expected)
    by_window = images(*value.shape, seed=1)
    np.testing.assert_allclose(pull_back(by_window)[0], plain_pull_back(by_window)[0], rtol=1e-6, atol=1e-6)


@given(st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), min_size=50, max_size=50))
def test_mish_is_jaxs_in_other_words(numbers: list[float]):
    assert_same_to_rounding(mish, jax.nn.mish, jnp.array([*numbers, -90.0, -1.0, 0.0, 1.0, 19.9, 20.1]))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_mish_and_its_slope_are_exact_to_the_dtypes_rounding(dtype):
    x = jnp.linspace(-30, 30, 6001, dtype=dtype)
    exact = np.asarray(x, np.float64)
    tanh = np.tanh(np.log1p(np.exp(exact)))
    # Relative to what is exact; float16 has no numbers for it far to the left.
    bounds = {"rtol": 4 * float(jnp.finfo(dtype).eps), "atol": float(jnp.finfo(dtype).tiny)}
    np.testing.assert_allclose(np.asarray(mish(x), np.float64), exact * tanh, **bounds)
    slope = tanh + exact * (1 - tanh**2) / (1 + np.exp(-exact))
    # Where its two parts cancel, rounding shows against either.
    near = bounds | {"atol": 2 * float(jnp.finfo(dtype).eps)}
    np.testing.assert_allclose(np.asarray(jax.vmap(jax.grad(mish))(x), np.float64), slope, **near)
    assert mish(x).dtype == jax.vmap(jax.grad(mish))(x).dtype == dtype


def test_mish_has_a_second_derivative():
    for x in (-3.0, -0.4, 0.7, 4.0):
        second, plain = (jax.grad(jax.grad(function))(x) for function in (mish, jax.nn.mish))
        np.testing.assert_allclose(second, plain, rtol=1e-4, atol=1e-6)


def test_max_pool_hides_no_nan():
    x = jnp.zeros((1, 8, 8, 1)).at[0, 3, 3, 0].set(jnp.nan)
    assert jnp.isnan(max_pool(x))[0, 1:3, 1:3, 0].all()


def test_linear_starts_as_torch_or_fastai_does():
    x = images(1, 400)
    as_torch = Linear(300, "torchvision").init(jax.random.key(0), x)["params"]
    for leaf in jax.tree.leaves(as_torch):
        assert 0.045 < float(jnp.abs(leaf).max()) <= 1 / 400**0.5
    as_fastai = Linear(300, "fastai").init(jax.random.key(0), x)["params"]
    assert float(as_fastai["kernel"].std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not as_fastai["bias"].any()


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (2, 7, 9, 1), (1, 1, 1, 3)])
def test_max_pool_pads_one_pixel_of_minus_infinity(shape):
    x = images(*shape) - 10  # all below 0: a padding of zeros would win
    y = max_pool(x)
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            window = x[:, max(2 * row - 1, 0) : 2 * row + 2, max(2 * column - 1, 0) : 2 * column + 2]
            np.testing.assert_array_equal(y[:, row, column], window.max((1, 2)))
    assert y.shape[1:3] == (-(-shape[1] // 2), -(-shape[2] // 2))


@pytest.mark.parametrize("shape", [(1, 8, 8, 2), (2, 7, 9, 1), (1, 1, 1, 3)])
def test_avg_pool_averages_the_pixels_there_are(shape):
    x = images(*shape)
    y = avg_pool(x)
    for row in range(y.shape[1]):
        for column in range(y.shape[2]):
            window = x[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_allclose(y[:, row, column], window.mean((1, 2)), rtol=1e-5)
    assert y.shape[1:3] == (-(-shape[1] // 2), -(-shape[2] // 2))


def test_global_avg_pool_sums_in_float32():
    x = jnp.full((1, 64, 64, 1), 1.01, jnp.bfloat16)
    assert global_avg_pool(x).dtype == jnp.float32
    np.testing.assert_allclose(global_avg_pool(x), float(x[0, 0, 0, 0]), rtol=1e-6)


def test_avg_pool_of_stride_one_keeps_the_size_and_counts_zeros_beyond_it():
    x = images(1, 4, 5, 2)
    y = avg_pool(x, strides=1)
    assert y.shape == x.shape
    np.testing.assert_allclose(y[:, 1, 2], x[:, 1:3, 2:4].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(y[:, 3, 4], x[:, 3, 4] / 4, rtol=1e-6)


def test_blur_pool_is_a_binomial_over_mirrored_borders():
    x = images(1, 6, 5, 2)
    taps = np.outer([1, 2, 1], [1, 2, 1]) / 16
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    y = blur_pool(x)
    assert y.shape == (1, 3, 3, 2)
    for row in range(3):
        for column in range(3):
            window = padded[0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            np.testing.assert_allclose(y[0, row, column], (window * taps[..., None]).sum((0, 1)), rtol=1e-4, atol=1e-5)


def test_squeeze_excite_scales_channels_by_their_images_mean():
    x = images(2, 3, 3, 32)
    layer = SqueezeExcite()
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["reduce"]["kernel"].shape == (32, 8)
    ratio = layer.apply(variables, x) / x
    np.testing.assert_allclose(ratio, jnp.broadcast_to(ratio[:, :1, :1], x.shape), rtol=1e-4)
    assert float(ratio.min()) > 0
    assert float(ratio.max()) < 1


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    x = jnp.ones((2000, 2, 2, 1))
    y = StochasticDepth(0.25).apply({}, x, train=True, rngs={"dropout": jax.random.key(0)})
    per_image = np.asarray(y).reshape(2000, 4)
    assert set(np.unique(per_image)) == {np.float32(0), np.float32(4 / 3)}
    assert (per_image == per_image[:, :1]).all()
    assert float(y.mean()) == pytest.approx(1, abs=0.05)
    np.testing.assert_array_equal(StochasticDepth(0.25).apply({}, x, train=False), x)


def test_dropout_is_linens_to_the_bit():
    x, keys = images(64, 33), {"dropout": jax.random.key(3)}
    ours, linens = (dropout(0.3, deterministic=False).apply({}, x, rngs=keys) for dropout in (Dropout, nn.Dropout))
    np.testing.assert_array_equal(ours, linens)
    assert 0.2 < float((ours == 0).mean()) < 0.4
    np.testing.assert_array_equal(Dropout(0.3, deterministic=True).apply({}, x), x)


@pytest.mark.parametrize(("channels", "size"), [(2, 3), (64, 3), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_efficient_channel_attention_weighs_each_channel_by_its_neighbours(channels: int, size: int):
    attention, x = EfficientChannelAttention(), images(2, 3, 2, channels)
    variables = attention.init(jax.random.key(0), x)
    kernel = np.asarray(variables["params"]["conv"]["kernel"]).ravel()
    assert len(kernel) == size
    means = np.pad(np.asarray(x).mean((1, 2)), ((0, 0), (size // 2, size // 2)))
    mixed = np.stack([means[:, i : i + size] @ kernel for i in range(channels)], -1)
    expected = np.asarray(x) / (1 + np.exp(-mixed))[:, None, None]
    np.testing.assert_allclose(attention.apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_squeeze_excite_has_the_share_of_channels_between_its_layers():
    for ratio, narrow in ((1 / 16, 16), (0.25, 64), (0.01, 8)):
        shapes = jax.eval_shape(SqueezeExcite(ratio=ratio).init, jax.random.key(0), images(1, 2, 2, 256))
        assert shapes["params"]["reduce"]["kernel"].shape == (256, narrow)


def test_global_pools_are_timms():
    x = images(2, 3, 5, 4)
    mean, largest = x.mean((1, 2)), x.max((1, 2))
    for kind, expected in {
        "avg": mean,
        "max": largest,
        "avgmax": (mean + largest) / 2,
        "catavgmax": jnp.concatenate([mean, largest], -1),
    }.items():
        np.testing.assert_allclose(global_pool(x, kind), expected, rtol=1e-6)
    assert global_pool(x.astype(jnp.bfloat16), "catavgmax").dtype == jnp.float32


def test_an_average_against_aliasing_counts_the_pixels_inside_the_image():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    assert anti_alias(x, "average").squeeze().tolist() == [[2.0, 3.5], [6.5, 8.0]]
    np.testing.assert_array_equal(anti_alias(x, "average", strides=1), x)
    np.testing.assert_array_equal(anti_alias(x, "blur"), blur_pool(x))
    assert anti_alias(x.astype(jnp.bfloat16), "average").dtype == jnp.bfloat16
