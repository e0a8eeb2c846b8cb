"""The exponential moving average of the weights (EMA)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from flax_resnets.fields import MOST, Fields, Rule


@dataclass(frozen=True, kw_only=True)
class AverageConfig(Fields):
    """Whether a run keeps an EMA of the weights, and which running statistics are evaluated with it.

    Attributes:
        ema_decay: share of the old average that is kept in each step. The averaged weights are evaluated in addition
            to the weights themselves; None for no average.
        ema_batch_norm: which running statistics are evaluated with the averaged weights. `average`: the EMA of the
            running statistics. `recalibrate`: statistics computed anew on the epoch's last `recalibrate_steps` batches,
            augmented as in training, but without mixup and CutMix.
        recalibrate_steps: see `ema_batch_norm`.
    """

    ema_decay: float | None = None
    ema_batch_norm: Literal["average", "recalibrate"] = "average"
    recalibrate_steps: int = 20

    RULES = (
        Rule("ema_decay", lambda v: 0 < v < 1, "between 0 and 1"),
        Rule("recalibrate_steps", lambda v: v >= 1, "at least 1"),
        Rule("recalibrate_steps", lambda v: v <= MOST, f"at most {MOST}"),
    )


class Average(struct.PyTreeNode):
    """The exponential moving average (EMA) of a run's weights over its steps: an idea of Polyak and Juditsky 1992.

    Attributes:
        params: EMA of the parameters, float32.
        batch_stats: the running statistics to evaluate with them, float32.
    """

    params: Any
    batch_stats: Any


def averaged(
    ema: Average | None,
    new: Average,
    step: jax.Array,
    config: AverageConfig,
    still: Collection[str] = (),
    at_rest: Collection[str] = (),
) -> Average | None:
    """Adds the weights of one more step to the average; returns None if there is no average.

    Early steps get more weight, because otherwise the initial weights would stay in the average for long: after t steps
    the decay is at most (1 + t) / (10 + t), as in TensorFlow's `ExponentialMovingAverage`. With
    `ema_batch_norm="recalibrate"` the running statistics stay unchanged here.

    Args:
        ema: the average so far.
        new: the weights after this step.
        step: the number of the step.
        config: see the class.
        still: modules whose parameters did not change. Their average stays as it is, because averaging a number with
            itself can round.
        at_rest: modules whose running statistics did not change.
    """
    if ema is None or config.ema_decay is None:
        return None
    decay = jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    if config.ema_batch_norm == "recalibrate":
        new = new.replace(batch_stats=ema.batch_stats)
    mean = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, new)

    def unchanged(old: Any, modules: Collection[str]) -> dict[str, Any]:
        return {name: module for name, module in old.items() if name in modules}

    return Average(
        {**mean.params, **unchanged(ema.params, still)},
        {**mean.batch_stats, **unchanged(ema.batch_stats, at_rest)},
    )
