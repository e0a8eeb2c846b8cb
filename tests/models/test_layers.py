"""Layers against what they claim to equal: flax.linen, numpy by hand, and torch's rules of padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_resnets.models.convolution import Conv, convolve
from flax_resnets.models.layers import (
    Dropout,
    Linear,
    SqueezeExcite,
    StochasticDepth,
    avg_pool,
    blur_pool,
    global_avg_pool,
    max_pool,
    mish,
)
from flax_resnets.models.normalization import BatchNorm, ghost_size


def images(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape) * 3 + 1


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("strides", [1, 2])
def test_conv_pads_half_its_kernel_on_every_side(kernel_size: int, strides: int):
    x = images(2, 10, 7, 3)
    conv = Conv(4, kernel_size, strides)
    variables = conv.init(jax.random.key(0), x)
    pad = kernel_size // 2
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    by_linen = nn.Conv(4, (kernel_size, kernel_size), (strides, strides), padding="VALID", use_bias=False)
    np.testing.assert_allclose(conv.apply(variables, x), by_linen.apply(variables, padded), rtol=1e-5, atol=1e-5)


def assert_same_to_rounding(ours, plain, *arguments: jax.Array):
    """Of two functions: the value, the gradient by each argument, and the derivative in a direction."""
    largest = float(jnp.abs(plain(*arguments)).max())
    np.testing.assert_allclose(ours(*arguments), plain(*arguments), rtol=1e-5, atol=1e-5 * largest)

    def gradients(function):
        value, pull_back = jax.vjp(function, *arguments)
        return pull_back(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))

    for got, expected in zip(gradients(ours), gradients(plain), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(jnp.abs(expected).max()))
    directions = tuple(jnp.sin(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape) for a in arguments)
    _, got = jax.jvp(ours, arguments, directions)
    _, expected = jax.jvp(plain, arguments, directions)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    ("size", "strides", "padding", "height", "width", "channels", "dilation"),
    [
        (1, 1, 0, 6, 5, 8, 1),  # as a product of matrices on a processor
        (1, 2, 0, 6, 5, 8, 1),
        (1, 2, 0, 7, 8, 8, 1),
        (1, 1, 1, 4, 4, 2, 1),  # padded: not as one
        (7, 2, 3, 16, 10, 3, 1),  # two pixels by two at a time
        (7, 2, 3, 16, 10, 1, 1),
        (7, 2, 3, 15, 10, 3, 1),  # an odd height: not so
        (3, 2, 1, 9, 8, 4, 1),
        (3, 1, 1, 2, 2, 4, 1),  # onto an image smaller than the kernel: by patches
        (3, 1, 1, 1, 9, 4, 1),
        (3, 2, 1, 4, 3, 4, 1),
        (3, 2, 1, 5, 6, 4, 1),  # onto one of its size: not so
        (3, 1, 2, 4, 4, 4, 2),  # smaller than what the dilated kernel spans
        (3, 2, 2, 7, 6, 4, 2),
    ],
)
def test_a_convolution_is_the_same_in_other_words(size, strides, padding, height, width, channels, dilation):
    def plain(x, kernel):
        pads = ((padding, padding), (padding, padding))
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (strides, strides),
            pads,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    x, kernel = images(2, height, width, channels), images(size, size, channels, 6, seed=1)
    assert_same_to_rounding(lambda x, kernel: convolve(x, kernel, strides, padding, dilation), plain, x, kernel)


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


@given(st.lists(st.floats(-100, 100, width=32, allow_subnormal=False), max_size=50))
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


@pytest.mark.parametrize(("initializer", "fan"), [("torchvision", 3 * 3 * 128), ("fastai", 3 * 3 * 32)])
def test_conv_starts_from_kaiming_normal(initializer, fan: int):
    kernel = Conv(128, initializer=initializer).init(jax.random.key(0), images(1, 4, 4, 32))["params"]["kernel"]
    assert float(kernel.std()) == pytest.approx((2 / fan) ** 0.5, rel=0.02)
    assert float(jnp.abs(kernel).max()) > 3 * float(kernel.std())  # not truncated


def test_conv_starts_from_a_function_of_flaxs():
    conv = Conv(8, initializer=nn.initializers.constant(0.5))
    assert (conv.init(jax.random.key(0), images(1, 4, 4, 3))["params"]["kernel"] == 0.5).all()


def test_linear_starts_as_torch_or_fastai_does():
    x = images(1, 400)
    as_torch = Linear(300, "torchvision").init(jax.random.key(0), x)["params"]
    for leaf in jax.tree.leaves(as_torch):
        assert 0.045 < float(jnp.abs(leaf).max()) <= 1 / 400**0.5
    as_fastai = Linear(300, "fastai").init(jax.random.key(0), x)["params"]
    assert float(as_fastai["kernel"].std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not as_fastai["bias"].any()


@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_equals_linens(unbiased: bool):
    x = images(6, 5, 4, 3)
    ours, linens = BatchNorm(unbiased=unbiased), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = ours.init(jax.random.key(0), x)
    params = {"scale": jnp.array([0.5, 1.0, 2.0]), "bias": jnp.array([1.0, 0.0, -1.0])}
    variables = {"params": params, "batch_stats": variables["batch_stats"]}

    def train(module, params, **kwargs):
        stats = {"batch_stats": variables["batch_stats"]}
        y, updates = module.apply({"params": params, **stats}, x, mutable=["batch_stats"], **kwargs)
        return (y**3).sum(), (y, updates["batch_stats"])

    (_, (y, stats)), grads = jax.value_and_grad(lambda p: train(ours, p, train=True), has_aux=True)(params)
    expected = jax.value_and_grad(lambda p: train(linens, p, use_running_average=False), has_aux=True)(params)
    (_, (expected_y, expected_stats)), expected_grads = expected
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), grads, expected_grads)
    np.testing.assert_allclose(stats["mean"], expected_stats["mean"], rtol=1e-5)
    count = 6 * 5 * 4
    batch_var = (expected_stats["var"] - 0.9) / 0.1 * (count / (count - 1) if unbiased else 1)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * batch_var, rtol=1e-5)


def test_batch_norm_in_evaluation_uses_and_keeps_its_running_statistics():
    x = images(4, 2, 2, 3)
    variables = BatchNorm().init(jax.random.key(0), x)
    stats = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 0.25])}
    y, updates = BatchNorm().apply({**variables, "batch_stats": stats}, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5), rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], stats)


@settings(max_examples=10)
@given(ghosts=st.integers(1, 4), size=st.integers(2, 5), side=st.integers(1, 4), seed=st.integers(0, 99))
def test_each_ghost_is_normalised_by_itself(ghosts: int, size: int, side: int, seed: int):
    x = images(ghosts * size, side, side, 2, seed=seed)
    norm = BatchNorm(batch_norm=f"ghost:{size}")
    variables = jax.jit(norm.init)(jax.random.key(0), x)
    y, updates = jax.jit(partial(norm.apply, train=True, mutable=["batch_stats"]))(variables, x)
    by_hand = [np.asarray(x[i : i + size], np.float64) for i in range(0, len(x), size)]
    means = np.stack([ghost.mean((0, 1, 2)) for ghost in by_hand])
    variances = np.stack([ghost.var((0, 1, 2)) for ghost in by_hand])
    expected = [(g - m) / np.sqrt(v + 1e-5) for g, m, v in zip(by_hand, means, variances, strict=True)]
    np.testing.assert_allclose(y, np.concatenate(expected), rtol=2e-3, atol=2e-3)
    count = size * side * side
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * means.mean(0), rtol=1e-3, atol=1e-4)
    unbiased = variances.mean(0) * count / (count - 1)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-3)


def test_batch_norm_keeps_float32_statistics_of_half_precision_images():
    x = images(64, 8, 8, 3).astype(jnp.bfloat16)
    norm = BatchNorm(dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)
    y, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updates["batch_stats"]["var"].dtype == jnp.float32
    expected = 0.1 * np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["mean"], expected, rtol=1e-5)


def test_a_frozen_norm_keeps_its_statistics_in_training():
    x = images(4, 2, 2, 3)
    norm = BatchNorm(frozen=True)
    variables = norm.init(jax.random.key(0), x)
    y, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, norm.apply(variables, x, train=False))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


def test_a_batch_that_ghosts_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="a batch of 5 is not a multiple of 2"):
        BatchNorm(batch_norm="ghost:2").init(jax.random.key(0), images(5, 2, 2, 1), train=True)


@pytest.mark.parametrize("word", ["", "ghost", "ghost:", "ghost:0", "ghost:-1", "ghost:1.5", "local"])
def test_batch_norm_words_that_mean_nothing_are_refused(word: str):
    with pytest.raises(ValueError, match="must be 'global', 'device' or 'ghost:K'"):
        ghost_size(word)


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
