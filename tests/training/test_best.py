"""Which epoch of a run is the best."""

import dataclasses
import json
import math

import pytest
from matplotlib.axes import Axes

from flax_resnets.errors import UserError
from flax_resnets.training.best import best_by_of, best_first, best_of, in_words
from flax_resnets.training.config import Config
from flax_resnets.training.curves import draw_curves
from flax_resnets.training.loop import Run, run
from flax_resnets.training.metrics import EpochMetrics, MetricsLog, read_rows
from flax_resnets.training.timeline import Timeline


def row(epoch: int, accuracy: float, loss: float, precision: float | None = None) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        step=10 * epoch,
        train_loss=1.0,
        valid_loss=loss,
        accuracy=accuracy,
        top5_accuracy=1.0 if precision is None else None,
        mean_average_precision=precision,
        f1=precision,
        seconds=1.0,
        images_per_second=1.0,
        skipped_steps=0,
    )


# The network becomes too sure of itself: more images are right, but those that are wrong cost more.
ROWS = [row(1, 0.5, 0.9), row(2, 0.6, 0.7), row(3, 0.7, math.nan), row(4, 0.8, 0.8), row(5, 0.8, 0.7)]


def epochs(rows: list[EpochMetrics]) -> list[int]:
    return [row.epoch for row in rows]


def test_the_highest_accuracy_or_the_lowest_loss_and_of_equal_ones_the_first():
    assert epochs(best_first(ROWS, "accuracy")) == [4, 5, 3, 2, 1]
    assert epochs(best_first(ROWS, "loss")) == [2, 5, 4, 1, 3]  # a loss that is not a number comes last
    assert best_of([], "loss") is None
    # A metric that is not finite is null in metrics.jsonl, and must count the same before and after a resume.
    metrics = [math.inf, 0.5, math.nan]
    rows = [dataclasses.replace(row(i, 0.5, 1.0), metric=metric) for i, metric in enumerate(metrics, start=1)]
    assert epochs(best_first(rows, "metric")) == [2, 1, 3]


def test_of_several_labels_an_image_mean_average_precision_decides():
    rows = [row(1, 0.9, 0.5, precision=0.2), row(2, 0.8, 0.6, precision=0.3)]
    assert epochs(best_first(rows, "accuracy")) == [2, 1]
    assert epochs(best_first(rows, "loss")) == [1, 2]
    assert in_words(rows[1], "accuracy") == "mean average precision 0.3000"


def test_in_words_it_says_by_what():
    assert in_words(ROWS[1], "accuracy") == "accuracy 0.6000"
    assert in_words(ROWS[1], "loss") == "validation loss 0.7000 (accuracy 0.6000)"


def test_a_configuration_of_an_earlier_version_or_of_none_at_all():
    assert best_by_of({}) == "accuracy"
    assert best_by_of({"best_by": "loss"}) == "loss"
    with pytest.raises(UserError, match="best_by=f1: must be one of accuracy, loss"):
        best_by_of({"best_by": "f1"})


@pytest.mark.parametrize(
    ("best_by", "done"),
    [
        ("accuracy", {"best_accuracy": 0.8, "best_epoch": 4, "best_step": 40}),
        ("loss", {"best_accuracy": 0.6, "best_valid_loss": 0.7, "best_epoch": 2, "best_step": 20}),
    ],
)
def test_the_last_row_has_the_best_epochs_figures(tmp_path, best_by, done):
    log = MetricsLog(tmp_path, Timeline(10), best_by=best_by)
    log.start(0)
    for each in ROWS:
        log.add_epoch(each)
    log.finish("abc")
    written = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert written == {"event": "done", **done, "state_digest": "abc"}
    assert read_rows(tmp_path / "metrics.jsonl", best_by=best_by)[1] == done | {"state_digest": "abc"}


@pytest.mark.parametrize(("best_by", "line"), [("accuracy", (1, 4)), ("loss", (0, 2))])
def test_a_line_is_at_the_best_epoch(tmp_path, monkeypatch, best_by, line):
    lines = []
    monkeypatch.setattr(Axes, "axvline", lambda self, x, **_: lines.append((self.figure.axes.index(self), x)))
    draw_curves(ROWS, tmp_path / "curves.png", best_by=best_by)
    assert lines == [line]


def test_a_run_keeps_the_checkpoint_of_the_lowest_loss(no_pictures, tmp_path, monkeypatch, capsys):
    evaluated = Run._evaluated

    def as_if(self, epoch, *figures):
        found = evaluated(self, epoch, *figures)
        return found and dataclasses.replace(found, valid_loss=ROWS[epoch - 1].valid_loss, accuracy=epoch / 10)

    monkeypatch.setattr(Run, "_evaluated", as_if)
    config = Config(
        model="lenet_bn",
        dataset="fashion_mnist_sample",
        image_size=12,
        store_size=12,
        model_options={"padding": 2},
        mean=(0.5,),
        std=(0.25,),
        train_split="train[:400]",
        validation_split="test[:100]",
        batch_size=200,
        epochs=5,
        learning_rate=1e-3,
        best_by="loss",
    )
    finished = run(config, tmp_path / "run")
    kept = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir())
    steps = [each.step for each in finished.history]
    assert kept == [steps[1], steps[3], steps[4]]
    assert "best validation loss 0.7000 (accuracy 0.2000), in epoch 2 of 5" in capsys.readouterr().out
