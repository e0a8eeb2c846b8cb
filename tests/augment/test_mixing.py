"""Mixing: targets agree with images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_resnets.augment import MixConfig, cutmix, mix, mixup

SEEDS = st.integers(0, 2**31 - 1)
# Compiled once for each α and shared by all tests, because compilation takes most of the time.
MIXUP = {alpha: jax.jit(partial(mixup, alpha=alpha)) for alpha in (0.2, 1.0)}
CUTMIX = {alpha: jax.jit(partial(cutmix, alpha=alpha)) for alpha in (0.2, 1.0)}
MIX = jax.jit(partial(mix, config=MixConfig(mixup=0.2, cutmix=1.0)))


def batch(n: int = 6, dtype=jnp.float32) -> tuple[jax.Array, jax.Array]:
    """Image i has the value i everywhere, and class i."""
    return jnp.broadcast_to(jnp.arange(n)[:, None, None, None], (n, 10, 12, 3)).astype(dtype), jnp.eye(n)


@settings(max_examples=15)
@given(seed=SEEDS, alpha=st.sampled_from([0.2, 1.0]), way=st.sampled_from([MIXUP, CUTMIX]))
def test_targets_sum_to_one_and_weigh_each_image_and_its_partner(seed: int, alpha: float, way):
    images, targets = batch()
    mixed, weights = way[alpha](jax.random.key(seed), images, targets)
    assert mixed.shape == images.shape
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    # The mean of an image is the mean of the numbers of two classes, weighted by their shares.
    np.testing.assert_allclose(mixed.mean((1, 2, 3)), weights @ jnp.arange(6.0), atol=1e-4)
    own = np.asarray(weights)[np.arange(6), np.arange(6)]
    np.testing.assert_allclose(own, own[0], atol=1e-6)  # one share for the batch
    np.testing.assert_allclose(np.asarray(weights)[np.arange(6), 5 - np.arange(6)], 1 - own, atol=1e-6)


@settings(max_examples=15)
@given(seed=SEEDS, alpha=st.sampled_from([0.2, 1.0]))
def test_cutmix_pastes_one_rectangle_and_counts_its_pixels(seed: int, alpha: float):
    images, targets = batch()
    mixed, weights = map(np.asarray, CUTMIX[alpha](jax.random.key(seed), images, targets))
    pasted = (mixed == 5)[0, :, :, 0]
    assert (pasted | (mixed[0, :, :, 0] == 0)).all()
    assert pasted.sum() == pasted.any(1).sum() * pasted.any(0).sum()
    assert weights[0, 5] == pytest.approx(pasted.mean(), abs=1e-6)
    np.testing.assert_array_equal((mixed[1] == 4)[:, :, 0], pasted)  # the same place in each image


def test_shares_are_from_the_beta_distribution():
    images, targets = batch(2)
    keys = jax.random.split(jax.random.key(0), 1000)
    for alpha in (0.2, 1.0):
        shares = jax.vmap(lambda key, alpha=alpha: mixup(key, images, targets, alpha)[1][0, 0])(keys)
        assert float(shares.mean()) == pytest.approx(0.5, abs=0.04)
        assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_mix_throws_a_fair_coin_for_each_batch():
    images, targets = batch()
    pasted = 0
    for seed in range(300):
        mixed, weights = map(np.asarray, MIX(jax.random.key(seed), images, targets))
        assert mixed[0].mean() == pytest.approx(5 * weights[0, 5], abs=1e-4)
        pasted += bool(np.isin(mixed[0], (0, 5)).all())  # only mixup gives values between
    assert 0.42 < pasted / 300 < 0.65  # with α = 0.2, mixup's share is sometimes 0 or 1


@pytest.mark.parametrize(
    ("mixup_alpha", "cutmix_alpha", "dtype"),
    [(0.2, 1.0, jnp.bfloat16), (0.2, 0.0, jnp.bfloat16), (0.0, 1.0, jnp.float32), (0.0, 0.0, jnp.float32)],
)
def test_mix_when_not_enabled_leaves_everything_untouched(mixup_alpha: float, cutmix_alpha: float, dtype):
    images = jax.random.normal(jax.random.key(0), (4, 6, 6, 3), dtype).at[0, 0, 0, 0].set(jnp.inf)
    targets = jax.nn.softmax(jax.random.normal(jax.random.key(1), (4, 5)))
    mixing = jax.jit(
        lambda key, enabled: mix(key, images, targets, MixConfig(mixup=mixup_alpha, cutmix=cutmix_alpha), enabled)
    )
    same, same_targets = mixing(jax.random.key(0), jnp.array(False))
    np.testing.assert_array_equal(same, images)
    np.testing.assert_array_equal(same_targets, targets)
    mixed, weights = mixing(jax.random.key(0), jnp.array(True))
    assert (mixed.dtype, weights.dtype) == (dtype, jnp.float32)
    assert bool((weights != targets).any()) == (mixup_alpha + cutmix_alpha > 0)


@pytest.mark.parametrize(("alphas", "between"), [((0.2, 0.0), True), ((0.0, 1.0), False)])
def test_with_one_of_them_alone_mix_is_that_one(alphas: tuple[float, float], between: bool):
    images, targets = batch()
    mixing = jax.jit(lambda key: mix(key, images, targets, MixConfig(mixup=alphas[0], cutmix=alphas[1]))[0])
    found = [bool((~np.isin(np.asarray(mixing(jax.random.key(seed))), np.arange(6))).any()) for seed in range(20)]
    assert any(found) == between


def test_the_same_key_mixes_the_same():
    images, targets = batch()
    for a, b in zip(MIX(jax.random.key(3), images, targets), MIX(jax.random.key(3), images, targets), strict=True):
        np.testing.assert_array_equal(a, b)
