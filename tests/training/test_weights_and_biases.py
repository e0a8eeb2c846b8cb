"""Runs that are recorded in Weights & Biases, offline."""

import importlib.util
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training import curves
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.interruption import Stopped
from flax_resnets.training.loop import fit
from flax_resnets.training.recipes import load_config
from flax_resnets.training.weights_and_biases import WandB, _id_of


def test_without_wandb_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"wandb=shoes: needs wandb, which `pip install 'flax_resnets\[wandb\]'`"):
        WandB("shoes")


def test_an_id_is_made_once_for_a_workdir(tmp_path):
    assert _id_of(tmp_path) == _id_of(tmp_path) != ""
    (tmp_path / "wandb.json").write_text("[]")
    with pytest.raises(UserError, match=r"wandb\.json: has no id of a W&B run"):
        _id_of(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "a" * 129])
def test_a_project_has_a_name_that_wandb_takes(name):
    with pytest.raises(UserError, match=r"wandb=.*: must be a project's name"):
        load_config("quickstart", {"wandb": name})


def records(path: Path) -> list:
    """The records of a .wandb file: chunks in blocks of 32 KiB, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, found, parts = path.read_bytes(), 7, [], b""
    while place < len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768  # too little is left of the block for a chunk
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(parts))
            parts = b""
    return found


def values(items) -> dict:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


@pytest.fixture
def wandb(monkeypatch, tmp_path) -> Iterator:
    """wandb without a login, whose files are in a directory of the test; afterwards its process has ended."""
    wandb = pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG_DIR", "CACHE_DIR", "DATA_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    yield wandb
    wandb.teardown()
    names = [path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    assert not [name for name in names if "(wandb-core)" in name and f") S {os.getpid()} " in name]


class Stop(Callback):
    def on_step_end(self, run, step, output):
        if step == 8:
            run.stop.ask()


@pytest.mark.wandb
def test_a_run_that_is_stopped_and_goes_on_is_one_run(wandb, make_trainer, config, tmp_path, capsys):
    trainer, workdir = make_trainer(config), tmp_path / "run"
    with pytest.raises(Stopped):
        fit(trainer, workdir, callbacks=[WandB("shoes", tags=["small"]), Stop()])
    assert "wandb=shoes: offline (not logged in); `wandb sync" in capsys.readouterr().out
    done = fit(trainer, workdir, callbacks=[WandB("shoes")])
    assert wandb.run is None

    first, second = sorted((workdir / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    stopped, finished = records(first), records(second)
    begun = [next(each.run for each in found if each.HasField("run")) for found in (stopped, finished)]
    assert {run.run_id for run in begun} == {json.loads((workdir / "wandb.json").read_text())["id"]}
    assert {run.project for run in begun} == {"shoes"}
    assert begun[0].tags == ["small"]
    told = {item.key: json.loads(item.value_json) for item in begun[0].config.update}
    assert {name: told[name] for name in ("epochs", "learning_rate")} == {"epochs": 3, "learning_rate": 1e-2}

    logged = [
        [values(each.history.item) for each in found if each.HasField("history")] for found in (stopped, finished)
    ]
    epochs = [row for rows in logged for row in rows if "epoch/accuracy" in row]
    assert [(row["step"], row["epoch/accuracy"]) for row in epochs] == [(r.step, r.accuracy) for r in done.history]
    assert [row["step"] for row in logged[0] if "step/loss" in row] == [2, 4, 6, 8, 10]
    assert [row["step"] for row in logged[1] if "step/loss" in row] == [12, 14, 16, 18]

    summary = {}
    for each in finished:
        summary |= values(each.summary.update)
    assert summary["state_digest"] == done.digest
    assert summary["best_epoch"] == done.best.epoch
    assert [next(e.exit.exit_code for e in found if e.HasField("exit")) for found in (stopped, finished)] == [1, 0]


class NoServer:
    """Stands for wandb with a login, whose server does not answer."""

    def __init__(self, wandb):
        self.errors, self.Settings, self.begun = wandb.errors, wandb.Settings, []

    def login(self, **_):
        return True

    def init(self, **arguments):
        self.begun.append(arguments.get("mode"))
        if "mode" not in arguments:
            raise self.errors.CommError("no answer\nfor 30 seconds")
        return SimpleNamespace(offline=True, dir="/wandb/offline-run-1/files", define_metric=lambda *_, **__: None)


@pytest.mark.wandb
def test_without_a_server_it_goes_on_offline_and_says_so(wandb, monkeypatch, tmp_path):
    server, said = NoServer(wandb), []
    monkeypatch.setitem(sys.modules, "wandb", server)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: server)
    trainer = SimpleNamespace(display=SimpleNamespace(say=said.append))
    WandB("shoes").on_run_begin(
        SimpleNamespace(workdir=tmp_path, config=load_config("quickstart"), trainer=trainer, history=[])
    )
    assert server.begun == [None, "offline"]
    assert said == ["wandb=shoes: offline (no answer for 30 seconds); `wandb sync /wandb/offline-run-1` sends the run"]
