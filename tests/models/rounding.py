"""What the tests of layers share: images, and two functions that are the same to rounding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def images(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape) * 3 + 1


@partial(jax.jit, static_argnums=0)
def value_and_derivatives(function, *arguments: jax.Array):
    value, pull_back = jax.vjp(function, *arguments)
    gradients = pull_back(jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape))
    directions = tuple(jnp.sin(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape) for a in arguments)
    return value, gradients, jax.jvp(function, arguments, directions)[1]


def assert_same_to_rounding(ours, plain, *arguments: jax.Array):
    """Of two functions: the value, the gradient by each argument, and the derivative in a direction."""

    def assert_near(got, expected):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * float(jnp.abs(expected).max()))

    jax.tree.map(assert_near, *(value_and_derivatives(function, *arguments) for function in (ours, plain)))
