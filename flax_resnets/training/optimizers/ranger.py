"""Ranger: RAdam inside Lookahead."""

from typing import Any

import optax

from flax_resnets.training.optimizers.decay import decayed
from flax_resnets.training.optimizers.lookahead import lookahead


def ranger(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    """RAdam with decoupled weight decay inside `lookahead`, as fastai's `ranger`. For the arguments see `Optimizer`.

    RAdam uses momentum alone in the first steps, while the variance of the second moment is still unknown: Liu et al.
    2019, arXiv:1908.03265, algorithm 2.
    """
    radam = optax.chain(
        optax.scale_by_radam(momentum, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(config)),
        optax.scale_by_learning_rate(learning_rate),
    )
    return lookahead(radam, steps=6, step_size=0.5)
