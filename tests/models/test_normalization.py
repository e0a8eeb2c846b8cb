"""Batch normalisation compared with flax.linen's, and with numpy by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from rounding import images

from flax_resnets.models.normalization import BatchNorm, GroupNorm, ghost_size


@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_equals_linens(unbiased: bool):
    x = images(6, 5, 4, 3)
    ours, linens = BatchNorm(unbiased=unbiased), nn.BatchNorm(momentum=0.9, epsilon=1e-5)
    variables = ours.init(jax.random.key(0), x)
    params = {"scale": jnp.array([0.5, 1.0, 2.0]), "bias": jnp.array([1.0, 0.0, -1.0])}
    variables = {"params": params, "batch_stats": variables["batch_stats"]}

    def train(module, params, **kwargs):
        stats = {"batch_stats": variables["batch_stats"]}
        y, updates = module.apply({"params": params, **stats}, x, mutable=["batch_stats"], **kwargs)
        return (y**3).sum(), (y, updates["batch_stats"])

    (_, (y, stats)), grads = jax.value_and_grad(lambda p: train(ours, p, train=True), has_aux=True)(params)
    expected = jax.value_and_grad(lambda p: train(linens, p, use_running_average=False), has_aux=True)(params)
    (_, (expected_y, expected_stats)), expected_grads = expected
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), grads, expected_grads)
    np.testing.assert_allclose(stats["mean"], expected_stats["mean"], rtol=1e-5)
    count = 6 * 5 * 4
    batch_var = (expected_stats["var"] - 0.9) / 0.1 * (count / (count - 1) if unbiased else 1)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * batch_var, rtol=1e-5)


def test_batch_norm_in_evaluation_uses_and_keeps_its_running_statistics():
    x = images(4, 2, 2, 3)
    variables = BatchNorm().init(jax.random.key(0), x)
    stats = {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 0.25])}
    y, updates = BatchNorm().apply({**variables, "batch_stats": stats}, x, mutable=["batch_stats"])
    np.testing.assert_allclose(y, (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5), rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], stats)


@pytest.mark.parametrize(("ghosts", "size", "side"), [(1, 2, 1), (1, 5, 4), (2, 3, 3), (4, 2, 2), (4, 5, 1)])
def test_each_ghost_is_normalised_by_itself(ghosts: int, size: int, side: int):
    x = images(ghosts * size, side, side, 2)
    norm = BatchNorm(batch_norm=f"ghost:{size}")
    variables = jax.jit(norm.init)(jax.random.key(0), x)
    y, updates = jax.jit(partial(norm.apply, train=True, mutable=["batch_stats"]))(variables, x)
    by_hand = [np.asarray(x[i : i + size], np.float64) for i in range(0, len(x), size)]
    means = np.stack([ghost.mean((0, 1, 2)) for ghost in by_hand])
    variances = np.stack([ghost.var((0, 1, 2)) for ghost in by_hand])
    expected = [(g - m) / np.sqrt(v + 1e-5) for g, m, v in zip(by_hand, means, variances, strict=True)]
    np.testing.assert_allclose(y, np.concatenate(expected), rtol=2e-3, atol=2e-3)
    count = size * side * side
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * means.mean(0), rtol=1e-3, atol=1e-4)
    unbiased = variances.mean(0) * count / (count - 1)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * unbiased, rtol=1e-3)


def test_batch_norm_keeps_float32_statistics_of_half_precision_images():
    x = images(64, 8, 8, 3).astype(jnp.bfloat16)
    norm = BatchNorm(dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)
    y, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    assert updates["batch_stats"]["var"].dtype == jnp.float32
    expected = 0.1 * np.asarray(x, np.float64).mean((0, 1, 2))
    np.testing.assert_allclose(updates["batch_stats"]["mean"], expected, rtol=1e-5)


def test_a_frozen_norm_keeps_its_statistics_in_training():
    x = images(4, 2, 2, 3)
    norm = BatchNorm(frozen=True)
    variables = norm.init(jax.random.key(0), x)
    y, updates = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_array_equal(y, norm.apply(variables, x, train=False))
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])


def test_a_batch_that_ghosts_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="a batch of 5 is not a multiple of 2"):
        BatchNorm(batch_norm="ghost:2").init(jax.random.key(0), images(5, 2, 2, 1), train=True)


@pytest.mark.parametrize("word", ["", "ghost", "ghost:", "ghost:0", "ghost:-1", "ghost:1.5", "local"])
def test_batch_norm_words_that_mean_nothing_are_refused(word: str):
    with pytest.raises(ValueError, match="must be 'global', 'device' or 'ghost:K'"):
        ghost_size(word)


def test_group_norm_equals_linens_in_training_and_evaluation():
    x = images(3, 5, 4, 64)
    variables = {"params": {"scale": jnp.linspace(0.5, 2, 64), "bias": jnp.linspace(-1, 1, 64)}}
    expected = nn.GroupNorm(32, epsilon=1e-3).apply(variables, x)
    for train in (False, True):
        np.testing.assert_allclose(GroupNorm(1e-3).apply(variables, x, train), expected, rtol=1e-4, atol=1e-4)
    assert GroupNorm(dtype=jnp.bfloat16).apply(variables, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_group_norm_refuses_channels_that_its_groups_do_not_divide():
    with pytest.raises(ValueError, match="48 channels are not a multiple of 32 groups"):
        GroupNorm().init(jax.random.key(0), images(1, 2, 2, 48))
