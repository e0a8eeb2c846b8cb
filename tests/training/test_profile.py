"""The callback that traces steps: which steps, what it prints, and that the run's bits stay the same."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from flax_resnets import cli
from flax_resnets.errors import UserError
from flax_resnets.training import load_config, run
from flax_resnets.training import profile as module
from flax_resnets.training.profile import Profile, operations_of
from flax_resnets.training.timeline import Timeline

SAMPLE = {"dataset": "fashion_mnist_sample", "train_split": "train[:2000]"}
CONFIG = load_config("lenet_fashion_mnist", SAMPLE | {"batch_size": "100", "epochs": "1"})


def test_a_traced_run_has_the_same_bits(tmp_path, capfd):
    plain = run(CONFIG, tmp_path / "plain").digest
    capfd.readouterr()
    assert run(CONFIG, tmp_path / "traced", [Profile(5)]).digest == plain
    said = capfd.readouterr().out
    whole = float(re.search(r"profile of 5 steps, ([0-9.]+) ms each", said)[1])
    figures = dict(re.findall(r"^  (\S.*?)  +([0-9.-]+) ms +[0-9.-]+%$", said, re.MULTILINE))
    host = ["wait for the next images", "hand them to the devices", "start the step", "wait for the devices"]
    parts = [float(figures[name]) for name in [*host, "callbacks and the rest"]]
    assert sum(parts) == pytest.approx(whole, rel=0.02)
    assert all(part >= 0 for part in parts)
    assert 0 < float(figures["devices compute"]) <= 1.05 * whole
    (trace,) = (tmp_path / "traced/profile").glob("plugins/profile/*/*.xplane.pb")
    assert (trace.parent / "perfetto_trace.json.gz").stat().st_size > 0


@pytest.mark.parametrize(
    ("asked", "in_epoch", "start", "traced"),
    [
        (5, 100, 0, (10, 15)),
        (5, 12, 0, (7, 12)),
        (50, 20, 0, (1, 20)),  # one less than an epoch has
        (5, 100, 94, (104, 109)),  # resumed
        (5, 100, 88, (101, 106)),  # and ready near an epoch's end
        (15, 20, 10, (21, 36)),
        (1, 1, 0, None),
    ],
)
def test_the_traced_steps_are_within_an_epoch(monkeypatch, asked, in_epoch, start, traced):
    calls = []
    monkeypatch.setattr(module, "_start", lambda directory: calls.append(step))
    monkeypatch.setattr(module.jax.profiler, "stop_trace", lambda: calls.append(step))
    monkeypatch.setattr(module, "_table", lambda *arguments: [])
    said = []
    display = SimpleNamespace(say=said.append)
    trainer = SimpleNamespace(steps_per_epoch=in_epoch, timeline=Timeline(in_epoch), display=display)
    of_run, callback = SimpleNamespace(trainer=trainer, workdir=Path("run")), Profile(asked)
    for step in range(start + 1, start + 201):
        callback.on_step_end(of_run, step, None)
    callback.on_run_end(of_run)
    callback.close()
    assert calls == list(traced or ())
    assert bool(said) == (asked >= in_epoch)
    assert (said == ["profile: nothing is traced, because an epoch has one step"]) == (in_epoch == 1)


@pytest.mark.parametrize("steps", [0, 2.5, True])
def test_a_number_of_steps_that_is_none(steps):
    with pytest.raises(UserError, match=f"^steps={steps}: must be a whole number from 1 up"):
        Profile(steps)


def test_a_stop_within_the_trace_ends_it(monkeypatch):
    calls = []
    monkeypatch.setattr(module.jax.profiler, "stop_trace", lambda: calls.append("stop"))
    callback = Profile(5)
    callback._end = 15
    callback.close()
    callback.close()
    assert calls == ["stop"]


def event(name: str, start: int, end: int):
    return SimpleNamespace(name=name, start_ns=start, duration_ns=end - start)


def test_operations_of_a_gpus_trace():
    lines = [
        SimpleNamespace(name="Stream #1", events=[event("conv", 0, 30), event("relu", 30, 40)]),
        SimpleNamespace(name="Stream #2", events=[event("copy", 20, 50)]),
        SimpleNamespace(name="Steps", events=[event("1", 0, 100)]),
    ]
    planes = [
        SimpleNamespace(name="/device:GPU:0", lines=lines),
        SimpleNamespace(name="/host:CPU", lines=[SimpleNamespace(name="python", events=[event("train", 0, 99)])]),
    ]
    found = operations_of(SimpleNamespace(planes=planes))
    assert [name for name, _, _ in found.costliest] == ["conv", "copy", "relu"]
    assert (found.seconds, found.busy) == (pytest.approx(70e-9), pytest.approx(50e-9))


def test_a_workdir_in_a_bucket_is_refused(capsys):
    pytest.importorskip("gcsfs")
    assert cli.main(["train", "--config", "quickstart", "--profile=3", "--workdir=gs://bucket/run"]) == 2
    assert "--profile=3: needs a workdir on this machine" in capsys.readouterr().err
