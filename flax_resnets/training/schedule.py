"""How the learning rate and the momentum move over a run, and the optimizer that follows them."""

from typing import Any

import jax
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


def _up_and_down(steps: int, pct_start: float, first: float, middle: float, last: float) -> optax.Schedule:
    turn = max(1, round(steps * pct_start))
    return optax.join_schedules(
        [_cosine(first, middle, turn), _cosine(middle, last, max(1, steps - turn))], boundaries=[turn]
    )


def _cosine(first: float, last: float, steps: int) -> optax.Schedule:
    # optax's own decays towards a share of its first value, so it can do neither up nor exactly this end.
    fall = optax.cosine_decay_schedule(1.0, steps)
    return lambda count: last + (first - last) * fall(count)


def make_schedules(
    name: str,
    steps: int,
    learning_rate: float,
    momentum: tuple[float, float],
    *,
    pct_start: float = 0.25,
    div_factor: float = 25.0,
    final_div_factor: float = 1e5,
) -> tuple[optax.Schedule, optax.Schedule]:
    """Learning rate and momentum over a run.

    Args:
        name: `one_cycle`, or `constant` at `learning_rate` and `momentum[0]`.
        steps: of the whole run.
        learning_rate: the largest value.
        momentum: at the ends of a one-cycle schedule, and at its peak.
        pct_start: see `one_cycle`, as the two that follow.
        div_factor: see `one_cycle`.
        final_div_factor: see `one_cycle`.

    Raises:
        ValueError: no such schedule.
    """
    if name == "constant":
        return optax.constant_schedule(learning_rate), optax.constant_schedule(momentum[0])
    if name == "one_cycle":
        shape = {"pct_start": pct_start, "div_factor": div_factor, "final_div_factor": final_div_factor}
        return one_cycle(steps, learning_rate, **shape), one_cycle_momentum(steps, *momentum, pct_start=pct_start)
    raise ValueError(f"schedule={name!r}: must be 'one_cycle' or 'constant'")


def make_optimizer(
    name: str,
    learning_rate: optax.Schedule,
    momentum: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """The optimizer, following both schedules by its own count of updates.

    Args:
        name: `sgd` (Nesterov; decay added to the gradient) or `adamw` (decoupled decay; momentum is its b1, b2 is
            fastai's 0.99, which forgets within a short run what 0.999 would still average in).
        learning_rate: step to learning rate.
        momentum: step to momentum.
        weight_decay: of kernels only: biases and the norms' scales are one-dimensional and are spared, as He et al.
            2018, arXiv:1812.01187, section 3.1 have it.
        clip_norm: largest global norm of a gradient; None for no clipping.

    Raises:
        ValueError: no such optimizer.
    """
    if name == "sgd":

        def base(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
            return optax.chain(
                optax.add_decayed_weights(weight_decay, mask=_kernels),
                optax.sgd(learning_rate, momentum, nesterov=True),
            )

    elif name == "adamw":

        def base(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
            return optax.adamw(learning_rate, b1=momentum, b2=0.99, eps=1e-5, weight_decay=weight_decay, mask=_kernels)

    else:
        raise ValueError(f"optimizer={name!r}: must be 'sgd' or 'adamw'")
    scheduled = optax.inject_hyperparams(base)(learning_rate=learning_rate, momentum=momentum)
    if clip_norm is None:
        return scheduled
    return optax.chain(optax.clip_by_global_norm(clip_norm), scheduled)


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
