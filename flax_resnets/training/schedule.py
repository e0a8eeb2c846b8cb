"""Schedules of the learning rate and the momentum."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import jax.numpy as jnp
import optax

from flax_resnets.fields import Fields, OneOf, Rule


def one_cycle(
    steps: int,
    peak: float,
    *,
    pct_start: float = 0.25,
    div_factor: float = 25.0,
    final_div_factor: float = 1e5,
) -> optax.Schedule:
    """Smith's one-cycle learning rate in its cosine form: up to the peak, then down to almost nothing.

    Smith and Topin 2017, "Super-Convergence", arXiv:1708.07120, section 4. The cosine form and the defaults are those
    of fastai's `fit_one_cycle`.

    Args:
        steps: of the whole run.
        peak: the largest value.
        pct_start: share of the run in which the value rises.
        div_factor: the first value is `peak / div_factor`.
        final_div_factor: the last value is `peak / final_div_factor`.

    Returns:
        A function from step, counted from 0, to learning rate.

    Example:
        >>> schedule = one_cycle(100, 1.0)
        >>> [round(float(schedule(step)), 2) for step in (0, 25, 100)]
        [0.04, 1.0, 0.0]
    """
    return _up_and_down(steps, pct_start, peak / div_factor, peak, peak / final_div_factor)


def one_cycle_momentum(steps: int, ends: float, middle: float, *, pct_start: float = 0.25) -> optax.Schedule:
    """Momentum that falls while the learning rate of `one_cycle` rises, and rises while it falls (same source).

    Args:
        steps: of the whole run.
        ends: the first value and the last.
        middle: the value at the learning rate's peak.
        pct_start: share of the run before the peak.

    Returns:
        A function from step, counted from 0, to momentum.

    Example:
        >>> momentum = one_cycle_momentum(100, 0.95, 0.85)
        >>> [round(float(momentum(step)), 2) for step in (0, 25, 100)]
        [0.95, 0.85, 0.95]
    """
    return _up_and_down(steps, pct_start, ends, middle, ends)


def flat_cosine(steps: int, peak: float, *, flat: float) -> optax.Schedule:
    """A constant learning rate for a share of the run, then a cosine down to 0.

    This is fastai's `fit_flat_cos`, except that fastai's ends at `peak / 1e5`. It suits optimizers that warm up by
    themselves, such as `ranger`.

    Args:
        steps: of the whole run.
        peak: the constant value.
        flat: share of the run at the constant value.

    Returns:
        A function from step, counted from 0, to learning rate.

    Example:
        >>> schedule = flat_cosine(100, 1.0, flat=0.5)
        >>> [round(float(schedule(step)), 2) for step in (0, 50, 75, 100)]
        [1.0, 1.0, 0.5, 0.0]
    """
    return _up_and_down(steps, flat, peak, peak, 0.0)


def warmup_cosine(steps: int, peak: float, *, warmup_steps: int) -> optax.Schedule:
    """A linear rise to the peak, then a cosine down to 0.

    Loshchilov and Hutter 2016, "SGDR", arXiv:1608.03983, equation 5, without restarts. The warm-up is that of Goyal et
    al. 2017, "Accurate, Large Minibatch SGD", arXiv:1706.02677, section 2.2.

    Args:
        steps: of the whole run.
        peak: the largest value.
        warmup_steps: steps of the rise; the last of them is taken at the peak.

    Returns:
        A function from step, counted from 0, to learning rate.

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
    """A linear rise to the peak; then, at each boundary, the learning rate is multiplied by `decay_rate`.

    With 0.1 at epochs 30, 60 and 80 this is the schedule of Goyal et al. 2017, arXiv:1706.02677, section 5.1. The
    warm-up is that of `warmup_cosine`.

    Args:
        peak: the largest value.
        warmup_steps: see `warmup_cosine`.
        boundaries: steps, counted from 0; each is the first one at the lower value.
        decay_rate: factor at each boundary.

    Returns:
        A function from step, counted from 0, to learning rate.

    Example:
        >>> schedule = step_decay(1.0, warmup_steps=2, boundaries=(30, 60), decay_rate=0.1)
        >>> [round(float(schedule(step)), 3) for step in (0, 1, 29, 30, 60)]
        [0.5, 1.0, 1.0, 0.1, 0.01]
    """
    rise = _rise(peak, warmup_steps)
    # optax.piecewise_constant_schedule takes its boundaries as a dict, which would merge two at the same step.

    def schedule(count: Any) -> Any:
        passed = sum(jnp.int32(count >= boundary) for boundary in boundaries)
        return rise(count) * decay_rate**passed

    return schedule


def _rise(peak: float, steps: int) -> optax.Schedule:
    # Step 0 is the first step of the rise. Its rate is not 0, because an update at rate 0 would change nothing.
    return lambda count: peak * jnp.minimum(count + 1, max(steps, 1)) / max(steps, 1)


def _up_and_down(steps: int, pct_start: float, first: float, middle: float, last: float) -> optax.Schedule:
    turn = steps * pct_start  # not rounded to a whole step: the rates of a short run would not be fastai's
    up, down = _cosine(first, middle, turn), _cosine(middle, last, steps - turn)

    def schedule(count: Any) -> Any:
        return jnp.where(count < turn, up(count), down(count - turn))

    return schedule


def _cosine(first: float, last: float, steps: float) -> optax.Schedule:
    # optax's cosine cannot rise, cannot end at exactly this value, and takes whole steps only. With 0 steps this one is
    # at its first value at step 0: that is where the way down begins when there is no way up.
    steps = max(steps, 1e-3)
    return lambda count: last + (first - last) * (0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(count, 0, steps) / steps)))


SCHEDULES: Mapping[str, Callable[["ScheduleConfig", int, int], optax.Schedule]] = {
    "one_cycle": lambda config, steps, _: one_cycle(
        steps,
        config.learning_rate,
        pct_start=config.pct_start,
        div_factor=config.div_factor,
        final_div_factor=config.final_div_factor,
    ),
    "flat_cosine": lambda config, steps, _: flat_cosine(steps, config.learning_rate, flat=config.pct_start),
    "warmup_cosine": lambda config, steps, steps_per_epoch: warmup_cosine(
        steps, config.learning_rate, warmup_steps=round(config.warmup_epochs * steps_per_epoch)
    ),
    "step": lambda config, steps, steps_per_epoch: step_decay(
        config.learning_rate,
        warmup_steps=round(config.warmup_epochs * steps_per_epoch),
        # Boundaries beyond the run are clipped, because they may not fit into int32.
        boundaries=[round(min(epoch * steps_per_epoch, steps)) for epoch in config.decay_epochs],
        decay_rate=config.decay_rate,
    ),
    "constant": lambda config, *_: optax.constant_schedule(config.learning_rate),
}
"""The learning rate of each schedule: a function of the configuration, the steps of the run and those of an epoch."""


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig(Fields):
    """How the learning rate and the momentum change. To add a schedule: a function, and a line in `SCHEDULES`.

    Attributes:
        schedule: `one_cycle`, `flat_cosine`, `warmup_cosine`, `step` (see `step_decay`), or `constant` at
            `learning_rate` and the first momentum.
        learning_rate: the peak of the schedule.
        pct_start, div_factor, final_div_factor: shape of the one-cycle schedule, see `one_cycle`; in `flat_cosine`,
            `pct_start` is the share of the run that is flat.
        warmup_epochs: length of the rise to the peak in `warmup_cosine` and `step`; it begins after `freeze_epochs`.
        decay_epochs: after each of these epochs of the run, `step` multiplies the learning rate by `decay_rate`.
        decay_rate: see `decay_epochs`.
        momentum: of the one-cycle schedule: at both ends, and at the peak. The other schedules use the first value
            throughout. For all optimizers but `sgd` it is Adam's b1, and for `muon` also its momentum.
    """

    schedule: Annotated[str, OneOf(SCHEDULES)] = "one_cycle"
    learning_rate: float
    pct_start: float = 0.25
    div_factor: float = 25.0
    final_div_factor: float = 1e5
    warmup_epochs: float = 0.0
    decay_epochs: tuple[float, ...] = ()
    decay_rate: float = 0.1
    momentum: tuple[float, float] = (0.95, 0.85)

    RULES = (
        Rule("learning_rate div_factor final_div_factor", lambda v: v > 0, "above 0"),
        Rule("warmup_epochs", lambda v: v >= 0, "at least 0"),
        Rule("pct_start", lambda v: 0 < v < 1, "between 0 and 1"),
        Rule("decay_rate", lambda v: 0 < v <= 1, "above 0 and up to 1"),
        Rule("decay_epochs", lambda v: all(a < b for a, b in zip((0, *v), v, strict=False)), "rising, and above 0"),
        Rule("momentum", lambda v: all(0 <= m < 1 for m in v), "two numbers, each at least 0 and below 1"),
    )

    def after(self, epochs: float, began: float = 0) -> Self:
        """The schedule of the epochs that are left after these.

        `step` goes on by the run's epochs. The other schedules begin anew, over what is left.

        Args:
            epochs: of the run that are over.
            began: the epochs after which the schedule began, and with it the rise to the peak.

        Example:
            >>> config = ScheduleConfig(learning_rate=1.0, schedule="step", decay_epochs=(30, 60), warmup_epochs=5)
            >>> rest = config.after(40)
            >>> rest.learning_rate, rest.decay_epochs, rest.warmup_epochs
            (0.1, (20.0,), 0.0)
        """
        if not epochs or self.schedule != "step":
            return self
        past = sum(epoch <= epochs for epoch in self.decay_epochs)
        return dataclasses.replace(
            self,
            learning_rate=self.learning_rate * self.decay_rate**past,
            decay_epochs=tuple(float(epoch - epochs) for epoch in self.decay_epochs[past:]),
            warmup_epochs=max(0.0, self.warmup_epochs - (epochs - began)),
        )


def make_schedules(
    config: ScheduleConfig, steps: int, steps_per_epoch: int = 1
) -> tuple[optax.Schedule, optax.Schedule]:
    """The schedules of the learning rate and of the momentum.

    Args:
        config: the schedule and its shape.
        steps: of the whole run.
        steps_per_epoch: turns `warmup_epochs` and `decay_epochs` into steps, rounded to whole ones.

    Example:
        >>> learning_rate, momentum = make_schedules(ScheduleConfig(learning_rate=0.1, schedule="constant"), steps=10)
        >>> round(float(learning_rate(7)), 2), momentum(7)
        (0.1, 0.95)
    """
    rate = SCHEDULES[config.schedule](config, steps, steps_per_epoch)
    if config.schedule == "one_cycle":
        return rate, one_cycle_momentum(steps, *config.momentum, pct_start=config.pct_start)
    return rate, optax.constant_schedule(config.momentum[0])
