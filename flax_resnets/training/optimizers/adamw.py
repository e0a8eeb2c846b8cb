"""AdamW."""

from typing import Any

import optax

from flax_resnets.training.optimizers.decay import decayed


def adamw(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    """AdamW: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2. For the arguments see `Optimizer`."""
    return optax.adamw(
        learning_rate, momentum, config.beta2, config.epsilon, weight_decay=config.weight_decay, mask=decayed(config)
    )
