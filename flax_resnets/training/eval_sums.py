"""Sums over the images of one evaluation batch: the training's evaluation and a classifier's own compute the same."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from flax_resnets.confusion_matrix import NAMED
from flax_resnets.data.labels import is_multilabel, is_real, targets
from flax_resnets.training.loss import binary_cross_entropy


class EvalSums(NamedTuple):
    """Sums over one evaluation batch. Padding images are not counted.

    Attributes:
        loss: float32, cross-entropy summed over the images.
        top1: int32, images whose class had the highest logit.
        top5: int32, images whose class was among the five highest logits.
        images: int32, number of images.
        metric: float32, a recipe's own metric summed over the images; None if it has none.
        confusion: int32 `(classes, classes)`, images by class and by the class of the highest logit; None if there are
            more than 60 classes.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    images: jax.Array
    metric: jax.Array | None = None
    confusion: jax.Array | None = None


class EvalScores(NamedTuple):
    """One evaluation batch of images of any number of classes, whose figures need all logits of the split.

    Attributes:
        loss: float32, binary cross-entropy, averaged over the classes and summed over the images, without padding.
        logits: float32 `(N, classes)`, of padding too.
        labels: int8 `(N, classes)`; −1 for padding.
        metric: see `EvalSums`.
    """

    loss: jax.Array
    logits: jax.Array
    labels: jax.Array
    metric: jax.Array | None = None


def eval_sums(
    logits: jax.Array, labels: jax.Array, metric: Callable[[jax.Array, jax.Array], jax.Array] | None = None
) -> EvalSums | EvalScores:
    """The sums over a batch; of images of any number of classes, the loss and what the figures are computed from.

    Args:
        logits: float32 `(N, classes)`.
        labels: int32 `(N,)`, or int8 `(N, classes)` for any number of classes; −1 for an image that only pads the
            batch.
        metric: see `flax_resnets.training.own_metric.metric_function`.

    Example:
        >>> sums = eval_sums(jnp.array([[0.0, 1.0], [0.0, 1.0], [9.0, 0.0]]), jnp.array([1, 0, -1]))
        >>> int(sums.top1), int(sums.top5), int(sums.images)
        (1, 2, 2)
    """
    real = is_real(labels)
    known = jnp.maximum(labels, 0)
    figure = None if metric is None else jnp.where(real, metric(logits, known), 0.0).sum()
    if is_multilabel(labels):
        losses = binary_cross_entropy(logits, targets(known, logits.shape[-1]))
        return EvalScores(jnp.where(real, losses, 0.0).sum(), logits, labels, figure)
    labels = known
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    _, first_five = jax.lax.top_k(logits, min(5, logits.shape[-1]))
    hits = (first_five == labels[:, None]) & real[:, None]
    return EvalSums(
        loss=jnp.where(real, losses, 0.0).sum(),
        top1=hits[:, 0].sum(),
        top5=hits.any(1).sum(),
        images=real.sum(),
        metric=figure,
        confusion=_confusion(labels, first_five[:, 0], real, logits.shape[-1]),
    )


def _confusion(labels: jax.Array, predicted: jax.Array, real: jax.Array, classes: int) -> jax.Array | None:
    if classes > NAMED:
        return None
    # As a product, which is summed over devices like the other sums; counts below 2**24 are exact in float32.
    rows = jax.nn.one_hot(labels, classes) * real[:, None]
    return jnp.round(rows.T @ jax.nn.one_hot(predicted, classes)).astype(jnp.int32)
