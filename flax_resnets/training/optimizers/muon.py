"""Muon: orthogonalised momentum for convolution kernels, AdamW for all other parameters."""

from collections.abc import Hashable
from typing import Any

import jax
import optax

from flax_resnets.training.optimizers.decay import decayed
from flax_resnets.training.optimizers.orthogonal import scale_by_muon


def muon(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
    """Muon: `scale_by_muon` for convolution kernels, AdamW for all others. For the arguments see `Optimizer`."""
    directions: dict[Hashable, optax.GradientTransformation] = {
        "muon": scale_by_muon(momentum),
        "adam": optax.scale_by_adam(momentum, config.beta2, config.epsilon),
    }
    return optax.chain(
        optax.partition(directions, _muon_or_adam),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(config)),
        optax.scale_by_learning_rate(learning_rate),
    )


def _muon_or_adam(params: Any) -> Any:
    """Which rule each parameter follows. Muon is for the convolutions of hidden layers: not of the first or last layer.

    The last layer is the one named `head`: a matrix `(I, O)`, or convolutions as in `nin`. The first layer is
    recognised by its input channels: no other convolution `(H, W, I, O)` of the registered networks has three or fewer.
    """

    def rule(path: jax.tree_util.KeyPath, leaf: Any) -> str:
        is_head = jax.tree_util.keystr(path, simple=True, separator="/").startswith("head")
        return "muon" if leaf.ndim == 4 and leaf.shape[2] > 3 and not is_head else "adam"

    return jax.tree.map_with_path(rule, params)
