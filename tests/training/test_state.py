"""The state of a run and its digest."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from flax_resnets.training.state import state_digest, tree_digest


def test_the_digest_covers_parameters_statistics_and_optimizer(make_trainer, config):
    state = make_trainer(config).steps.create_state()
    digest = state_digest(state)
    assert len(digest) == 64
    assert digest == state_digest(state.replace(loss_sum=jnp.float32(3)))
    for name in ("params", "batch_stats", "opt_state"):
        leaves, structure = jax.tree.flatten(getattr(state, name))
        leaves[-1] = leaves[-1] + 1
        changed = state.replace(**{name: jax.tree.unflatten(structure, leaves)})
        assert digest != state_digest(changed), name


@pytest.mark.parametrize(
    "other",
    [{"a": jnp.zeros(3)}, {"a": jnp.zeros((2, 1))}, {"a": jnp.zeros(2, jnp.int32)}, {"b": jnp.zeros(2)}, {}],
)
def test_names_shapes_and_dtypes_count(other):
    assert tree_digest({"a": jnp.zeros(2)}) != tree_digest(other)


def test_seeds_differ_and_repeat(make_trainer, config):
    first = state_digest(make_trainer(config).steps.create_state())
    assert first == state_digest(make_trainer(config).steps.create_state())
    assert first != state_digest(make_trainer(dataclasses.replace(config, seed=1)).steps.create_state())
