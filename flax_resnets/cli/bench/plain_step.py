"""What a program without a trainer runs on any linen network: a step of optax's SGD, or logits, by `jax.jit` alone."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

CLASSES = 1000


def prepare(
    model: nn.Module, work: Literal["train", "inference"], batch: int, size: int
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Prepares a contender with this network; see `child.py`, and for the other arguments `ours.prepare`.

    Its images are normalised floats.
    """
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 3))
    labels = jax.random.randint(jax.random.key(1), (batch,), 0, CLASSES)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(2), images[:1])
    repeat = {"train": _train, "inference": _inference}[work](model, variables, images, labels)
    versions = {library: version(library) for library in ("jax", "flax", "optax")}
    return repeat, {"versions": versions, "device": jax.devices()[0].device_kind}


def _train(model: nn.Module, variables: Any, images: jax.Array, labels: jax.Array) -> Callable[[int], None]:
    optimizer = optax.sgd(1e-3, momentum=0.9, nesterov=True)

    @partial(jax.jit, donate_argnums=0)
    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        params, batch_stats, opt_state = state

        def loss(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), updates["batch_stats"]

        (_, new_stats), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new_stats, opt_state

    state = variables["params"], variables["batch_stats"], optimizer.init(variables["params"])

    def repeat(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state = step(state, images, labels)
        jax.block_until_ready(state)

    return repeat


def _inference(model: nn.Module, variables: Any, images: jax.Array, labels: jax.Array) -> Callable[[int], None]:
    del labels
    forward = jax.jit(lambda variables, images: model.apply(variables, images, train=False))

    def repeat(steps: int) -> None:
        logits = jnp.zeros(())
        for _ in range(steps):
            logits = forward(variables, images)
        jax.block_until_ready(logits)

    return repeat
