"""A metric of a recipe's own: what it is given, that each image counts once, and its column."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets import own
from flax_resnets.errors import UserError
from flax_resnets.training.best import best_first, in_words
from flax_resnets.training.curves import curves_figure
from flax_resnets.training.eval_sums import eval_sums
from flax_resnets.training.metrics import EpochMetrics, MetricsLog, columns, read_rows
from flax_resnets.training.own_metric import MetricConfig, check_metric, metric_function
from flax_resnets.training.step import evaluate
from flax_resnets.training.timeline import Timeline


def margin(logits, labels):
    """The logit of the image's class."""
    return jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]


def right_decisions(logits, labels):
    return ((logits > 0) == (labels > 0)).mean(-1)


def inverse(logits, labels):
    return 1 / labels.astype(jnp.float32)


def test_an_image_that_only_pads_the_batch_does_not_count():
    metric = metric_function(MetricConfig(metric=margin))
    logits = jnp.array([[1.0, 2.0], [4.0, 8.0], [math.nan, math.inf]])
    sums: Any = eval_sums(logits, jnp.array([0, 1, -1]), metric)
    assert (sums.metric, sums.images) == (1.0 + 8.0, 2)
    metric = metric_function(MetricConfig(metric=right_decisions))
    sums = eval_sums(logits, jnp.array([[0, 1], [1, 1], [-1, -1]], jnp.int8), metric)
    assert sums.metric == 0.5 + 1.0
    assert eval_sums(logits, jnp.array([0, 1, -1])).metric is None


def test_the_mean_is_over_all_images_whatever_the_batch(config, data, make_trainer):
    trainer = make_trainer(dataclasses.replace(config, metric=margin))
    state = trainer.steps.create_state()
    means = []
    for size in (32, 203):
        found = evaluate(trainer.steps.eval_step, state, data.eval_batches(size), trainer.mesh)
        means.append(found.metric)
    images = (data.images / 255 - 0.5) / 0.25
    logits = trainer.model.apply({"params": state.params, "batch_stats": state.batch_stats}, jnp.float32(images))
    expected = np.take_along_axis(np.asarray(logits), data.labels[:, None], 1).mean()
    assert means == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize("multilabel", [False, True])
def test_a_metric_of_the_other_kind_of_labels_is_named(multilabel):
    metric = margin if multilabel else right_decisions
    with pytest.raises(UserError, match=r"metric=test_own_metric\.py:\w+@sha256:\w+: (line \d+: |returned )"):
        check_metric(MetricConfig(metric=metric), 3, multilabel)
    check_metric(MetricConfig(metric=right_decisions if multilabel else margin), 3, multilabel)


def test_a_metric_that_is_not_finite_is_named():
    with pytest.raises(UserError, match="is inf for 22 of 64 images with random logits; must be finite"):
        check_metric(MetricConfig(metric=inverse), 3, multilabel=False)


def test_a_function_that_is_not_loaded_is_named():
    text = "lost.py:margin@sha256:0123456789abcdef"
    assert own.is_named(text)
    with pytest.raises(UserError, match=r"only that recipe gives it: --config=lost\.py"):
        metric_function(MetricConfig(metric=text))


def row(epoch: int, metric: float | None, ema_metric: float | None = None) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        step=10 * epoch,
        train_loss=1.0,
        valid_loss=1.0,
        accuracy=0.1 * epoch,
        top5_accuracy=1.0,
        metric=metric,
        ema_metric=ema_metric,
        seconds=1.0,
        images_per_second=1.0,
        skipped_steps=0,
    )


# An amendment has added the metric after the first epoch.
ROWS = [row(1, None), row(2, 0.25), row(3, 0.75, 0.5), row(4, math.nan)]


def test_the_highest_metric_is_the_best():
    assert [each.epoch for each in best_first(ROWS, "metric")] == [3, 2, 1, 4]
    assert in_words(ROWS[2], "metric") == "metric 0.7500 (accuracy 0.3000)"


def test_its_column_is_written_and_read(tmp_path):
    log = MetricsLog(tmp_path, Timeline(10), best_by="metric")
    log.start(0)
    for each in ROWS:
        log.add_epoch(each)
    log.finish("abc")
    read, done = read_rows(tmp_path / "metrics.jsonl", best_by="metric")
    assert done is not None
    assert (done["best_metric"], done["best_epoch"]) == (0.75, 3)
    assert str(columns(read)["metric"]) == "[nan, 0.25, 0.75, nan]"
    assert str(columns(read)["ema_metric"]) == "[nan, nan, 0.5, nan]"


def test_the_curves_have_a_picture_of_it():
    _, _, metric = curves_figure(ROWS, best_by="metric").axes
    assert [line.get_label() for line in metric.lines] == ["metric", "metric, EMA", "best: epoch 3"]
    assert np.array_equal(metric.lines[0].get_xdata(), [2, 3, 4])
    assert len(curves_figure(ROWS[:1]).axes) == 2
