"""The exponential moving average of the weights (EMA)."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import struct

from flax_resnets.fields import MOST, Fields, Rule


@dataclass(frozen=True, kw_only=True)
class AverageConfig(Fields):
    """Whether the weights' average is kept, and which running statistics go with it.

    Attributes:
        ema_decay: share of the old kept when the weights are averaged over steps, to be evaluated beside the weights
            themselves; None for no average.
        ema_batch_norm: which running statistics the averaged weights get: `average`, the statistics' own average, or
            `recalibrate`, taken anew over the epoch's last `recalibrate_steps` batches, as they were but unmixed.
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
    """An exponential average over steps: Polyak and Juditsky 1992's idea, as evaluated beside the weights themselves.

    Attributes:
        params: the parameters' average, float32.
        batch_stats: the running statistics that go with them, float32.
    """

    params: Any
    batch_stats: Any


def averaged(ema: Average | None, new: Average, step: jax.Array, config: AverageConfig) -> Average | None:
    """The average with one more step's weights in it; None stays None.

    The first steps weigh more, or the initial weights would linger: after t steps the decay is at most
    (1 + t) / (10 + t), as in TensorFlow's `ExponentialMovingAverage`. Statistics that are to be recalibrated are left
    alone here.
    """
    if ema is None or config.ema_decay is None:
        return None
    decay = jnp.minimum(config.ema_decay, (1 + step) / (10 + step))
    if config.ema_batch_norm == "recalibrate":
        new = new.replace(batch_stats=ema.batch_stats)
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, new)
