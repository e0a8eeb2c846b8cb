"""A metric that a recipe gives itself, as a function: a figure for each validation image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import jax
import numpy as np

from flax_resnets import own
from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, OneOf

Metric = Callable[[jax.Array, jax.Array], jax.Array]
"""A function of logits, float32 `(N, classes)`, and labels: int32 `(N,)`, or if an image may have any number of
classes, int8 `(N, classes)` of 0 and 1. It returns a figure for each image, float32 `(N,)`."""


@dataclass(frozen=True, kw_only=True)
class MetricConfig(Fields):
    """A figure of the validation images besides loss and accuracy.

    Attributes:
        metric: a recipe's function, see `Metric`; docs/functions.md. Its mean over all validation images is `metric` in
            each row of `metrics.jsonl`. None for none.
    """

    metric: Annotated[str | Metric, OneOf(())] | None = None


def metric_function(config: MetricConfig) -> Metric | None:
    """The metric that a configuration names; None if it names none. It is checked, see `own.of_each_image`."""
    if config.metric is None:
        return None
    return own.of_each_image("metric", str(config.metric), "the figure of each image")


def check_metric(config: MetricConfig, num_classes: int, multilabel: bool) -> None:
    """Raises UserError if a recipe's own metric fails, or returns for any logits what it must not.

    Args:
        config: names the metric.
        num_classes: number of the network's outputs.
        multilabel: whether an image may have any number of classes.
    """
    metric = metric_function(config)
    if metric is None:
        return
    images = max(64, num_classes)
    labels = np.arange(images, dtype=np.int32) % num_classes
    if multilabel:  # the first image has no class, the last one all
        labels = (np.arange(num_classes) < np.linspace(0, num_classes, images)[:, None]).astype(np.int8)
    logits = np.random.default_rng(0).normal(size=(images, num_classes)).astype(np.float32)
    figures = np.asarray(jax.jit(metric)(logits, labels))
    if not np.isfinite(figures).all():
        wrong = figures[~np.isfinite(figures)]
        where = f"{len(wrong)} of {images} images with random logits"
        raise UserError(f"metric={config.metric}: is {wrong[0]} for {where}; must be finite")
