"""The losses that training can minimise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import optax

from flax_resnets import own
from flax_resnets.fields import Fields, OneOf, Rule

Loss = Callable[[jax.Array, jax.Array], jax.Array]
"""A function of float32 logits and targets, both `(N, classes)`. It returns the loss of each image, float32 `(N,)`."""


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


LOSSES: Mapping[str, Loss] = {
    "cross_entropy": optax.softmax_cross_entropy,
    "bce": binary_cross_entropy,
}
"""The losses by name."""


def loss_function(name: str) -> Loss:
    """The loss that a configuration names: one of `LOSSES`, or a recipe's own.

    A recipe's own loss raises UserError as it is traced, see `own.of_each_image`.
    """
    return own.of_each_image("loss", name, "the loss of each image") if own.is_named(name) else LOSSES[name]


def image_weights(targets: jax.Array, class_weights: Sequence[float]) -> jax.Array:
    """The weight of each image's loss: its class's weight; for a mixed image, the mean by its shares of the classes.

    The loss of a batch is the mean of weight times loss over its images. So it is the same however the batch is divided
    among devices. torch's weighted cross-entropy divides by the sum of the batch's weights, which gives other numbers.

    Args:
        targets: float32 `(N, classes)`, before label smoothing.
        class_weights: a weight for each class.

    Returns:
        float32 `(N,)`.

    Example:
        >>> image_weights(jnp.array([[1.0, 0.0], [0.25, 0.75]]), (1.0, 3.0)).tolist()
        [1.0, 2.5]
    """
    return (targets * jnp.array(class_weights, jnp.float32)).sum(-1)


@dataclass(frozen=True, kw_only=True)
class LossConfig(Fields):
    """The loss that training minimises. To add a loss: a function, and a line in `LOSSES`.

    Attributes:
        loss: `cross_entropy`, or `bce`: a binary cross-entropy for each class, averaged over the classes. Images of any
            number of classes need `bce`. Or a recipe's own function, see `Loss`; docs/functions.md.
        label_smoothing: share of each target that is spread evenly over all classes: of k classes, those of an image
            have the target 1 - label_smoothing + label_smoothing / k, the others label_smoothing / k.
        class_weights: what each class's loss is multiplied by in training; evaluation has no weights. `balanced` for
            n / (k n_c), where n_c of the n training images are of a class and k classes have images: rare classes
            count as much as others, and the weights of all images have mean 1. Or a number for each class, used as it
            is. See `image_weights`. None for no weights; not for images of any number of classes.
    """

    loss: Annotated[str | Loss, OneOf(LOSSES)] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | Literal["balanced"] | None = None

    RULES = (
        Rule("label_smoothing", lambda v: 0 <= v < 1, "at least 0 and below 1"),
        Rule(
            "class_weights",
            lambda v: v == "balanced" or (min(v, default=-1) >= 0 and max(v) > 0),
            "balanced, or a number of at least 0 for each class, not all of them 0",
        ),
    )
