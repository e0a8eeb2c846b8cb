"""SGD with Nesterov's momentum."""

from typing import Any

import optax

from flax_resnets.training.optimizers.decay import decayed


def sgd(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    """SGD with Nesterov's momentum; weight decay is added to the gradient. For the arguments see `Optimizer`."""
    return optax.chain(
        optax.add_decayed_weights(config.weight_decay, mask=decayed(config)),
        optax.sgd(learning_rate, momentum, nesterov=True),
    )
