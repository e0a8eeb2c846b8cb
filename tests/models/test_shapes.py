"""The shapes of a network's variables."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from flax_resnets import create_model
from flax_resnets.models.shapes import variable_shapes


@pytest.mark.parametrize(("name", "shape"), [("resnet20_cifar", (40, 28, 3)), ("lenet_bn", (28, 28, 1))])
def test_they_are_those_that_init_gives(name, shape):
    model = create_model(name, num_classes=3)
    expected = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((2, *shape)))
    assert variable_shapes(model, shape) == expected
    assert variable_shapes(create_model(name, num_classes=3), shape) == expected  # an equal network
    other = variable_shapes(model.clone(num_classes=4), shape)
    assert other["params"]["head"]["bias"].shape == (4,)


def test_sizes_of_which_the_variables_depend_are_told_apart():
    model = create_model("lenet", num_classes=3)
    kernels = [variable_shapes(model, (side, side, 1))["params"]["dense1"]["kernel"].shape for side in (28, 32)]
    assert kernels == [(400, 120), (576, 120)]


class Widths(nn.Module):
    widths: list[int]

    @nn.compact
    def __call__(self, x):
        for width in self.widths:
            x = nn.Dense(width)(x)
        return x


def test_a_network_of_ones_own_may_have_attributes_without_a_hash():
    shapes = variable_shapes(Widths([5, 7]), (1, 1, 3))
    assert shapes["params"]["Dense_1"]["kernel"].shape == (5, 7)


def test_images_that_a_network_does_not_take_are_an_error_each_time():
    for _ in range(2):
        with pytest.raises(ValueError, match="too small"):
            variable_shapes(create_model("alexnet"), (8, 8, 1))
