"""The schedules of the learning rate and the momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_resnets.errors import UserError
from flax_resnets.training.schedule import (
    SCHEDULES,
    ScheduleConfig,
    flat_cosine,
    make_schedules,
    one_cycle,
    one_cycle_momentum,
    step_decay,
    warmup_cosine,
)


def fastais_combined_cos(pct, start, middle, end, position):
    """fastai's `combined_cos(pct, start, middle, end)` at a position from 0 to 1, in float64."""
    if position < pct:
        first, last, within = start, middle, position / pct
    else:
        first, last, within = middle, end, (position - pct) / (1 - pct)
    return first + (last - first) * (1 + np.cos(np.pi * (1 - within))) / 2


@pytest.mark.parametrize(
    ("steps", "pct_start"),
    [(1000, 0.25), (1000, 0.4), (735, 0.25), (47, 0.3), (10, 0.25), (3, 0.1), (5, 0.0), (5, 1.0)],
)
def test_one_cycle_is_fastais_at_every_step(steps, pct_start):
    """The schedule may turn at a step, or between two steps."""
    peak, div_factor, final_div_factor = 4e-3, 25.0, 1e5
    learning_rate = one_cycle(
        steps, peak, pct_start=pct_start, div_factor=div_factor, final_div_factor=final_div_factor
    )
    momentum = one_cycle_momentum(steps, 0.95, 0.85, pct_start=pct_start)
    positions = np.arange(steps) / steps
    rates = [fastais_combined_cos(pct_start, peak / div_factor, peak, peak / final_div_factor, p) for p in positions]
    momenta = [fastais_combined_cos(pct_start, 0.95, 0.85, 0.95, p) for p in positions]
    # float32 against float64: values near 0 at the end are exact to a share of the peak.
    np.testing.assert_allclose(learning_rate(jnp.arange(steps)), rates, rtol=1e-6, atol=1e-7 * peak)
    np.testing.assert_allclose(momentum(jnp.arange(steps)), momenta, rtol=1e-6)


@given(steps=st.integers(1, 500), pct_start=st.floats(0.01, 0.99))
def test_momentum_falls_as_the_rate_rises(steps, pct_start):
    at = jnp.minimum(jnp.arange(501), steps)  # of one shape, or every example would compile again
    rate = np.asarray(one_cycle(steps, 1.0, pct_start=pct_start)(at))
    momentum = np.asarray(one_cycle_momentum(steps, 0.95, 0.85, pct_start=pct_start)(at))
    assert rate.min() >= 0.99e-5
    assert rate.max() <= 1 + 1e-6
    assert momentum.min() >= 0.85 - 1e-6
    assert momentum.max() <= 0.95 + 1e-6
    climbing = np.arange(1, steps) < steps * pct_start
    falling = np.arange(steps - 1) >= steps * pct_start
    for slopes in (np.diff(rate[:steps]), -np.diff(momentum[:steps])):
        assert (slopes[climbing] >= 0).all()
        assert (slopes[falling] <= 0).all()
    assert rate[0] == pytest.approx(0.04)


def test_flat_cosine_is_fastais_but_for_its_end():
    rates = flat_cosine(1000, 2.0, flat=0.72)(jnp.arange(1000))
    expected = [fastais_combined_cos(0.72, 2.0, 2.0, 0.0, step / 1000) for step in range(1000)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-6)
    assert set(np.asarray(rates)[:720]) == {2.0}


@given(steps=st.integers(1, 300), share=st.floats(0, 0.99))
def test_warmup_cosine_is_a_line_then_half_a_cosine(steps, share):
    warmup = int(steps * share)
    rates = np.asarray(warmup_cosine(steps, 0.5, warmup_steps=warmup)(jnp.arange(300)))[:steps]
    line = 0.5 * np.arange(1, warmup + 1) / max(warmup, 1)
    cosine = 0.25 * (1 + np.cos(np.pi * np.arange(steps - warmup) / (steps - warmup)))
    np.testing.assert_allclose(rates, np.concatenate([line, cosine]), rtol=1e-5, atol=1e-7)
    assert (rates > 0).all()  # every step of the run changes the weights


def test_step_decay_multiplies_at_each_boundary():
    rates = step_decay(0.4, warmup_steps=4, boundaries=(10, 15, 15), decay_rate=0.5)(jnp.arange(20))
    expected = [0.1, 0.2, 0.3] + [0.4] * 7 + [0.2] * 5 + [0.05] * 5  # two boundaries at step 15 halve the rate twice
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_epochs_are_counted_in_their_steps():
    config = ScheduleConfig(
        schedule="step", learning_rate=1.0, momentum=(0.9, 0.5), warmup_epochs=0.5, decay_epochs=(2, 3.5)
    )
    learning_rate, momentum = make_schedules(config, steps=500, steps_per_epoch=10)
    at = (0, 3, 4, 19, 20, 34, 35)
    np.testing.assert_allclose([learning_rate(step) for step in at], [0.2, 0.8, 1, 1, 0.1, 0.1, 0.01], rtol=1e-6)
    assert {float(momentum(step)) for step in at} == {0.9}

    config = ScheduleConfig(schedule="warmup_cosine", learning_rate=1.0, momentum=(0.9, 0.5), warmup_epochs=2.0)
    learning_rate, momentum = make_schedules(config, steps=100, steps_per_epoch=10)
    np.testing.assert_allclose([learning_rate(step) for step in (0, 19, 60)], [0.05, 1, 0.5], rtol=1e-6)
    assert {float(momentum(step)) for step in at} == {0.9}


def test_the_flat_share_is_pct_start():
    config = ScheduleConfig(schedule="flat_cosine", learning_rate=1.0, momentum=(0.9, 0.5), pct_start=0.8)
    learning_rate, momentum = make_schedules(config, steps=100)
    np.testing.assert_allclose([learning_rate(step) for step in (0, 80, 90, 100)], [1, 1, 0.5, 0], atol=1e-6)
    assert {float(momentum(step)) for step in (0, 80, 90)} == {0.9}


def test_a_constant_schedule_stays_where_it_starts():
    config = ScheduleConfig(schedule="constant", learning_rate=0.1, momentum=(0.9, 0.5))
    learning_rate, momentum = make_schedules(config, steps=100)
    assert {float(learning_rate(step)) for step in (0, 50, 200)} == {0.1}
    assert {float(momentum(step)) for step in (0, 50, 200)} == {0.9}


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_a_compiled_schedule_takes_the_step_as_an_argument(name):
    config = ScheduleConfig(schedule=name, learning_rate=0.1, momentum=(0.9, 0.8), warmup_epochs=2.0, decay_epochs=(5,))
    learning_rate, momentum = make_schedules(config, steps=40, steps_per_epoch=4)
    compiled = jax.jit(lambda step: (learning_rate(step), momentum(step)))
    for step in (0, 7, 8, 21):
        np.testing.assert_allclose(compiled(step), (learning_rate(step), momentum(step)), rtol=1e-6)


def test_a_schedule_there_is_not():
    names = "one_cycle, flat_cosine, warmup_cosine, step, constant"
    with pytest.raises(UserError, match=f"schedule=cosine: must be one of {names}"):
        ScheduleConfig(schedule="cosine", learning_rate=0.1)
