"""Convolutions compared with flax.linen's and XLA's, and how they start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from rounding import assert_same_to_rounding, images

from flax_resnets.models.convolution import Conv, StandardizedConv, convolve


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


@pytest.mark.parametrize(
    ("size", "strides", "padding", "height", "width", "channels", "dilation"),
    [
        (1, 1, 0, 6, 5, 8, 1),  # as a product of matrices on a CPU
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


def test_a_kernel_like_the_stems_in_groups():
    x, kernel = images(2, 8, 8, 4), images(7, 7, 2, 6, seed=1)
    of_group = [convolve(x[..., 2 * g : 2 * g + 2], kernel[..., 3 * g : 3 * g + 3], 2, 3) for g in range(2)]
    found = convolve(x, kernel, 2, 3, groups=2)
    np.testing.assert_allclose(found, np.concatenate(of_group, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("initializer", "fan"), [("torchvision", 3 * 3 * 128), ("fastai", 3 * 3 * 32)])
def test_conv_starts_from_kaiming_normal(initializer, fan: int):
    kernel = Conv(128, initializer=initializer).init(jax.random.key(0), images(1, 4, 4, 32))["params"]["kernel"]
    assert float(kernel.std()) == pytest.approx((2 / fan) ** 0.5, rel=0.02)
    assert float(jnp.abs(kernel).max()) > 3 * float(kernel.std())  # not truncated


def test_conv_starts_from_a_function_of_flaxs():
    conv = Conv(8, initializer=nn.initializers.constant(0.5))
    assert (conv.init(jax.random.key(0), images(1, 4, 4, 3))["params"]["kernel"] == 0.5).all()


def test_standardized_weights_have_mean_0_and_variance_1_in_each_output_channel():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 4, 6)) * 0.3 + 1
    weights = StandardizedConv(6).weights(kernel)
    np.testing.assert_allclose(weights.mean((0, 1, 2)), np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(weights.var((0, 1, 2)), np.ones(6), rtol=1e-5)
    x = images(2, 5, 5, 4)
    variables = {"params": {"kernel": kernel}}
    np.testing.assert_allclose(StandardizedConv(6).apply(variables, x), convolve(x, weights, padding=1), rtol=1e-5)
