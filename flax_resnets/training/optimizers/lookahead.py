"""Lookahead: every few updates, the weights move back part of the way to the slow weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class LookaheadState(NamedTuple):
    """What Lookahead carries from one update to the next.

    Attributes:
        taken: int32, updates so far.
        slow: the slow weights; shapes and dtypes of the parameters.
        fast_state: state of the inner optimizer.
    """

    taken: jax.Array
    slow: Any
    fast_state: optax.OptState


def lookahead(
    fast: optax.GradientTransformation, steps: int = 6, step_size: float = 0.5
) -> optax.GradientTransformation:
    """Every `steps` updates, moves the slow weights part of the way to the parameters and sets the parameters to them.

    Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", arXiv:1907.08610, algorithm 1. The defaults
    are those of fastai's `ranger`. `optax.lookahead` wants a pair of fast and slow weights in place of the parameters.
    Here the slow weights are part of the state, so that other code can handle parameters as usual.

    Args:
        fast: the inner optimizer. It must return the whole update, learning rate and sign included.
        steps: updates between two changes of the slow weights; k in the paper.
        step_size: share of the way; α in the paper.

    Returns:
        A transformation whose update is applied as it is. Its `update` needs the parameters.

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
        # A copy: where parameters and state are both donated, no buffer may be passed twice.
        return LookaheadState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), fast.init(params))

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, LookaheadState]:
        if params is None:
            raise ValueError("lookahead needs the parameters: update(updates, state, params)")
        assert isinstance(state, LookaheadState)
        updates, fast_state = fast.update(updates, state.fast_state, params)
        taken = state.taken + 1
        # `where` instead of `cond`: it adds a few operations a weight to the pass over memory that the update makes
        # anyway. The branches of a `cond` are separate programs: nothing fuses across their edges, and all trees go in
        # and out.
        synchronise = taken % steps == 0

        def towards(update: jax.Array, param: jax.Array, slow: jax.Array) -> jax.Array:
            return jnp.where(synchronise, slow + step_size * (param + update - slow) - param, update)

        updates = jax.tree.map(towards, updates, params, state.slow)
        # The parameters as they are after rounding: so that they and the slow weights are equal to the last bit.
        params = optax.apply_updates(params, updates)
        slow = jax.tree.map(lambda new, old: jnp.where(synchronise, new, old), params, state.slow)
        return updates, LookaheadState(taken, slow, fast_state)

    return optax.GradientTransformation(init, update)
