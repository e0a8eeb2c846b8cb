"""The exponential moving average of the weights (EMA)."""

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


def averaged(ema: Average | None, new: Average, step: jax.Array, config: AverageConfig) -> Average | None:
    """Adds the weights of one more step to the average; returns None if there is no average.

    Early steps get more weight, because otherwise the initial weights would stay in the average for long: after t steps
    the decay is at most (1 + t) / (10 + t), as in TensorFlow's `ExponentialMovingAverage`. With
    `ema_batch_norm="recalibrate"` the running statistics stay unchanged here.
    """
    if ema is None or config.ema_decay is None:
        return None
    decay = jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    if config.ema_batch_norm == "recalibrate":
        new = new.replace(batch_stats=ema.batch_stats)
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, new)
