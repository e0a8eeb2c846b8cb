"""How the learning rate and the momentum move over a run."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import optax


def one_cycle(
    steps: int,
    peak: float,
    *,
    pct_start: float = 0.25,
    div_factor: float = 25.0,
    final_div_factor: float = 1e5,
) -> optax.Schedule:
    """Smith's one-cycle learning rate in its cosine form: up to the peak, then down to almost nothing.

    Smith and Topin 2017, "Super-Convergence", arXiv:1708.07120, section 4; the cosine form and the defaults are
    fastai's `fit_one_cycle`.

    Args:
        steps: of the whole run.
        peak: the largest value.
        pct_start: share of the run that goes up.
        div_factor: the first value is `peak / div_factor`.
        final_div_factor: the last value is `peak / final_div_factor`.

    Returns:
        step, counted from 0, to learning rate.

    Example:
        >>> schedule = one_cycle(100, 1.0)
        >>> [round(float(schedule(step)), 2) for step in (0, 25, 100)]
        [0.04, 1.0, 0.0]
    """
    return _up_and_down(steps, pct_start, peak / div_factor, peak, peak / final_div_factor)


def one_cycle_momentum(steps: int, ends: float, middle: float, *, pct_start: float = 0.25) -> optax.Schedule:
    """Momentum against the learning rate: low where that is high (same source as `one_cycle`).

    Args:
        steps: of the whole run.
        ends: the first value and the last.
        middle: the value at the learning rate's peak.
        pct_start: share of the run that leads to the peak.

    Returns:
        step, counted from 0, to momentum.

    Example:
        >>> momentum = one_cycle_momentum(100, 0.95, 0.85)
        >>> [round(float(momentum(step)), 2) for step in (0, 25, 100)]
        [0.95, 0.85, 0.95]
    """
    return _up_and_down(steps, pct_start, ends, middle, ends)


def flat_cosine(steps: int, peak: float, *, flat: float) -> optax.Schedule:
    """The peak for a share of the run, then a cosine down to 0.

    fastai's `fit_flat_cos`, whose own end is `peak / 1e5`; made for optimizers that warm up by themselves, as `ranger`.

    Args:
        steps: of the whole run.
        peak: the first value.
        flat: share of the run that stays there.

    Returns:
        step, counted from 0, to learning rate.

    Example:
        >>> schedule = flat_cosine(100, 1.0, flat=0.5)
        >>> [round(float(schedule(step)), 2) for step in (0, 50, 75, 100)]
        [1.0, 1.0, 0.5, 0.0]
    """
    return _up_and_down(steps, flat, peak, peak, 0.0)


def warmup_cosine(steps: int, peak: float, *, warmup_steps: int) -> optax.Schedule:
    """A straight line up to the peak, then a cosine down to 0.

    Loshchilov and Hutter 2016, "SGDR", arXiv:1608.03983, equation 5, without restarts; the warm-up is Goyal et al.
    2017, "Accurate, Large Minibatch SGD", arXiv:1706.02677, section 2.2.

    Args:
        steps: of the whole run.
        peak: the largest value.
        warmup_steps: how many lead to the peak; the last of them is taken at it.

    Returns:
        step, counted from 0, to learning rate.

    Example:
        >>> schedule = warmup_cosine(100, 1.0, warmup_steps=10)
        >>> [round(float(schedule(step)), 2) for step in (0, 4, 9, 55, 100)]
        [0.1, 0.5, 1.0, 0.5, 0.0]
    """
    fall = _cosine(peak, 0.0, max(1, steps - warmup_steps))
    return optax.join_schedules([_rise(peak, warmup_steps), fall], boundaries=[warmup_steps])


def step_decay(
    peak: float, *, warmup_steps: int = 0, boundaries: Sequence[int] = (), decay_rate: float = 0.1
) -> optax.Schedule:
    """A straight line up to the peak, and from each boundary on a share of what was before.

    With 0.1 at epochs 30, 60 and 80 the schedule of Goyal et al. 2017, arXiv:1706.02677, section 5.1; the warm-up is
    `warmup_cosine`'s.

    Args:
        peak: the largest value.
        warmup_steps: see `warmup_cosine`.
        boundaries: steps, counted from 0; each is the first to be taken at the lower value.
        decay_rate: the share.

    Returns:
        step, counted from 0, to learning rate.

    Example:
        >>> schedule = step_decay(1.0, warmup_steps=2, boundaries=(30, 60), decay_rate=0.1)
        >>> [round(float(schedule(step)), 3) for step in (0, 1, 29, 30, 60)]
        [0.5, 1.0, 1.0, 0.1, 0.01]
    """
    rise = _rise(peak, warmup_steps)
    # optax's piecewise_constant_schedule has its boundaries in a dict, where two that are one step would be one.

    def schedule(count: Any) -> Any:
        passed = sum(jnp.int32(count >= boundary) for boundary in boundaries)
        return rise(count) * decay_rate**passed

    return schedule


def _rise(peak: float, steps: int) -> optax.Schedule:
    # Step 0 is the first of so many, and not at 0: its update would be none.
    return lambda count: peak * jnp.minimum(count + 1, max(steps, 1)) / max(steps, 1)


def _up_and_down(steps: int, pct_start: float, first: float, middle: float, last: float) -> optax.Schedule:
    turn = steps * pct_start  # between two steps, as a rule: rounded, a short run's rates would not be fastai's
    up, down = _cosine(first, middle, turn), _cosine(middle, last, steps - turn)

    def schedule(count: Any) -> Any:
        return jnp.where(count < turn, up(count), down(count - turn))

    return schedule


def _cosine(first: float, last: float, steps: float) -> optax.Schedule:
    # optax's own decays towards a share of its first value, so it can do neither up nor exactly this end, and takes
    # whole steps alone. One of no steps is at its first value where it begins, as the way down is where none leads up.
    steps = max(steps, 1e-3)
    return lambda count: last + (first - last) * (0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(count, 0, steps) / steps)))


def make_schedules(
    name: str,
    steps: int,
    learning_rate: float,
    momentum: tuple[float, float],
    *,
    steps_per_epoch: int = 1,
    pct_start: float = 0.25,
    div_factor: float = 25.0,
    final_div_factor: float = 1e5,
    warmup_epochs: float = 0.0,
    decay_epochs: Sequence[float] = (),
    decay_rate: float = 0.1,
) -> tuple[optax.Schedule, optax.Schedule]:
    """Learning rate and momentum over a run.

    Args:
        name: `one_cycle`, `flat_cosine`, `warmup_cosine`, `step` (see `step_decay`), or `constant`.
        steps: of the whole run.
        learning_rate: the largest value.
        momentum: at the ends of a one-cycle schedule, and at its peak; the others stay at the first.
        steps_per_epoch: what the epochs below are counted in, and rounded to whole steps by.
        pct_start: see `one_cycle`, as the two that follow; of `flat_cosine`, its share `flat`.
        div_factor: see `one_cycle`.
        final_div_factor: see `one_cycle`.
        warmup_epochs: length of the warm-up of `warmup_cosine` and `step`.
        decay_epochs: boundaries of `step`: epochs gone by.
        decay_rate: see `step_decay`.

    Raises:
        ValueError: no such schedule.
    """
    warmup_steps = round(warmup_epochs * steps_per_epoch)
    if name == "one_cycle":
        shape = {"pct_start": pct_start, "div_factor": div_factor, "final_div_factor": final_div_factor}
        return one_cycle(steps, learning_rate, **shape), one_cycle_momentum(steps, *momentum, pct_start=pct_start)
    if name == "flat_cosine":
        rate = flat_cosine(steps, learning_rate, flat=pct_start)
    elif name == "warmup_cosine":
        rate = warmup_cosine(steps, learning_rate, warmup_steps=warmup_steps)
    elif name == "step":
        # What lies beyond the run may lie beyond int32.
        boundaries = [round(min(epoch * steps_per_epoch, steps)) for epoch in decay_epochs]
        rate = step_decay(learning_rate, warmup_steps=warmup_steps, boundaries=boundaries, decay_rate=decay_rate)
    elif name == "constant":
        rate = optax.constant_schedule(learning_rate)
    else:
        raise ValueError(
            f"schedule={name!r}: must be 'one_cycle', 'flat_cosine', 'warmup_cosine', 'step' or 'constant'"
        )
    return rate, optax.constant_schedule(momentum[0])
