"""The records of a run on disk."""

import dataclasses
import json
import math
import struct
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flax_resnets.errors import UserError
from flax_resnets.training.metrics import EpochMetrics, MetricsLog, draw_curves
from flax_resnets.training.tensorboard import EventFile

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
    log = MetricsLog(tmp_path, STEPS)
    log.start(0)
    yield log
    log.close()


def test_a_row_an_epoch_and_one_that_closes(log, tmp_path):
    log.add_point(5, loss=2.3)
    log.add_epoch(row(1, 0.5))
    log.add_epoch(row(2, 0.7))
    log.add_epoch(row(3, 0.6))
    log.finish("abc")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["event"] for r in rows] == ["epoch", "epoch", "epoch", "done"]
    wanted = {"epoch", "step", "train_loss", "valid_loss", "accuracy", "top5_accuracy", "seconds", "images_per_second"}
    assert wanted <= rows[0].keys()
    assert rows[-1] == {"event": "done", "best_accuracy": 0.7, "state_digest": "abc"}
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1000, 400)
    assert any(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir())


def test_read_again_it_is_the_same(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    log.add_epoch(row(2, 0.5))
    log.finish("abc")
    again = MetricsLog(tmp_path, STEPS)
    assert again.epochs == log.epochs
    assert again.done == log.done
    assert again.best == row(1, 0.5)  # the first of two equal ones


def test_starting_at_a_step_forgets_what_came_after(log, tmp_path):
    for epoch in (1, 2, 3):
        log.add_epoch(row(epoch, 0.5))
    log.finish("abc")
    again = MetricsLog(tmp_path, STEPS)
    again.start(25)
    again.close()
    assert again.done is None
    assert [r.epoch for r in MetricsLog(tmp_path, STEPS).epochs] == [1, 2]


def test_a_row_cut_short_by_a_kill_is_no_row(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epoch", "epoch": 2, "st')
    assert [r.epoch for r in MetricsLog(tmp_path, STEPS).epochs] == [1]


def test_what_is_not_finite_is_null_in_the_file(log, tmp_path):
    skipped = dataclasses.replace(row(1, 0.5), train_loss=math.nan, ema_valid_loss=math.inf, ema_accuracy=0.5)
    log.add_epoch(skipped)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    written = json.loads(line, parse_constant=pytest.fail)
    assert (written["train_loss"], written["ema_valid_loss"]) == (None, None)
    (read,) = MetricsLog(tmp_path, STEPS).epochs
    assert math.isnan(read.train_loss)
    assert read.ema_valid_loss is not None
    assert read.ema_top5_accuracy is None


def test_a_test_time_flip_is_named_beside_the_accuracies(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, label: labels.append(label))
    log = MetricsLog(tmp_path, STEPS, eval_flip=True)
    log.start(0)
    log.add_epoch(row(1, 0.5))
    log.finish("abc")
    log.close()
    assert labels == ["loss (nats)", "valid accuracy (%), with a test-time flip"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["eval_flip"] is True
    assert MetricsLog(tmp_path, STEPS).done == {"best_accuracy": 0.5, "state_digest": "abc"}


@pytest.mark.parametrize("epochs", [(1,), (1, 2), (5, 6, 7)])
def test_curves_have_ticks_at_whole_epochs(tmp_path, monkeypatch, epochs):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw_curves([row(epoch, 0.5) for epoch in epochs], tmp_path / "curves.png")
    for axes in figures[0].axes:
        first, last = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if first <= tick <= last] == list(epochs)


def test_epochs_may_be_missing_but_never_come_twice(tmp_path):
    lines = [json.dumps({"event": "epoch", **row(epoch, 0.5).as_row()}) + "\n" for epoch in (1, 3, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:2]))
    assert [r.epoch for r in MetricsLog(tmp_path, STEPS).epochs] == [1, 3]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: .*epoch 3 where one after 3 should be"):
        MetricsLog(tmp_path, STEPS)


def test_a_row_of_a_run_with_longer_epochs_is_refused(log, tmp_path):
    log.add_epoch(row(1, 0.5))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: .*step 10, where epoch 1 ends at 12"):
        MetricsLog(tmp_path, steps_per_epoch=12)


def test_only_a_loss_may_be_null(log, tmp_path):
    log.add_epoch(dataclasses.replace(row(1, 0.5), accuracy=math.nan))
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: .*accuracy is 'None', no number"):
        MetricsLog(tmp_path, STEPS)


@pytest.mark.parametrize("line", ["not json", "[]", '{"event": "epoch"}', '{"no": "event"}', "\x00"])
def test_a_file_of_something_else_is_refused_by_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: not a row of this run"):
        MetricsLog(tmp_path, STEPS)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_tensorboards_full_disk_is_an_error(tmp_path, monkeypatch):
    """The error is raised in the training thread. A writer thread would die, and training would wait forever."""
    log = MetricsLog(tmp_path, STEPS)
    monkeypatch.setattr(EventFile, "flush", lambda self: None)  # not yet
    monkeypatch.setattr(record_writer, "open_file", lambda _: Path("/dev/full").open("wb"))  # noqa: SIM115
    log.start(0)
    monkeypatch.undo()
    with pytest.raises(OSError, match="No space left"):
        log.add_epoch(row(1, 0.5))
    with pytest.raises(OSError, match="No space left"):
        log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_tensorboards_file_is_never_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.setattr(record_writer, "open_file", lambda _: Path("/dev/full").open("wb"))  # noqa: SIM115
    log = MetricsLog(tmp_path, STEPS)
    with pytest.raises(OSError, match="No space left"):
        log.start(0)
    monkeypatch.undo()
    log.start(0)  # the file's header is written before anything is recorded
    assert all(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir())
    log.close()


def test_tensorboard_is_told_from_where_a_run_goes_on(tmp_path):
    for step in (0, 10):
        log = MetricsLog(tmp_path, STEPS)
        log.start(step)
        log.add_point(step + 1, loss=2.5)
        log.close()
        (path,) = (tmp_path / "tensorboard").iterdir()
        events = events_of(path)
        assert [event.session_log.status for event in events][1] == SessionLog.START
        # TensorBoard ignores earlier files from this step on; the step before it is kept.
        assert (events[1].step, events[2].step) == (step + 1, step + 1)
        assert (events[2].summary.value[0].tag, events[2].summary.value[0].simple_value) == ("step/loss", 2.5)
        path.unlink()


def events_of(path: Path) -> list[Event]:
    """Reads records: a length, its checksum, an event, and its checksum."""
    events, content, place = [], path.read_bytes(), 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        events.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += 16 + length
    return events
