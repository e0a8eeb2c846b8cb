"""Muon's direction for the kernels of convolutions: optax's, and on processors the same with a third of the work."""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

# Jordan et al.'s quintic step, optax's default.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5


def scale_by_muon(momentum: Any) -> optax.GradientTransformation:
    """Nesterov's momentum, with its singular values brought near 1.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon;
    its five Newton-Schulz steps bring what is above 0.003 of the Frobenius norm to between 0.68 and 1.21. A kernel
    `(H, W, I, O)` is taken as a matrix `(H*W*I, O)`, a grouped convolution's as well. The direction is then scaled to a
    root mean square near 0.2, which is about that of Adam's, so that one learning rate and one decay serve both: Liu et
    al. 2025, arXiv:2502.16982, section 2.2.

    An m×n kernel, m the smaller, costs 20 m²n + 10 m³ floating-point operations an update, nothing to an accelerator;
    on processors 4 m²n + 34 m³, see `by_gram`: 5e10 for a `resnet18d`.

    Args:
        momentum: a number, or what `optax.inject_hyperparams` made of a schedule.

    Example:
        >>> kernel = jnp.arange(8.0).reshape(1, 1, 4, 2)
        >>> muon = scale_by_muon(0.9)
        >>> direction, _ = muon.update(kernel, muon.init(kernel))
        >>> sorted(round(float(value), 1) for value in jnp.linalg.svdvals(direction.reshape(4, 2) / (0.2 * 4**0.5)))
        [0.7, 1.1]
    """

    def dimensions(kernels: Any) -> Any:
        flat = contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
        return jax.tree.map(lambda _: flat, kernels)

    of_optax = partial(contrib.scale_by_muon, beta=momentum, weight_dimension_numbers=dimensions)
    # Without a step optax leaves the momentum, divided by its Frobenius norm.
    whole, normalised = of_optax(ns_steps=_STEPS), of_optax(ns_steps=0)

    def on_processors(updates: Any, state: Any) -> tuple[Any, Any]:
        updates, state = normalised.update(updates, state)
        return jax.tree.map(
            lambda kernel: by_gram(kernel.reshape(-1, kernel.shape[-1])).reshape(kernel.shape), updates
        ), state

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        updates, state = jax.lax.platform_dependent(updates, state, cpu=on_processors, default=whole.update)
        return jax.tree.map(as_large_as_adams, updates), state

    return optax.GradientTransformation(whole.init, update)


def by_gram(matrix: jax.Array) -> jax.Array:
    """Five Newton-Schulz steps on the Gram matrix.

    A step multiplies X by a polynomial P in its Gram matrix G = XXᵀ, which becomes P G P. So X is needed twice, for the
    first G and to be multiplied by the product of all P, and all between is square, of X's smaller side. Rounding in G
    is rounding in the squares of the singular values, which the steps enlarge: float32's costs less than a hundredth
    of a direction, half precision's, which accelerators multiply with, would make numbers without bound.

    Args:
        matrix: float32, of Frobenius norm 1 at most.

    Returns:
        What optax's steps give, of its shape, to within a hundredth of the root mean square.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return by_gram(matrix.T).T
    identity = jnp.eye(len(matrix), dtype=matrix.dtype)
    gram, product = matrix @ matrix.T, identity
    for step in range(_STEPS):
        polynomial = _A * identity + _B * gram + _C * (gram @ gram)
        product = polynomial if step == 0 else polynomial @ product
        if step < _STEPS - 1:
            gram = polynomial @ gram @ polynomial
    return product @ matrix


def as_large_as_adams(update: jax.Array) -> jax.Array:
    """A kernel's orthogonal direction `(..., O)`, scaled to a root mean square near 0.2."""
    outputs = update.shape[-1]
    return update * 0.2 * math.sqrt(max(update.size // outputs, outputs))
