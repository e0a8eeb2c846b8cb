"""The table that a run shows in the terminal."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from flax_resnets.training.display import Display
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.terminal import Terminal


def row(epoch: int, **figures: float) -> EpochMetrics:
    common = {"train_loss": 1.25, "valid_loss": 1.5, "accuracy": 0.75, "seconds": 61.0, "images_per_second": 99.0}
    return EpochMetrics(epoch=epoch, step=10 * epoch, skipped_steps=0, **cast(Any, {**common, **figures}))


def run_of(rows: list[EpochMetrics], classes: int = 10, multilabel: bool = False, **config: Any) -> Any:
    trainer = SimpleNamespace(valid=SimpleNamespace(multilabel=multilabel), num_classes=classes)
    config = {"eval_flip": False, "ema_decay": None, "metric": None, **config}
    return SimpleNamespace(history=rows, trainer=trainer, config=SimpleNamespace(**config))


@pytest.mark.parametrize(
    ("run", "table"),
    [
        (
            run_of([row(1, top5_accuracy=0.875)]),
            "epoch train_loss valid_loss accuracy    top5     time images/s\n"
            "    1     1.2500     1.5000   0.7500  0.8750    01:01     99.0\n",
        ),
        (  # of which each image's class is among five
            run_of([row(1, top5_accuracy=1.0)], classes=5),
            "epoch train_loss valid_loss accuracy     time images/s\n"
            "    1     1.2500     1.5000   0.7500    01:01     99.0\n",
        ),
        (  # an amendment has added the average
            run_of([row(1, top5_accuracy=0.875), row(2, top5_accuracy=0.9, ema_accuracy=0.8)], ema_decay=0.99),
            "epoch train_loss valid_loss accuracy    top5     time images/s     ema\n"
            "    1     1.2500     1.5000   0.7500  0.8750    01:01     99.0\n"
            "    2     1.2500     1.5000   0.7500  0.9000    01:01     99.0  0.8000\n",
        ),
        (
            run_of([row(1, mean_average_precision=0.5, f1=0.25, metric=12.0)], multilabel=True, metric=len),
            "epoch train_loss valid_loss accuracy     mAP      F1    metric     time images/s\n"
            "    1     1.2500     1.5000   0.7500  0.5000  0.2500        12    01:01     99.0\n",
        ),
    ],
)
def test_the_columns_are_those_that_the_run_has(run, table, capsys):
    Terminal(Display()).on_run_begin(run)
    assert capsys.readouterr().out == table
