"""A run's rows on disk."""

import dataclasses
import json
import math

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.metrics import EpochMetrics, MetricsLog, columns, read_rows
from flax_resnets.training.timeline import Timeline

STEPS = 10  # in an epoch


def row(epoch: int, accuracy: float) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        step=STEPS * epoch,
        train_loss=2.0 / epoch,
        valid_loss=2.1 / epoch,
        accuracy=accuracy,
        top5_accuracy=(1 + accuracy) / 2,
        seconds=1.5,
        images_per_second=100.0,
        skipped_steps=0,
    )


@pytest.fixture
def log(tmp_path):
    log = MetricsLog(tmp_path, Timeline(STEPS))
    log.start(0)
    return log


def test_a_row_an_epoch_and_one_that_closes(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    log.add_epoch(row(2, 0.7))
    log.add_epoch(row(3, 0.6))
    log.finish("abc")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["event"] for r in rows] == ["epoch", "epoch", "epoch", "done"]
    wanted = {"epoch", "step", "train_loss", "valid_loss", "accuracy", "top5_accuracy", "seconds", "images_per_second"}
    assert wanted <= rows[0].keys()
    best = {"best_accuracy": 0.7, "best_epoch": 2, "best_step": 2 * STEPS}
    assert rows[-1] == {"event": "done", **best, "state_digest": "abc"}


def test_read_again_it_is_the_same(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    log.add_epoch(row(2, 0.5))
    log.finish("abc")
    again = MetricsLog(tmp_path, Timeline(STEPS))
    assert again.epochs == log.epochs
    assert again.done == log.done
    assert again.best == row(1, 0.5)  # the first of two equal ones


def test_the_last_row_of_an_earlier_version_gets_the_best_epoch_from_the_others(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    log.add_epoch(row(2, 0.7))
    log.add_epoch(row(3, 0.7))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "done", "best_accuracy": 0.7, "state_digest": "abc"}\n')
    rows, done = read_rows(tmp_path / "metrics.jsonl")
    assert rows == log.epochs
    assert done == {"best_accuracy": 0.7, "best_epoch": 2, "best_step": 2 * STEPS, "state_digest": "abc"}


def test_starting_at_a_step_forgets_what_came_after(log, tmp_path):
    for epoch in (1, 2, 3):
        log.add_epoch(row(epoch, 0.5))
    log.finish("abc")
    again = MetricsLog(tmp_path, Timeline(STEPS))
    again.start(25)
    assert again.done is None
    assert [r.epoch for r in MetricsLog(tmp_path, Timeline(STEPS)).epochs] == [1, 2]


def test_a_row_cut_short_by_a_kill_is_no_row(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epoch", "epoch": 2, "st')
    assert [r.epoch for r in MetricsLog(tmp_path, Timeline(STEPS)).epochs] == [1]


def test_what_is_not_finite_is_null_in_the_file(log, tmp_path):
    skipped = dataclasses.replace(row(1, 0.5), train_loss=math.nan, ema_valid_loss=math.inf, ema_accuracy=0.5)
    log.add_epoch(skipped)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    written = json.loads(line, parse_constant=pytest.fail)
    assert (written["train_loss"], written["ema_valid_loss"]) == (None, None)
    (read,) = MetricsLog(tmp_path, Timeline(STEPS)).epochs
    assert math.isnan(read.train_loss)
    assert read.ema_valid_loss is not None
    assert read.ema_top5_accuracy is None


def test_a_test_time_flip_is_named_beside_the_accuracies(tmp_path):
    log = MetricsLog(tmp_path, Timeline(STEPS), eval_flip=True)
    log.start(0)
    log.add_epoch(row(1, 0.5))
    log.finish("abc")
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["eval_flip"] is True
    assert MetricsLog(tmp_path, Timeline(STEPS)).done == log.done


def test_columns_have_a_value_for_each_row():
    averaged = dataclasses.replace(row(2, 0.75), ema_accuracy=0.7)
    found = columns([row(1, 0.5), averaged])
    assert found["epoch"] == [1, 2]
    assert found["accuracy"] == [0.5, 0.75]
    assert math.isnan(found["ema_accuracy"][0])
    assert found["ema_accuracy"][1] == 0.7
    assert "ema_valid_loss" not in found
    assert columns([]) == {}


def test_epochs_may_be_missing_but_never_come_twice(tmp_path):
    lines = [json.dumps({"event": "epoch", **row(epoch, 0.5).as_row()}) + "\n" for epoch in (1, 3, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:2]))
    assert [r.epoch for r in MetricsLog(tmp_path, Timeline(STEPS)).epochs] == [1, 3]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: .*epoch 3 where one after 3 should be"):
        MetricsLog(tmp_path, Timeline(STEPS))


def test_a_row_of_a_run_with_longer_epochs_is_refused(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: .*step 10, where epoch 1 ends at 12"):
        MetricsLog(tmp_path, Timeline(12))


def test_only_a_loss_may_be_null(log, tmp_path):
    log.add_epoch(dataclasses.replace(row(1, 0.5), accuracy=math.nan))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: .*accuracy is 'None', no number"):
        MetricsLog(tmp_path, Timeline(STEPS))


@pytest.mark.parametrize("line", ["not json", "[]", '{"event": "epoch"}', '{"no": "event"}', "\x00"])
def test_a_file_of_something_else_is_refused_by_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: not a row of this run"):
        MetricsLog(tmp_path, Timeline(STEPS))
