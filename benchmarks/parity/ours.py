"""Our side of the comparison with torchvision and timm: computes the same results as `reference.py`, with jax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import cases as parity_cases
from flax_resnets import create_model
from flax_resnets.weights import export_state_dict, load_weights


def evaluate(case: parity_cases.Case, images: np.ndarray) -> dict[str, Any]:
    """Computes the stages and the logits in evaluation."""
    return _evaluated(*build(case, images), images)


def _evaluated(model: Any, variables: dict[str, Any], images: np.ndarray) -> dict[str, Any]:
    @jax.jit
    def both(variables, x):
        return {
            "logits": {"eval": model.apply(variables, x)},
            "stages": model.apply(variables, x, method="features"),
        }

    return jax.tree.map(np.asarray, both(variables, images))


def forward(case: parity_cases.Case, images: np.ndarray) -> dict[str, Any]:
    """Computes what `evaluate` does, and the logits and running statistics in training."""
    model, variables = build(case, images)
    rngs = {"dropout": jax.random.key(0)}
    trained, updates = jax.jit(lambda v, x: model.apply(v, x, True, mutable=["batch_stats"], rngs=rngs))(
        variables, images
    )
    named = export_state_dict(model, jax.tree.map(np.asarray, {**variables, **updates}))
    evaluated = _evaluated(model, variables, images)
    return {
        "logits": {**evaluated["logits"], "train": np.asarray(trained)},
        "stages": evaluated["stages"],
        "statistics": {name: value for name, value in named.items() if "running" in name},
    }


def compute(case: parity_cases.Case, images: np.ndarray) -> dict[str, Any]:
    """Computes what `evaluate` does, and logits, running statistics and gradients of the cross-entropy in training.

    The tensors have torch's names and shapes. `load_weights` loads the weights and `export_state_dict` exports the
    results, so these two functions are tested as well.
    """
    model, variables = build(case, images)
    labels = parity_cases.labels(len(images))

    @jax.jit
    def step(variables, x):
        def loss(params):
            logits, updates = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
            return -chosen.mean(), (logits, updates.get("batch_stats", {}))

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, (trained, statistics) = jax.tree.map(np.asarray, step(variables, images))
    named = export_state_dict(model, {"params": gradients, "batch_stats": statistics})
    evaluated = _evaluated(model, variables, images)
    return {
        "logits": {**evaluated["logits"], "train": trained},
        "stages": evaluated["stages"],
        "statistics": {name: value for name, value in named.items() if "running" in name},
        "gradients": {name: value for name, value in named.items() if "running" not in name},
    }


def build(case: parity_cases.Case, images: np.ndarray) -> tuple[Any, dict[str, Any]]:
    """The network, and its variables with the weights of the case."""
    model: Any = create_model(case.model, num_classes=parity_cases.CLASSES).clone(**case.options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(images.shape))
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    names = {name: value.shape for name, value in export_state_dict(model, empty).items()}
    return model, load_weights(model, parity_cases.weights(names), images.shape[1:])
