"""What TensorBoard is given of a run."""

import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from flax_resnets.training import curves, tensorboard
from flax_resnets.training.interruption import Interruption
from flax_resnets.training.loop import Run, fit
from flax_resnets.training.observers import Observers
from flax_resnets.training.step import StepOutput
from flax_resnets.training.tensorboard import EventFile, TensorBoard

OUTPUT = StepOutput(loss=2.5, learning_rate=0.1, momentum=0.9, skipped_in_a_row=0)


def a_run(workdir: Path, step: int):
    config = SimpleNamespace(log_every=5, to_json=lambda: "{}\n")
    return SimpleNamespace(workdir=workdir, state=SimpleNamespace(step=step), config=config, history=[])


@pytest.fixture(autouse=True)
def _white_pictures(monkeypatch, request):
    if "make_trainer" not in request.fixturenames:
        monkeypatch.setattr(tensorboard, "_first_images", lambda run: np.full((2, 3, 1), 255, np.uint8))


def events_of(path: Path) -> list[Event]:
    """Reads records: a length, its checksum, an event, and its checksum."""
    events, content, place = [], path.read_bytes(), 0
    while place < len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        events.append(Event.FromString(content[place + 12 : place + 12 + length]))
        place += 16 + length
    return events


def test_it_is_told_from_where_a_run_goes_on(tmp_path):
    for step in (0, 10):
        run, board = a_run(tmp_path, step), TensorBoard()
        board.on_run_begin(run)
        board.on_step_end(run, step + 4, OUTPUT)  # between two points
        board.on_step_end(run, step + 5, OUTPUT)
        board.close()
        (path,) = (tmp_path / "tensorboard").iterdir()
        events = events_of(path)
        assert [event.session_log.status for event in events][1] == SessionLog.START
        # TensorBoard ignores earlier files from this step on; the step before it is kept.
        steps = [step + 1, step + 1, *([0] if step == 0 else []), *[step + 5] * 3]
        assert [event.step for event in events[1:]] == steps
        shown = {event.summary.value[0].tag: event.summary.value[0].simple_value for event in events[-3:]}
        assert shown == pytest.approx({"step/loss": 2.5, "step/learning_rate": 0.1, "step/momentum": 0.9})
        path.unlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_full_disk_is_an_error(tmp_path, monkeypatch):
    """The error is raised in the training thread. A writer thread would die, and training would wait forever."""
    board = TensorBoard()
    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "flush", lambda self: None)  # not yet
        patch.setattr(record_writer, "open_file", lambda _: Path("/dev/full").open("wb"))  # noqa: SIM115
        board.on_run_begin(a_run(tmp_path, 0))
    row = SimpleNamespace(as_row=lambda: {"accuracy": 0.5}, step=10)
    with pytest.raises(OSError, match="No space left"):
        board.on_epoch_end(a_run(tmp_path, 10), row)
    with pytest.raises(OSError, match="No space left"):
        board.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_its_file_is_never_an_empty_one(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(record_writer, "open_file", lambda _: Path("/dev/full").open("wb"))  # noqa: SIM115
        with pytest.raises(OSError, match="No space left"):
            TensorBoard().on_run_begin(a_run(tmp_path, 0))
    board = TensorBoard()
    board.on_run_begin(a_run(tmp_path, 0))  # the file's header is written before anything is recorded
    assert all(path.stat().st_size for path in (tmp_path / "tensorboard").iterdir())
    board.close()


def test_a_run_and_what_tensorboard_itself_reads_of_it(make_trainer, config, tmp_path, monkeypatch):
    """The digest is that of a run without callbacks."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    trainer = make_trainer(config)
    run = fit(trainer, tmp_path / "watched")
    alone = Run(trainer, tmp_path / "alone", stop := Interruption())
    alone._observers = Observers((), (), stop, print)
    alone.go_on()
    assert not (tmp_path / "alone" / "tensorboard").exists()
    assert run.digest == alone.digest

    accumulators.logger.setLevel("ERROR")
    read = accumulators.EventAccumulator(str(tmp_path / "watched" / "tensorboard")).Reload()
    assert [event.step for event in read.Scalars("step/loss")] == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    accuracies = [(event.step, event.value) for event in read.Scalars("epoch/accuracy")]
    assert accuracies == [(row.step, pytest.approx(row.accuracy)) for row in run.history]
    (text,) = read.Tensors("config/text_summary")
    assert text.tensor_proto.string_val[0].decode() == f"```json\n{config.to_json()}```"
    (picture,) = read.Images("training_images")
    # 32 images in rows of 8, each of 12 px, enlarged 5 times, in a frame of 2 px
    assert (picture.width, picture.height, picture.step) == (8 * 64, 4 * 64, 0)
    (matrix,) = read.Images("confusion")
    assert (matrix.width, matrix.height, matrix.step) == (668, 568, 18)

    assert run.confusion.sum(1).tolist() == np.bincount(trainer.valid.labels).tolist()
    assert run.confusion.trace() / run.confusion.sum() == run.history[-1].accuracy
