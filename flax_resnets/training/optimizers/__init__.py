"""The optimizers, each following a schedule of its learning rate and one of its momentum.

To add one: a file of this folder with a function as `Optimizer` describes, and its line in `OPTIMIZERS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import optax

from flax_resnets.fields import Fields, OneOf, Rule
from flax_resnets.training.optimizers.adamw import adamw
from flax_resnets.training.optimizers.lamb import lamb
from flax_resnets.training.optimizers.muon import muon
from flax_resnets.training.optimizers.ranger import ranger
from flax_resnets.training.optimizers.sgd import sgd


class Optimizer(Protocol):
    """What an entry of `OPTIMIZERS` is."""

    def __call__(self, config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        """The optimizer at one step.

        Args:
            config: an `OptimizerConfig`.
            learning_rate: a number, which may be traced.
            momentum: likewise; the first moment's decay.
        """
        ...


OPTIMIZERS: Mapping[str, Optimizer] = {"sgd": sgd, "adamw": adamw, "lamb": lamb, "ranger": ranger, "muon": muon}


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Fields):
    """How gradients become updates.

    Decay is decoupled for all but `sgd`: the learning rate times the weight, apart from the moments. It spares biases
    and the norms' scales, as He et al. 2018, arXiv:1812.01187, section 3.1 have it.

    Attributes:
        optimizer: `sgd` (Nesterov), `adamw`, `lamb`, `ranger` or `muon`: the functions of `OPTIMIZERS`.
        beta2: b2 of `adamw`, `lamb`, `ranger`, and of what `muon` leaves to AdamW; fastai's 0.99 forgets within a short
            run what 0.999 would still average in.
        epsilon: added to the root of the second moment, of the same.
        weight_decay: decoupled for all but `sgd`, where it is added to the gradient; spares biases and norms.
        decay_all: weight decay does not spare biases and norms.
        clip_norm: largest global norm of a gradient; None for no clipping.
    """

    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "adamw"
    beta2: float = 0.99
    epsilon: float = 1e-5
    weight_decay: float = 0.01
    decay_all: bool = False
    clip_norm: float | None = None

    RULES = (
        Rule("clip_norm epsilon", lambda v: v > 0, "above 0"),
        Rule("weight_decay", lambda v: v >= 0, "at least 0"),
        Rule("beta2", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    )


def make_optimizer(
    config: OptimizerConfig, learning_rate: optax.Schedule, momentum: optax.Schedule
) -> optax.GradientTransformation:
    """The optimizer that a configuration names, following both schedules by its own count of updates.

    Args:
        config: the optimizer and its settings.
        learning_rate: step to learning rate.
        momentum: step to momentum; of the others than `sgd`, b1, and of `muon` Muon's too.

    Example:
        >>> import jax.numpy as jnp
        >>> config = OptimizerConfig(optimizer="sgd", weight_decay=0.0)
        >>> optimizer = make_optimizer(config, lambda step: 0.5, lambda step: 0.0)
        >>> update, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
        >>> update.tolist()
        [-0.5, -0.5]
    """

    # `inject_hyperparams` makes state of every number it is given: these two are to be in it, the rest are not.
    def scheduled(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        return OPTIMIZERS[config.optimizer](config, learning_rate, momentum)

    following = optax.inject_hyperparams(scheduled)(learning_rate=learning_rate, momentum=momentum)
    if config.clip_norm is None:
        return following
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), following)
