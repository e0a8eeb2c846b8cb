"""How kernels are initialised: Flax's numbers, drawn in a way that compiles fast."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnets import create_model
from flax_resnets.models.initializers import scaled, uniform


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(("scale", "mode"), [(2.0, "fan_in"), (2.0, "fan_out"), (1.0, "fan_avg"), (1 / 3, "fan_in")])
@pytest.mark.parametrize("shape", [(7, 7, 3, 64), (1, 1, 32, 48), (3, 3, 5, 7), (40, 10)])
def test_numbers_are_those_of_flax(scale, mode, distribution, shape):
    key = jax.random.key(3)
    expected = nn.initializers.variance_scaling(scale, mode, distribution)(key, shape, jnp.float32)
    np.testing.assert_array_equal(scaled(scale, mode, distribution)(key, shape, jnp.float32), expected)


def test_uniform_begins_at_the_other_end_of_its_bound():
    kernel = uniform(0.5)(jax.random.key(0), (3, 3, 16, 16), jnp.float32)
    assert kernel.shape == (3, 3, 16, 16)
    assert -0.5 <= kernel.min() < -0.49
    assert 0.49 < kernel.max() <= 0.5


@pytest.mark.parametrize("name", ["resnet18d", "resnet50", "resnetv2_50x1_bit", "resblock_net_deep", "lenet"])
def test_no_network_draws_in_the_four_axes_of_its_kernels(name):
    """Such a draw takes a second and more to compile for a CPU, and a network has dozens of them."""
    model = create_model(name, num_classes=10)
    images = jnp.zeros((1, 64, 64, 1 if name == "lenet" else 3))
    program = jax.make_jaxpr(model.init)(jax.random.key(0), images)
    drawn = [
        cast(Any, output.aval).shape
        for equation in _equations(program.jaxpr)
        if equation.primitive.name == "random_bits"
        for output in equation.outvars
    ]
    assert drawn
    assert all(len(shape) == 1 for shape in drawn)


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from _equations(value.jaxpr)
