"""Lookahead, compared with the two loops of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnets.training.optimizers.lookahead import lookahead


@pytest.mark.parametrize(("steps", "step_size"), [(1, 0.25), (3, 0.5), (4, 1.0)])
def test_lookahead_is_two_loops(steps, step_size):
    curvature = np.array([[1.0, 3.0], [0.5, 2.0]], np.float32)
    slow = np.array([[1.0, -2.0], [4.0, 0.5]], np.float32)

    optimizer = lookahead(optax.sgd(0.1, momentum=0.9), steps, step_size)
    params = {"kernel": jnp.array(slow)}
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    velocity = np.zeros_like(slow)
    for _ in range(3):
        fast = slow.copy()
        for inner in range(steps):
            velocity = 0.9 * velocity + curvature * fast
            fast = fast - 0.1 * velocity
            updates, state = update({"kernel": curvature * params["kernel"]}, state, params)
            params = optax.apply_updates(params, updates)
            if inner < steps - 1:
                np.testing.assert_allclose(params["kernel"], fast, rtol=1e-5)
        slow = slow + step_size * (fast - slow)
        np.testing.assert_allclose(params["kernel"], slow, rtol=1e-5)
        np.testing.assert_array_equal(state.slow["kernel"], params["kernel"])  # equal to the last bit


def test_the_slow_weights_may_be_donated_beside_the_parameters():
    optimizer = lookahead(optax.sgd(0.1))
    params = jnp.arange(8.0)
    state = optimizer.init(params)
    assert state.slow.unsafe_buffer_pointer() != params.unsafe_buffer_pointer()

    def step(params, state):
        updates, state = optimizer.update(jnp.ones(8), state, params)
        return optax.apply_updates(params, updates), state

    params, state = jax.jit(step, donate_argnums=(0, 1))(params, state)
    np.testing.assert_allclose(params, np.arange(8) - 0.1, rtol=1e-6)
    np.testing.assert_array_equal(state.slow, np.arange(8))


def test_lookahead_needs_the_parameters():
    optimizer = lookahead(optax.sgd(0.1))
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(jnp.zeros(1), optimizer.init(jnp.zeros(1)))
