"""Lookahead: every few updates, back part of the way to where the last such step ended."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class LookaheadState(NamedTuple):
    """What Lookahead carries from one update to the next.

    Attributes:
        taken: int32, updates so far.
        slow: the slow weights; shapes and dtypes as the parameters'.
        fast_state: of the optimizer inside.
    """

    taken: jax.Array
    slow: Any
    fast_state: optax.OptState


def lookahead(
    fast: optax.GradientTransformation, steps: int = 6, step_size: float = 0.5
) -> optax.GradientTransformation:
    """Lets an optimizer take so many updates, then moves the parameters part of the way from the slow weights to them.

    Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", arXiv:1907.08610, algorithm 1; the defaults
    are those of fastai's `ranger`. `optax.lookahead` asks for a pair of fast and slow weights where the parameters are;
    here the slow ones are part of the state, so that whatever holds parameters need not know of them.

    Args:
        fast: the optimizer. What it returns must be the whole update, with learning rate and sign.
        steps: updates from one slow step to the next; the paper's k.
        step_size: share of the way; the paper's α.

    Returns:
        A transformation whose update is to be applied as it is, and which needs the parameters.

    Example:
        >>> optimizer = lookahead(optax.sgd(1.0), steps=2, step_size=0.5)
        >>> params = jnp.zeros(())
        >>> state = optimizer.init(params)
        >>> for _ in range(2):
        ...     update, state = optimizer.update(jnp.ones(()), state, params)
        ...     params = optax.apply_updates(params, update)
        >>> float(params)
        -1.0
    """

    def init(params: optax.Params) -> LookaheadState:
        # A copy: a step to which parameters and state are donated may not be given one buffer twice.
        return LookaheadState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), fast.init(params))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, LookaheadState]:
        if params is None:
            raise ValueError("lookahead needs the parameters: update(updates, state, params)")
        assert isinstance(state, LookaheadState)
        updates, fast_state = fast.update(updates, state.fast_state, params)
        taken = state.taken + 1
        # A where, not a cond: it is a few operations for each weight in the same pass over memory as the update itself,
        # while the branches of a cond are programs of their own, with nothing fused across their edge and all the trees
        # passed in and out.
        synchronise = taken % steps == 0

        def towards(update: jax.Array, param: jax.Array, slow: jax.Array) -> jax.Array:
            return jnp.where(synchronise, slow + step_size * (param + update - slow) - param, update)

        updates = jax.tree.map(towards, updates, params, state.slow)
        # What the parameters will be, not what they were meant to be: so the two are equal to the last bit.
        params = optax.apply_updates(params, updates)
        slow = jax.tree.map(lambda new, old: jnp.where(synchronise, new, old), params, state.slow)
        return updates, LookaheadState(taken, slow, fast_state)

    return optax.GradientTransformation(init, update)
