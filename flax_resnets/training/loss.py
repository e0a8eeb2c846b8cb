"""The losses that training can minimise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import jax
import optax

from flax_resnets.fields import Fields, OneOf, Rule


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Binary cross-entropy for each class, averaged over the classes.

    Wightman et al. 2021, arXiv:2110.00476, section 2.2.

    Args:
        logits: float32 `(N, classes)`.
        targets: float32 `(N, classes)`, 0 to 1.

    Returns:
        float32 `(N,)`, in nats.

    Example:
        >>> import jax.numpy as jnp
        >>> round(float(binary_cross_entropy(jnp.zeros((1, 2)), jnp.eye(1, 2))[0]), 3)
        0.693
    """
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)


LOSSES: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cross_entropy": optax.softmax_cross_entropy,
    "bce": binary_cross_entropy,
}
"""The losses by name: functions of logits and targets, both `(N, classes)`, that return the loss of each image
`(N,)`."""


@dataclass(frozen=True, kw_only=True)
class LossConfig(Fields):
    """The loss that training minimises. To add a loss: a function, and a line in `LOSSES`.

    Attributes:
        loss: `cross_entropy`, or `bce`: a binary cross-entropy for each class, averaged over the classes.
        label_smoothing: share of each target that is spread evenly over all classes.
    """

    loss: Annotated[str, OneOf(LOSSES)] = "cross_entropy"
    label_smoothing: float = 0.0

    RULES = (Rule("label_smoothing", lambda v: 0 <= v < 1, "at least 0 and below 1"),)
