"""The one-cycle policy and the optimizers that follow it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_resnets.training.schedule import make_optimizer, make_schedules, one_cycle, one_cycle_momentum


def test_one_cycle_is_fastais():
    """The values of fastai's combined_cos(0.25, lr/25, lr, lr/1e5) at lr = 1, by its formula."""
    schedule = one_cycle(100, 1.0)
    up = [0.04 + (1 - 0.04) * (1 - np.cos(np.pi * i / 25)) / 2 for i in range(25)]
    down = [1e-5 + (1 - 1e-5) * (1 + np.cos(np.pi * i / 75)) / 2 for i in range(76)]
    np.testing.assert_allclose([schedule(i) for i in range(101)], up + down, rtol=1e-5, atol=1e-7)


@given(steps=st.integers(1, 500), pct_start=st.floats(0.01, 0.99))
def test_momentum_falls_as_the_rate_rises(steps, pct_start):
    at = jnp.minimum(jnp.arange(501), steps)  # of one shape, or every example would compile anew
    rate = np.asarray(one_cycle(steps, 1.0, pct_start=pct_start)(at))
    momentum = np.asarray(one_cycle_momentum(steps, 0.95, 0.85, pct_start=pct_start)(at))
    assert rate.min() >= 0.99e-5
    assert rate.max() <= 1 + 1e-6
    assert momentum.min() >= 0.85 - 1e-6
    assert momentum.max() <= 0.95 + 1e-6
    assert momentum[rate.argmax()] == pytest.approx(momentum.min())
    assert rate[0] == pytest.approx(0.04 if steps > 1 else rate[0])


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_spares_biases_and_norms(name):
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    optimizer = make_optimizer(name, lambda _: 0.1, lambda _: 0.9, weight_decay=0.5)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert float(updates["kernel"].max()) < 0
    assert not updates["bias"].any()
    assert not updates["scale"].any()


def test_sgd_is_nesterovs_at_the_schedules_values():
    rates, momenta = [0.1, 0.2, 0.4], [0.9, 0.5, 0.7]
    optimizer = make_optimizer("sgd", lambda i: jnp.array(rates)[i], lambda i: jnp.array(momenta)[i])
    params, velocity = jnp.array([1.0, -2.0]), np.zeros(2)
    expected, state = np.array(params), optimizer.init(params)
    for rate, momentum in zip(rates, momenta, strict=True):
        gradient = expected * 3
        velocity = momentum * velocity + gradient
        expected = expected - rate * (gradient + momentum * velocity)
        updates, state = optimizer.update(params * 3, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params, expected, rtol=1e-5)


def test_clipping_bounds_the_global_norm():
    optimizer = make_optimizer("sgd", lambda _: 1.0, lambda _: 0.0, clip_norm=0.5)
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    updates, _ = optimizer.update(jax.tree.map(lambda p: p + 7.0, params), optimizer.init(params), params)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5)


def test_an_optimizer_there_is_not():
    with pytest.raises(ValueError, match="optimizer='lion': must be 'sgd' or 'adamw'"):
        make_optimizer("lion", lambda _: 1.0, lambda _: 0.0)


def test_a_constant_schedule_stays_where_it_starts():
    learning_rate, momentum = make_schedules("constant", 100, 0.1, (0.9, 0.5))
    assert {float(learning_rate(step)) for step in (0, 50, 200)} == {0.1}
    assert {float(momentum(step)) for step in (0, 50, 200)} == {0.9}


def test_plain_sgd_is_the_gradient_times_the_rate():
    optimizer = make_optimizer("sgd", *make_schedules("constant", 100, 0.5, (0.0, 0.0)))
    params = jnp.array([1.0, -2.0])
    state = optimizer.init(params)
    for gradient in ([2.0, 4.0], [-1.0, 3.0]):
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        np.testing.assert_allclose(updates, -0.5 * np.array(gradient))


def test_a_schedule_there_is_not():
    with pytest.raises(ValueError, match="schedule='step': must be 'one_cycle' or 'constant'"):
        make_schedules("step", 100, 0.1, (0.9, 0.9))
