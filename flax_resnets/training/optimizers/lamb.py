"""LAMB."""

from typing import Any

import optax

from flax_resnets.training.optimizers.decay import decayed, everything


def lamb(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    """LAMB: AdamW whose update of each decayed parameter is scaled to the size of that parameter.

    You et al. 2019, arXiv:1904.00962, algorithm 2. For the arguments see `Optimizer`.
    """
    # optax.lamb would also scale the updates of biases and norms by the size of these parameters, which starts at 0.
    # timm and the authors' code scale decayed parameters only.
    return optax.chain(
        optax.scale_by_adam(momentum, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(config)),
        optax.masked(optax.scale_by_trust_ratio(), decayed(config) or everything),
        optax.scale_by_learning_rate(learning_rate),
    )
