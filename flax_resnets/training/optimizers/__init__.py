"""The optimizers. Each follows a schedule of its learning rate and one of its momentum.

To add one, write a function like `Optimizer` in a new file of this folder, and add a line to `OPTIMIZERS`.
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

import jax
import optax

from flax_resnets import own
from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, OneOf, Rule
from flax_resnets.training.optimizers.adamw import adamw
from flax_resnets.training.optimizers.lamb import lamb
from flax_resnets.training.optimizers.muon import muon
from flax_resnets.training.optimizers.ranger import ranger
from flax_resnets.training.optimizers.sgd import sgd


class Optimizer(Protocol):
    """The type of the functions in `OPTIMIZERS`, and of a recipe's own."""

    def __call__(self, config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        """Builds the optimizer.

        Args:
            config: an `OptimizerConfig`.
            learning_rate: a number, may be traced.
            momentum: decay of the first moment; a number, may be traced.
        """
        ...


OPTIMIZERS: Mapping[str, Optimizer] = {"sgd": sgd, "adamw": adamw, "lamb": lamb, "ranger": ranger, "muon": muon}


def optimizer_function(name: str) -> Optimizer:
    """The optimizer that a configuration names: one of `OPTIMIZERS`, or a recipe's own.

    A recipe's own raises UserError if it fails, also when it is initialised or updates later, or if it returns
    something else.
    """
    if not own.is_named(name):
        return OPTIMIZERS[name]
    function = own.function_of("optimizer", name)

    def checked(config: Any, learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        with own.blamed("optimizer", name):
            made = function(config, learning_rate, momentum)
        if not isinstance(made, optax.GradientTransformation):
            raise UserError(f"optimizer={name}: returned {made!s:.100}, must return an optax.GradientTransformation")

        def init(params: optax.Params) -> optax.OptState:
            with own.blamed("optimizer", name):
                return made.init(params)

        def update(
            updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
        ) -> tuple[optax.Updates, optax.OptState]:
            with own.blamed("optimizer", name):
                return made.update(updates, state, params)

        return optax.GradientTransformation(init, update)

    return checked


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Fields):
    """How gradients become updates.

    For all optimizers but `sgd`, weight decay is decoupled: the weight times `weight_decay` and the learning rate is
    subtracted (`lamb` scales it with the rest of the update), and the moments are computed without it. Biases and the
    scales of norms do not decay: He et al. 2018, arXiv:1812.01187, section 3.1.

    Attributes:
        optimizer: `sgd` (Nesterov), `adamw`, `lamb`, `ranger` or `muon`; see `OPTIMIZERS`. Or a recipe's own function,
            see `Optimizer`; docs/functions.md.
        beta2: b2 of `adamw`, `lamb` and `ranger`, and of the AdamW that `muon` uses for some parameters. In a short run
            fastai's 0.99 forgets early gradients that 0.999 would keep averaging in.
        epsilon: added to the root of the second moment, in the optimizers that use `beta2`.
        weight_decay: decoupled, except in `sgd`, where it is added to the gradient. Biases and norms do not decay.
        decay_all: biases and norms decay too.
        clip_norm: largest global norm of the gradient; None for no clipping.
    """

    optimizer: Annotated[str | Optimizer, OneOf(OPTIMIZERS)] = "adamw"
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
    config: OptimizerConfig,
    learning_rate: optax.Schedule,
    momentum: optax.Schedule,
    groups: Mapping[str, tuple[str, float]] | None = None,
    waiting: Collection[str] = (),
) -> optax.GradientTransformation:
    """The optimizer that a configuration names. It counts its updates and follows both schedules by that count.

    Args:
        config: the optimizer and its settings.
        learning_rate: schedule, from step to learning rate.
        momentum: schedule, from step to momentum. It is b1 in all optimizers but `sgd`; in `muon` also the momentum of
            Muon.
        groups: for each module of the parameters, the name of its group and the group's share of the learning rate.
            Each group has a state of its own. None or empty for one group of all.
        waiting: modules whose groups rest: their gradients are ignored, and their state does not change. So an
            optimizer in which some modules rest, and one in which all train, can go on from each other's state.

    Example:
        >>> import jax.numpy as jnp
        >>> config = OptimizerConfig(optimizer="sgd", weight_decay=0.0)
        >>> optimizer = make_optimizer(config, lambda step: 0.5, lambda step: 0.0)
        >>> update, _ = optimizer.update(jnp.ones(2), optimizer.init(jnp.zeros(2)), jnp.zeros(2))
        >>> update.tolist()
        [-0.5, -0.5]
    """

    # `inject_hyperparams` puts every number it is given into the optimizer's state. Only these two belong there.
    def scheduled(learning_rate: Any, momentum: Any) -> optax.GradientTransformation:
        if not groups:
            return optimizer_function(str(config.optimizer))(config, learning_rate, momentum)

        def rule(share: float) -> optax.GradientTransformation:
            return optimizer_function(str(config.optimizer))(config, learning_rate * share, momentum)

        resting = {groups[module][0] for module in waiting}
        rules: dict[Hashable, optax.GradientTransformation] = {
            name: _at_rest(rule(share)) if name in resting else rule(share) for name, share in groups.values()
        }
        return optax.partition(rules, partial(_names_of_groups, groups))

    following = optax.inject_hyperparams(scheduled)(learning_rate=learning_rate, momentum=momentum)
    if config.clip_norm is None:
        return following
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), following)


def _at_rest(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.GradientTransformation(optimizer.init, lambda updates, state, params=None: (updates, state))


def _names_of_groups(groups: Mapping[str, tuple[str, float]], params: Any) -> Any:
    return {module: jax.tree.map(lambda _, module=module: groups[module][0], params[module]) for module in params}
