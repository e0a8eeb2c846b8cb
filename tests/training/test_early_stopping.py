"""A run that ends before its last epoch, as planned."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.early_stopping import EarlyStopping
from flax_resnets.training.interruption import Stopped
from flax_resnets.training.loop import fit
from flax_resnets.training.processes import first_text, multihost_utils
from flax_resnets.training.state import state_digest
from flax_resnets.training.workdir import opened

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")


@pytest.fixture(scope="module")
def config(config):
    """Five epochs of six steps."""
    return dataclasses.replace(config, epochs=5)


@pytest.fixture(scope="module")
def make_trainer(make_trainer):
    """Trainers of runs that never get better: no answer in an evaluation is right."""

    def make(config, patience=None):
        trainer = make_trainer(config)
        eval_step = trainer.steps.eval_step

        def never_right(*arguments):
            sums = eval_step(*arguments)
            return sums._replace(top1=sums.top1 * 0)

        made = trainer.with_steps(eval_step=never_right)  # a copy
        made.config = dataclasses.replace(config, patience=patience)
        return made

    return make


class Watch(Callback):
    """Notes the digest at the end of each epoch, and whether the run's end was told; may stop the run in a step."""

    def __init__(self, stop_at: int | None = None):
        self.digests: list[str] = []
        self.ended = False
        self._stop_at = stop_at

    def on_step_end(self, run, step, output):
        if step == self._stop_at:
            run.stop.ask()

    def on_epoch_end(self, run, row):
        self.digests.append(state_digest(run.state))

    def on_run_end(self, run):
        self.ended = True


@pytest.fixture(scope="module")
def unbroken(make_trainer, config, tmp_path_factory):
    watch = Watch()
    workdir = tmp_path_factory.mktemp("unbroken")
    fit(make_trainer(config), workdir, callbacks=[watch])
    return watch, figures(workdir)


def figures(workdir: Path) -> list[dict]:
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def checkpoints(workdir: Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_it_is_done_after_so_many_epochs_without_a_better_score(make_trainer, config, unbroken, tmp_path, capsys):
    whole, rows = unbroken
    trainer, watch = make_trainer(config, 2), Watch()
    done = fit(trainer, tmp_path, callbacks=[watch])
    assert watch.ended
    assert (done.ended_by, done.best.epoch, len(done.history)) == ("patience", 1, 3)
    assert watch.digests == whole.digests[:3]
    *epochs, last = figures(tmp_path)
    assert epochs == rows[:3]
    assert last == {
        "event": "done",
        "best_accuracy": rows[0]["accuracy"],
        "best_epoch": 1,
        "best_step": 6,
        "state_digest": whole.digests[2],
        "ended_by": "patience",
    }
    assert checkpoints(tmp_path) == [6, 12, 18]  # the best one and the latest two
    assert "in epoch 1 of 5, ended after epoch 3 by patience; in " in capsys.readouterr().out

    again = Watch()
    assert fit(trainer, tmp_path, callbacks=[again]).ended_by == "patience"
    assert not again.ended
    assert "already done, ended after epoch 3 by patience, best accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("lost", [1, 0])
def test_killed_or_stopped_on_the_way_it_ends_at_the_same_epoch(make_trainer, config, unbroken, tmp_path, lost):
    trainer = make_trainer(config, 1)
    if lost:  # killed between the last checkpoint and the last row
        fit(trainer, tmp_path)
        path = tmp_path / "metrics.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-lost]))
    else:
        with pytest.raises(Stopped):
            fit(trainer, tmp_path, callbacks=[Watch(stop_at=8)])
    done = fit(trainer, tmp_path)
    assert (done.ended_by, done.digest) == ("patience", unbroken[0].digests[1])
    assert [row["event"] for row in figures(tmp_path)] == ["epoch", "epoch", "done"]


def test_with_more_patience_it_goes_on_as_if_it_had_had_it_from_the_start(make_trainer, config, unbroken, tmp_path):
    for patience, epochs in ((1, 2), (3, 4), (None, 5)):
        trainer = make_trainer(config, patience)
        with opened(trainer.config, tmp_path):
            done = fit(trainer, tmp_path)
        assert len(done.history) == epochs
        assert done.digest == unbroken[0].digests[epochs - 1]
    assert figures(tmp_path) == unbroken[1]


class AfterAnEpoch(Callback):
    """Asks for the end within the first step that it sees."""

    def on_step_end(self, run, step, output):
        run.end_early("enough\n\x1b[31m")


def test_a_callback_asks_for_the_end_of_an_epoch(make_trainer, config, unbroken, tmp_path, capsys):
    with opened(config, tmp_path):
        done = fit(make_trainer(config), tmp_path, callbacks=[AfterAnEpoch()])
    assert (len(done.history), done.digest, done.ended_by) == (1, unbroken[0].digests[0], r"enough\n\x1b[31m")
    fit(make_trainer(config), tmp_path, callbacks=[AfterAnEpoch()])
    assert r"already done, ended after epoch 1 by enough\n\x1b[31m, best" in capsys.readouterr().out
    with opened(config, tmp_path, amend=True):  # nothing is amended but the end
        assert len(fit(make_trainer(config), tmp_path, callbacks=[AfterAnEpoch()]).history) == 2
    with opened(config, tmp_path, amend=True):
        done = fit(make_trainer(config), tmp_path)
    assert figures(tmp_path) == unbroken[1]
    assert done.ended_by is None


def test_an_end_that_is_asked_for_in_the_last_epoch_is_none(make_trainer, config, tmp_path):
    trainer = make_trainer(config, 4)
    assert fit(trainer, tmp_path).ended_by is None


def test_a_damaged_last_checkpoint_lets_it_reach_the_end_again(make_trainer, config, unbroken, tmp_path):
    trainer = make_trainer(config, 1)
    fit(trainer, tmp_path)
    for path in (tmp_path / "checkpoints" / "12").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    done = fit(trainer, tmp_path)
    assert (done.ended_by, done.digest) == ("patience", unbroken[0].digests[1])


@pytest.mark.parametrize("patience", [0, -1, True, 1.5, "3", None])
def test_patience_is_a_number_of_epochs(patience):
    with pytest.raises(UserError, match=r"patience=.*: must be a whole number of epochs, at least 1"):
        EarlyStopping(patience)


def test_of_several_processes_one_may_ask(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    mine = []

    def gathered(row):
        mine.append(row)
        other = np.frombuffer("é".encode() * 100, np.uint8)
        return np.stack([np.zeros_like(row), other, row])

    monkeypatch.setattr(multihost_utils, "process_allgather", gathered)
    assert first_text("late") == "é" * 100
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda row: np.stack([row] * 3))
    assert first_text("é" * 150) == "é" * 100
    assert first_text("") == ""
