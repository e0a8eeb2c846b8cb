"""LAMB."""

from typing import Any

import optax

from flax_resnets.training.optimizers.decay import decayed, everything


def lamb(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    """AdamW whose update of each parameter that decays is as large as the parameter.

    You et al. 2019, arXiv:1904.00962, algorithm 2. Arguments as `Optimizer`'s.
    """
    # optax.lamb would scale biases and norms by their size too, and those start at 0: timm and the authors' code
    # scale only what decays.
    return optax.chain(
        optax.scale_by_adam(momentum, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(config)),
        optax.masked(optax.scale_by_trust_ratio(), decayed(config) or everything),
        optax.scale_by_learning_rate(learning_rate),
    )
