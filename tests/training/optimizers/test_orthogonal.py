"""Muon's direction, compared with numpy's singular value decomposition and with optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optax import contrib

from flax_resnets.training.optimizers.orthogonal import by_gram, scale_by_muon


def newton_schulz(matrix):
    """The five quintic steps of Jordan et al. 2024 on the singular values of numpy's decomposition."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.sqrt((values**2).sum())
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(3, 3, 8, 6), (1, 1, 8, 32)])  # tall and wide
def test_an_update_is_orthogonal_and_as_large_as_adams(shape):
    gradient = jax.random.normal(jax.random.key(0), shape)
    muon = scale_by_muon(0.9)
    update, _ = jax.jit(muon.update)(gradient, muon.init(gradient))
    matrix = np.asarray(update).reshape(-1, shape[-1])
    values = np.linalg.svd(matrix, compute_uv=False) / (0.2 * np.sqrt(max(matrix.shape)))
    assert values.min() > 0.68
    assert values.max() < 1.21
    assert matrix.std() == pytest.approx(0.2, rel=0.2)


def test_a_direction_is_of_nesterovs_momentum():
    """The momentum of the next step, as optax and its Adam have it: both moments are corrected for their start at 0."""
    muon, momentum, beta = scale_by_muon(0.8), 0, 0.8
    state = muon.init(jnp.zeros((3, 3, 8, 6)))
    for step, key in enumerate(jax.random.split(jax.random.key(0), 4), start=1):
        gradient = jax.random.normal(key, (3, 3, 8, 6))
        momentum = beta * momentum + (1 - beta) * np.asarray(gradient, np.float64)
        ahead = beta * momentum / (1 - beta ** (step + 1)) + (1 - beta) * gradient / (1 - beta**step)
        direction, state = muon.update(gradient, state)
        expected = 0.2 * 72**0.5 * newton_schulz(ahead.reshape(72, 6)).reshape(gradient.shape)
        np.testing.assert_allclose(direction, expected, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([1, 7, 32, 96]),
    columns=st.sampled_from([1, 7, 32, 96]),
    range_=st.floats(0, 6),
    seed=st.integers(0, 2**31 - 1),
)
def test_the_gram_form_is_newton_and_schulzs_however_small_the_singular_values(rows, columns, range_, seed):
    """Singular values from the largest down to `10**-range_` of it: float32 changes less than a hundredth."""
    noise = np.random.default_rng(seed).normal(size=(rows, columns))
    left, values, right = np.linalg.svd(noise, full_matrices=False)
    matrix = left * np.logspace(0, -range_, len(values)) @ right
    matrix /= np.linalg.norm(matrix)
    expected = newton_schulz(matrix)
    assert np.abs(by_gram(jnp.asarray(matrix, jnp.float32)) - expected).max() < 1e-2 * np.sqrt((expected**2).mean())


def test_no_gradient_gives_no_direction():
    kernel = jnp.zeros((3, 3, 8, 4))
    muon = scale_by_muon(0.9)
    assert not jax.jit(muon.update)(kernel, muon.init(kernel))[0].any()


def test_directions_are_those_of_optax_step_by_step():
    """On this machine's devices. The state equals optax's, so checkpoints of both can be exchanged."""
    kernels = {"a": jnp.zeros((3, 3, 16, 8)), "b": jnp.zeros((1, 1, 8, 32))}
    flat = {name: contrib.MuonDimensionNumbers((0, 1, 2), 3) for name in kernels}
    ours, theirs = scale_by_muon(0.9), contrib.scale_by_muon(beta=0.9, weight_dimension_numbers=flat)
    state, their_state = ours.init(kernels), theirs.init(kernels)
    for key in jax.random.split(jax.random.key(0), 3):
        gradients = {name: jax.random.normal(key, kernel.shape) for name, kernel in kernels.items()}
        direction, state = jax.jit(ours.update)(gradients, state)
        their_direction, their_state = jax.jit(theirs.update)(gradients, their_state)
        for name, kernel in their_direction.items():
            longer = max(kernel.size // kernel.shape[-1], kernel.shape[-1])
            np.testing.assert_allclose(direction[name], 0.2 * longer**0.5 * kernel, atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, state, their_state)
