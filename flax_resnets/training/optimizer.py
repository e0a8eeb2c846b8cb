"""The optimizers, each following a schedule of its learning rate and one of its momentum."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import optax

from flax_resnets.training.lookahead import lookahead
from flax_resnets.training.muon import scale_by_muon


def make_optimizer(
    name: str,
    learning_rate: optax.Schedule,
    momentum: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    beta2: float = 0.99,
    epsilon: float = 1e-5,
    decay_all: bool = False,
) -> optax.GradientTransformation:
    """The optimizer, following both schedules by its own count of updates.

    * `sgd`: with Nesterov's momentum; decay is added to the gradient.
    * `adamw`: Loshchilov and Hutter 2017, arXiv:1711.05101, algorithm 2.
    * `lamb`: AdamW whose update of each parameter that decays is as large as the parameter: You et al. 2019,
      arXiv:1904.00962, algorithm 2.
    * `ranger`: RAdam, which is momentum alone until the second moment's variance is known (Liu et al. 2019,
      arXiv:1908.03265, algorithm 2), with decoupled decay, inside `lookahead`: fastai's `ranger`.
    * `muon`: the kernels of convolutions by orthogonalised momentum, see `scale_by_muon`; all else by AdamW.

    Decay is decoupled for all but `sgd`: the learning rate times the weight, apart from the moments.

    Args:
        name: `sgd`, `adamw`, `lamb`, `ranger` or `muon`.
        learning_rate: step to learning rate.
        momentum: step to momentum; of the others than `sgd`, b1, and of `muon` Muon's too.
        weight_decay: of kernels only: biases and the norms' scales are one-dimensional and are spared, as He et al.
            2018, arXiv:1812.01187, section 3.1 have it.
        clip_norm: largest global norm of a gradient; None for no clipping.
        beta2: b2 of all but `sgd`; fastai's 0.99 forgets within a short run what 0.999 would still average in.
        epsilon: added to the root of the second moment, of all but `sgd`.
        decay_all: decay biases and the norms' scales as well.

    Raises:
        ValueError: no such optimizer.

    Example:
        >>> import jax.numpy as jnp
        >>> optimizer = make_optimizer("sgd", lambda step: 0.5, lambda step: 0.0)
        >>> update, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
        >>> update.tolist()
        [-0.5, -0.5]
    """
    decayed = None if decay_all else _kernels

    # `inject_hyperparams` makes state of every number it is given: these two are to be in it, the rest are not.
    def sgd(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(weight_decay, mask=decayed),
            optax.sgd(learning_rate, momentum, nesterov=True),
        )

    def adamw(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        return optax.adamw(learning_rate, momentum, beta2, epsilon, weight_decay=weight_decay, mask=decayed)

    def lamb(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        # optax.lamb would scale biases and norms by their size too, and those start at 0: timm and the authors' code
        # scale only what decays.
        return optax.chain(
            optax.scale_by_adam(momentum, beta2, epsilon),
            optax.add_decayed_weights(weight_decay, mask=decayed),
            optax.masked(optax.scale_by_trust_ratio(), decayed or _all),
            optax.scale_by_learning_rate(learning_rate),
        )

    def ranger(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        radam = optax.chain(
            optax.scale_by_radam(momentum, beta2, epsilon),
            optax.add_decayed_weights(weight_decay, mask=decayed),
            optax.scale_by_learning_rate(learning_rate),
        )
        return lookahead(radam, steps=6, step_size=0.5)

    def muon(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        directions: dict[Hashable, optax.GradientTransformation] = {
            "muon": scale_by_muon(momentum),
            "adam": optax.scale_by_adam(momentum, beta2, epsilon),
        }
        return optax.chain(
            optax.partition(directions, _muon_or_adam),
            optax.add_decayed_weights(weight_decay, mask=decayed),
            optax.scale_by_learning_rate(learning_rate),
        )

    bases: dict[str, Callable[..., optax.GradientTransformation]] = {
        "sgd": sgd,
        "adamw": adamw,
        "lamb": lamb,
        "ranger": ranger,
        "muon": muon,
    }
    if name not in bases:
        raise ValueError(f"optimizer={name!r}: must be 'sgd', 'adamw', 'lamb', 'ranger' or 'muon'")
    scheduled = optax.inject_hyperparams(bases[name])(learning_rate=learning_rate, momentum=momentum)
    if clip_norm is None:
        return scheduled
    return optax.chain(optax.clip_by_global_norm(clip_norm), scheduled)


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _all(params: Any) -> Any:
    return jax.tree.map(lambda _: True, params)


def _muon_or_adam(params: Any) -> Any:
    """Which rule each parameter follows: Muon is for hidden layers, and for neither the first nor the last.

    The last is the head, a matrix `(I, O)`, or what is named so: `nin`'s is convolutions. The first is known by the
    image's channels: no other convolution `(H, W, I, O)` of the named networks has as few as three.
    """

    def rule(path: jax.tree_util.KeyPath, leaf: Any) -> str:
        is_head = jax.tree_util.keystr(path, simple=True, separator="/").startswith("head")
        return "muon" if leaf.ndim == 4 and leaf.shape[2] > 3 and not is_head else "adam"

    return jax.tree.map_with_path(rule, params)
