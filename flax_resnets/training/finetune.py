"""Which parts of a network train, from which epoch on, and at which share of the learning rate."""

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from flax import linen as nn

from flax_resnets.errors import UserError
from flax_resnets.fields import LONGEST_NAME, Fields, Rule, shown
from flax_resnets.models.normalization import BatchNorm
from flax_resnets.models.parts import HEAD, layers_of, parts_of
from flax_resnets.training.network import taking
from flax_resnets.training.schedule import make_schedules, one_cycle, one_cycle_momentum

if TYPE_CHECKING:
    from flax_resnets.training.config import Config

BACKBONE = "backbone"


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(Fields):
    """Which parts of the network train, when, and how fast. docs/finetune.md shows how to choose.

    Attributes:
        freeze: parts of the network that do not change at all, such as `("stem", "stage1")`; `backbone` for all but the
            head. See `flax_resnets.models.parts.parts_of` for their names. They have no gradient, no optimizer state
            and no weight decay. Their norms normalise by the running statistics, which do not change either; with
            `model_options.frozen`, that option alone says whose norms do.
        freeze_epochs: number of epochs, of `epochs`, in which only the head trains, as if the other parts were in
            `freeze`. These epochs follow a one-cycle schedule of their own, up to `learning_rate`; the other epochs
            follow `schedule`, with half of `learning_rate` as its peak. See `phase_schedules`.
        layer_decay: the learning rate of each layer is that of the layer above times this number; the head's is
            `learning_rate`. A layer is the stem, a residual block, or the head; see
            `flax_resnets.models.parts.layers_of`. 1 for the same rate everywhere.
    """

    freeze: tuple[str, ...] | Literal["backbone"] = ()
    freeze_epochs: int = 0
    layer_decay: float = 1.0

    RULES = (
        Rule("freeze_epochs", lambda v: v >= 0, "at least 0"),
        Rule("layer_decay", lambda v: 0 < v <= 1, "above 0 and up to 1"),
    )


class Group(NamedTuple):
    """Modules that share an optimizer.

    Attributes:
        name: of the group.
        rate: its share of the learning rate.
    """

    name: str
    rate: float


class Plan(NamedTuple):
    """What trains when, in names of the network's modules.

    Attributes:
        frozen: modules that never change.
        waiting: modules that do not change in the first `freeze_epochs` epochs, and train after that.
        groups: the group of each module that trains at some time; empty if all modules train alike at all times.
        norms_rest: whether norms of modules that do not change use their running statistics.
    """

    frozen: frozenset[str] = frozenset()
    waiting: frozenset[str] = frozenset()
    groups: Mapping[str, Group] = {}
    norms_rest: bool = True


def plan_of(config: "Config", model: nn.Module, image_shape: tuple[int, int, int]) -> Plan:
    """What `freeze`, `freeze_epochs` and `layer_decay` mean for a network.

    Args:
        config: the run.
        model: its network.
        image_shape: `(H, W, C)` of the images.

    Raises:
        UserError: the network has no such part; nothing would train; or it does not take images of this shape.
    """
    if not config.freeze and not config.freeze_epochs and config.layer_decay == 1:
        return Plan()
    with taking(config, image_shape):
        parts = parts_of(model, image_shape)
    still = _frozen_parts(config, parts)
    backbone = [part for part in parts if part != HEAD]
    waiting = [part for part in backbone if part not in still] if config.freeze_epochs else []
    if config.freeze_epochs and HEAD in still:
        raise UserError(f"freeze_epochs={config.freeze_epochs}: the head trains alone in them, but is in freeze")
    if config.freeze_epochs and not waiting:
        raise UserError(
            f"freeze_epochs={config.freeze_epochs}: with freeze={shown(config.freeze)} the head trains alone in all "
            "epochs; leave out one of the two"
        )
    frozen, waits = (frozenset(module for part in each for module in parts[part]) for each in (still, waiting))
    norms_rest = "frozen" not in config.model_options
    groups = _groups(layers_of(parts), frozen, waits, config.layer_decay) if waits or config.layer_decay != 1 else {}
    return Plan(frozen, waits, groups, norms_rest)


def _frozen_parts(config: "Config", parts: Collection[str]) -> set[str]:
    named = [config.freeze] if isinstance(config.freeze, str) else config.freeze
    still: set[str] = set()
    for name in named:
        if name not in (*parts, BACKBONE):
            of_torch = name.replace("layer", "stage")  # whose stages have this name
            close = difflib.get_close_matches(of_torch[:LONGEST_NAME], [*parts, BACKBONE], n=1)
            meant = f"did you mean {close[0]}? Its" if close else "its"
            raise UserError(
                f"freeze={shown(config.freeze)[:100]}: {config.model} has no part {name[:50]!r}; {meant} parts are "
                f"{', '.join(parts)}; {BACKBONE} is all but the head"
            )
        still |= set(parts) - {HEAD} if name == BACKBONE else {name}
    if still == set(parts):
        raise UserError(f"freeze={shown(config.freeze)}: nothing is left to train; leave out a part, such as {HEAD}")
    return still


def _groups(
    layers: Sequence[Sequence[str]], frozen: Collection[str], waiting: Collection[str], decay: float
) -> dict[str, Group]:
    """The group of each module. The rates are those of timm's `param_groups_layer_decay` (timm/optim)."""
    groups: dict[str, Group] = {}
    for above, layer in enumerate(reversed(layers)):
        modules = [module for module in layer if module not in frozen]
        for kind in ([m for m in modules if m in waiting], [m for m in modules if m not in waiting]):
            name = kind[0] if decay != 1 and kind else "waiting" if kind and kind[0] in waiting else "trained"
            groups.update(dict.fromkeys(kind, Group(name, decay**above)))
    return groups


def divided(params: Mapping[str, Any], still: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The modules of a network that train, and those that are `still`.

    Example:
        >>> divided({"stem_conv": 1, "head": 2}, {"stem_conv"})
        ({'head': 2}, {'stem_conv': 1})
    """
    return (
        {name: module for name, module in params.items() if name not in still},
        {name: module for name, module in params.items() if name in still},
    )


def with_norms_at_rest(model: nn.Module, modules: Collection[str]) -> Callable[..., Any]:
    """`model.apply`, but the norms in these modules normalise by their running statistics, in training too.

    This is `BatchNorm.frozen` for networks that are already made, and also for those without an attribute for it.
    """
    if not modules:
        return model.apply

    def interceptor(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        norm = context.module
        if isinstance(norm, BatchNorm) and context.method_name == "__call__" and norm.path[0] in modules:
            return call(args[0])
        return call(*args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(interceptor):
            return model.apply(*args, **kwargs)

    return apply


Schedules = tuple[optax.Schedule, optax.Schedule]


def phase_schedules(
    config: "Config", steps: int, steps_per_epoch: int, past: float = 0.0
) -> tuple[Schedules, Schedules]:
    """Learning rate and momentum in the epochs in which the head trains alone, and in those after them.

    This is fastai's `fine_tune` (docs.fast.ai/callback.schedule.html, `Learner.fine_tune`): first one cycle that rises
    for 99 % of its steps, up to the base rate, then another one at half the base rate. There the second cycle begins
    at a fifth of its peak and rises for 30 % of its steps; here `div_factor` and `pct_start` say this. There the rates
    of layers fall from the head to a hundredth at the stem; here `layer_decay` says this.

    Args:
        config: the run.
        steps: of the whole run; of what is left of it, if it is amended.
        steps_per_epoch: steps of an epoch.
        past: number of epochs before it was amended, at least `freeze_epochs`; 0 for a run from its beginning.

    Returns:
        Two pairs of schedules, which count steps from the beginning of the run, or of what is left.
    """
    if past:
        rest = config.after(past, config.freeze_epochs)
        if config.freeze_epochs:
            rest = dataclasses.replace(rest, learning_rate=rest.learning_rate / 2)
        both = make_schedules(rest, steps, steps_per_epoch)
        return both, both
    alone = config.freeze_epochs * steps_per_epoch
    if not alone:
        both = make_schedules(config, steps, steps_per_epoch)
        return both, both
    momentum = optax.constant_schedule(config.momentum[0])
    if config.schedule == "one_cycle":
        momentum = one_cycle_momentum(alone, *config.momentum, pct_start=_RISES)
    first = one_cycle(alone, config.learning_rate, pct_start=_RISES), momentum
    rest = config.after(config.freeze_epochs, config.freeze_epochs)
    rest = dataclasses.replace(rest, learning_rate=rest.learning_rate / 2)
    rate, momentum = make_schedules(rest, steps - alone, steps_per_epoch)
    return first, (_later(rate, alone), _later(momentum, alone))


_RISES = 0.99


def _later(schedule: optax.Schedule, steps: int) -> optax.Schedule:
    # Skipped steps are not counted, so that the count may still be below `steps` here.
    return lambda count: schedule(jnp.maximum(count - steps, 0))
