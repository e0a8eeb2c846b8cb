"""Damaged workdirs, and directories of something else: no run starts over silently, and no user's file is lost."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from made import JSON
from watching import ROOT, short

import train
from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.checksums import write_checksums
from flax_resnets.training.config import FIELD_TYPES, FREE_ON_RESUME
from flax_resnets.training.display import Display
from flax_resnets.training.loop import Run, Stopped
from flax_resnets.training.metrics import EpochMetrics, MetricsLog
from flax_resnets.training.recipes import load_config
from flax_resnets.training.splits import load_split
from flax_resnets.training.state import TrainState, tree_digest
from flax_resnets.training.timeline import Timeline
from flax_resnets.training.trainer import Trainer

# The network whose state is the smallest.
RECIPE = str(ROOT / "configs" / "lenet_bn_fashion_mnist.py")
SMALL = {"dataset": "fashion_mnist_sample", "image_size": "12", "store_size": "12", "model_options.padding": "2"}
SMALL |= {"batch_size": "1000", "epochs": "2"}
CHANGES = [f"--config.{name}={value}" for name, value in SMALL.items()]
DEEP = "[" * 100_000
ROW = {
    "epoch": 1,
    "step": 6,
    "train_loss": 2.0,
    "valid_loss": 2.0,
    "accuracy": 0.5,
    "top5_accuracy": 0.9,
    "seconds": 1.0,
    "images_per_second": 6000.0,
    "skipped_steps": 0,
}


RECORD: dict[str, Any] = {
    "dataset": "fashion_mnist_sample",
    "version": "1.0.0",
    "fingerprint": "0" * 64,
    "counts": {"train": 6000, "validation": 1000},
    "splits": {"train": "train", "validation": "test"},
    "channels": 1,
    "class_names": ("boot", "shoe"),
}


def epoch(**changes) -> str:
    return json.dumps({"event": "epoch", **ROW, **changes}) + "\n"


@pytest.fixture(scope="module")
def state() -> TrainState:
    """The first state of a small run."""
    config = load_config(RECIPE, SMALL)
    assert open_source(config.dataset, "train").num_classes == 10
    train_split, classes = load_split(config, "train", Display(silent=True))
    return Trainer(config, train_split, train_split, classes, Display(silent=True)).steps.create_state()


@pytest.fixture(scope="module")
def one_epoch(tmp_path_factory, state) -> Path:
    """A run after its first epoch: six steps, a row, a checkpoint of step 3 and one of step 6."""
    workdir = tmp_path_factory.mktemp("runs") / "one_epoch"
    workdir.mkdir()
    (workdir / "config.json").write_text(load_config(RECIPE, SMALL).to_json())
    (workdir / "metrics.jsonl").write_text(epoch())
    checkpoints = Checkpoints(workdir / "checkpoints", lambda: ())
    with contextlib.closing(checkpoints):
        for step in (3, 6):
            checkpoints.save(state.replace(step=state.step + step))
            checkpoints.wait()
    return workdir


@pytest.fixture
def workdir(one_epoch, sandbox) -> Path:
    return Path(shutil.copytree(one_epoch, sandbox / "work" / "run", symlinks=True))


def config_with(**changes) -> bytes:
    config = json.loads(load_config(RECIPE, SMALL).to_json())
    return json.dumps({**config, **changes}).encode()


# The content of config.json, and what the line must name. It is refused before any other file is read.
CONFIGS: list[tuple[bytes, str]] = [
    (b"", "config.json: is no run's configuration"),
    (b"\0" * 100, "config.json: is no run's configuration"),
    (b"\xff\xfe{}", "config.json: is no run's configuration"),
    (b"null", "config.json: is no run's configuration"),
    (b"3", "config.json: is no run's configuration"),
    (b'"text"', "config.json: is no run's configuration"),
    (b"[[1, 2]]", "config.json: is no run's configuration"),
    (b"{", "config.json: is no run's configuration"),
    (b"{}{}", "config.json: is no run's configuration"),
    (DEEP.encode(), "config.json: is no run's configuration"),
    (b'{"a":' * 100_000, "config.json: is no run's configuration"),
    (b'{"seed": ' + b"9" * 5000 + b"}", "config.json: is no run's configuration"),
    (b"{}", "is no run's configuration (it has no model)"),
    (config_with(seed=None), "seed=None (now 0)"),
    (config_with(seed="a\nb\x1b[2J"), r"seed=a b\x1b[2J (now 0)"),
    (config_with(seed="x" * 100_000), "seed=xxx"),
    (config_with(learning_rate=float("nan")), "learning_rate=nan (now 0.1)"),
    (config_with(learning_rate=float("inf")), "learning_rate=inf (now 0.1)"),
    (config_with(epochs=10**30), f"epochs={10**30} (now 2)"),
    (config_with(model_options=[[[]]]), "model_options=[[[]]]"),
    (config_with(mean={"a": "b"}), "mean={'a': 'b'}"),
    (b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x02os\x8c\x06system\x93.", "config.json: is no run's configuration"),
]


@pytest.mark.parametrize(("content", "named"), CONFIGS, ids=short)
def test_a_configuration_that_is_not_this_runs(train_refuses, sandbox, content, named):
    (sandbox / "work" / "run").mkdir()
    (sandbox / "work" / "run" / "config.json").write_bytes(content)
    train_refuses([f"--config={RECIPE}", *CHANGES, "--workdir=run"], named)


FIXED_FIELDS = sorted(FIELD_TYPES.keys() - set(FREE_ON_RESUME))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FIXED_FIELDS), value=JSON)
def test_any_other_value_in_a_configuration(train_refuses, sandbox, name, value):
    assume(value != json.loads(config_with())[name])
    (sandbox / "work" / "run").mkdir(exist_ok=True)
    (sandbox / "work" / "run" / "config.json").write_bytes(config_with(**{name: value}))
    train_refuses([f"--config={RECIPE}", *CHANGES, "--workdir=run"], f"{name}=")


DATA: list[bytes] = [
    b"",
    b"\xff\xfe{}",
    b"null",
    b"[]",
    b"{}",
    b'{"dataset": "my own"}',
    DEEP.encode(),
    *(
        json.dumps({**RECORD, **change}).encode()
        for change in (
            {"dataset": 3},
            {"version": None},
            {"fingerprint": ["0"]},
            {"channels": True},
            {"channels": "1\x1b[2J"},
            {"counts": {}},
            {"counts": {"train": "6000", "validation": 1000}},
            {"counts": 10**400},
            {"splits": {"train": "train"}},
            {"class_names": [1, 2]},
            {"class_names": None},
            {"unknown": 1},
        )
    ),
]


@pytest.mark.parametrize("content", DATA, ids=short)
def test_a_record_of_the_data_that_is_none(train_refuses, workdir, content):
    (workdir / "data.json").write_bytes(content)
    train_refuses([f"--config={RECIPE}", *CHANGES, "--workdir=run"], "run/data.json: is no record of a run's data")


@given(name=st.sampled_from(sorted(RECORD)), value=JSON)
def test_any_record_of_the_data_is_read_or_refused_in_a_line(tmp_path_factory, name, value):
    path = tmp_path_factory.mktemp("run") / "data.json"
    path.write_text(json.dumps({**RECORD, name: value}))
    line = "data.json"
    try:
        recorded = read_identity(path)
        assert recorded is not None
        assert Identity(**RECORD).difference(recorded) != ""
    except UserError as error:
        line = str(error)
    assert line.isprintable()
    assert "data.json" in line


# The content of metrics.jsonl. The line must name the file.
METRICS: list[bytes] = [
    b"\xff\xfe\n",
    b"\0\n",
    b"\n",
    b"null\n",
    b"3\n",
    b"{}\n",
    DEEP.encode() + b"\n",
    b'{"a":' * 100_000 + b"\n",
    b'{"event": "epoch"}\n',
    b'{"event": "done"}\n',
    b'{"event": "done", "best_accuracy": "high", "state_digest": ""}\n',
    b'{"event": "done", "best_accuracy": null, "state_digest": ""}\n',
    b'{"event": "done", "best_accuracy": [1], "state_digest": ""}\n',
    b'{"event": []}\n',
    *(
        epoch(**change).encode()
        for change in (
            {"epoch": "1"},
            {"epoch": None},
            {"epoch": 0},
            {"epoch": 2},  # its step must be 6
            {"epoch": 1.0},
            {"epoch": True},
            {"step": "6"},
            {"step": None},
            {"step": 6.5},
            {"step": [6]},
            {"accuracy": "0.5"},
            {"accuracy": None},
            {"accuracy": {}},
            {"accuracy": True},
            {"accuracy": 10**400},
            {"seconds": "1\n2"},
            {"train_loss": "\x1b[2J"},
            {"skipped_steps": 0.5},
            {"unknown": 1},
        )
    ),
    epoch().encode() * 2,
    epoch().encode() + epoch(epoch=2, step=18).encode(),
]


@pytest.mark.parametrize("content", METRICS, ids=short)
def test_metrics_that_are_none(train_refuses, workdir, content):
    (workdir / "metrics.jsonl").write_bytes(content)
    (workdir / "config.json").write_text(load_config(RECIPE, SMALL).to_json())
    train_refuses([f"--config={RECIPE}", *CHANGES, "--workdir=run"], "run/metrics.jsonl")


@given(
    name=st.sampled_from([*ROW, "event", "unknown"]), value=JSON, junk=st.binary(max_size=5), cut=st.integers(0, 400)
)
def test_any_row_is_read_or_refused_in_a_line(tmp_path_factory, name, value, junk, cut):
    workdir = tmp_path_factory.mktemp("run")
    row = epoch(**{name: value}).encode()
    content = row[:cut] + junk + row[cut:]
    (workdir / "metrics.jsonl").write_bytes(content)
    line = ""
    try:
        best = MetricsLog(workdir, Timeline(6), writes=False).best
        assert best is None or isinstance(best, EpochMetrics)
    except UserError as error:
        line = str(error)
    assert line == "" or "metrics.jsonl" in line
    assert line.isprintable()
    assert (workdir / "metrics.jsonl").read_bytes() == content


def link(path: Path, target: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


def a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_file(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.write_text("mine")


def a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


# Other things in place of a file, and the name that the line must have.
PLACES = {
    "config.json is a directory": (lambda d: a_directory(d / "config.json"), "run/config.json: must be a file"),
    "config.json is a pipe": (lambda d: a_pipe(d / "config.json"), "run/config.json: must be a file"),
    "config.json leads out": (
        lambda d: link(d / "config.json", "../../home/.bashrc"),
        "run/config.json: must be a file",
    ),
    "config.json is endless": (lambda d: link(d / "config.json", "/dev/zero"), "run/config.json: must be a file"),
    "config.json leads to itself": (lambda d: link(d / "config.json", "config.json"), "run/config.json: must be"),
    "data.json is a directory": (lambda d: (d / "data.json").mkdir(), "run/data.json: must be a file"),
    "data.json is a pipe": (lambda d: a_pipe(d / "data.json"), "run/data.json: must be a file"),
    "data.json leads out": (lambda d: link(d / "data.json", "../../home/x"), "run/data.json: must be a file"),
    "metrics.jsonl is a directory": (lambda d: a_directory(d / "metrics.jsonl"), "run/metrics.jsonl: must be a file"),
    "metrics.jsonl is a pipe": (lambda d: a_pipe(d / "metrics.jsonl"), "run/metrics.jsonl: must be a file"),
    "metrics.jsonl leads out": (
        lambda d: link(d / "metrics.jsonl", "../../home/x"),
        "run/metrics.jsonl: must be a file",
    ),
    "metrics.jsonl.tmp leads out": (
        lambda d: link(d / "metrics.jsonl.tmp", "../../home/x"),
        "run/metrics.jsonl.tmp: must be a file",
    ),
    "curves.png.tmp leads out": (
        lambda d: link(d / "curves.png.tmp", "../../home/x"),
        "run/curves.png.tmp: must be a file",
    ),
    "curves.png is a directory": (lambda d: (d / "curves.png").mkdir(), "run/curves.png: must be a file"),
    "checkpoints is a file": (lambda d: a_file(d / "checkpoints"), "run/checkpoints: must be a directory"),
    "checkpoints leads to itself": (lambda d: link(d / "checkpoints", "checkpoints"), "run/checkpoints: must be a dir"),
    "checkpoints leads nowhere": (lambda d: link(d / "checkpoints", "nowhere"), "run/checkpoints: must be a directory"),
    "tensorboard is a file": (lambda d: a_file(d / "tensorboard"), "run/tensorboard: must be a directory"),
    "damaged is a file": (lambda d: a_file(d / "damaged"), "run/damaged: must be a directory"),
    "config.json is gone": (lambda d: (d / "config.json").unlink(), "has checkpoints and no config.json"),
    "a workdir is a file": (lambda d: a_file(d), "is a file; name a directory"),
    "a workdir leads to itself": (lambda d: link(d, "run"), "workdir=run: run is no directory that can be written"),
}


@pytest.mark.parametrize("name", PLACES)
def test_something_else_in_a_files_place(train_refuses, workdir, name):
    change, named = PLACES[name]
    change(workdir)
    train_refuses([f"--config={RECIPE}", *CHANGES, "--workdir=run"], named)


# Workdirs that cannot be made.
NAMES: list[tuple[str, str]] = [
    ("x" * 300, "File name too long"),
    ("x/" * 5000, "File name too long"),
    ("a\0b", "workdir="),
    ("/dev/null", "is a file"),
    ("/dev/null/run", "/dev/null is no directory that can be written"),
    ("/proc/run", "workdir=/proc/run"),
]


@pytest.mark.parametrize(("name", "named"), NAMES, ids=short)
def test_a_workdir_that_cannot_be(train_refuses, name, named):
    train_refuses([f"--config={RECIPE}", *CHANGES, f"--workdir={name}"], named)


def rewrite_json(path: Path, value: object) -> None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def rewrite_proof(step: Path, value: object) -> None:
    """Changes the checkpoint's metadata, with the right checksum."""
    rewrite_json(step / "proof" / "metadata", value)
    write_checksums(step, [step / "proof" / "metadata"])


def every_file(step: Path, content: bytes) -> None:
    for path in [each for each in step.rglob("*") if each.is_file()]:
        path.write_bytes(content)


def halve(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


# Damages to the newest checkpoint. The run must use the previous checkpoint, and a line must say so.
DAMAGES = {
    "empty directory": lambda step: (shutil.rmtree(step), step.mkdir()),
    "noise in every file": lambda step: every_file(step, os.urandom(64)),
    "JSON nested deep": lambda step: every_file(step / "state", DEEP.encode()),
    "a pickle in every file": lambda step: every_file(step, b"cos\nsystem\n(S'touch canary'\ntR."),
    "no state": lambda step: shutil.rmtree(step / "state"),
    "no proof": lambda step: shutil.rmtree(step / "proof"),
    "a proof of something else": lambda step: rewrite_proof(step, {"digest": "0" * 64}),
    "a proof without a digest": lambda step: rewrite_proof(step, {}),
    "a proof that is a list": lambda step: rewrite_proof(step, [1]),
    "a proof that is a number": lambda step: rewrite_proof(step, 3),
    "a proof nested deep": lambda step: rewrite_proof(step, DEEP),
    "the checksums are noise": lambda step: (step / "SHA256SUMS").write_bytes(b"\xff" * 64),
    "the checksums are none": lambda step: (step / "SHA256SUMS").write_bytes(b""),
    "the checksums of something else": lambda step: shutil.copy(step.parent / "3" / "SHA256SUMS", step / "SHA256SUMS"),
    "a directory for the checksums": lambda step: a_directory(step / "SHA256SUMS"),
    "checksums of what has no end": lambda step: (step / "SHA256SUMS").write_text(f"{'0' * 64}  /dev/zero\n"),
    "a directory for the proof": lambda step: a_directory(step / "proof" / "metadata"),
    "a state that leads to itself": lambda step: link(step / "state", "state"),
    "_METADATA is noise": lambda step: (step / "state" / "_METADATA").write_bytes(b"\xff" * 64),
    "_METADATA is nested deep": lambda step: (step / "state" / "_METADATA").write_text(DEEP),
    "_METADATA is a list": lambda step: (step / "state" / "_METADATA").write_text("[]"),
    "_METADATA is gone": lambda step: (step / "state" / "_METADATA").unlink(),
    "the manifest is noise": lambda step: (step / "state" / "manifest.ocdbt").write_bytes(b"\xff" * 64),
    "half of the arrays' description": lambda step: halve(step / "state" / "array_metadatas" / "process_0"),
    "an older one's content": lambda step: (shutil.rmtree(step), shutil.copytree(step.parent / "3", step)),
}


def train_from(monkeypatch, began: list[int]) -> None:
    """Makes a run record the step from which it resumes, and stop there."""

    def stops_at_once(run, _):
        began.append(int(run.state.step))
        raise Stopped("a test")

    monkeypatch.setattr(Run, "_epochs", stops_at_once)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_with_a_word(workdir, monkeypatch, capfd, name):
    DAMAGES[name](workdir / "checkpoints" / "6")
    began = []
    train_from(monkeypatch, began)
    assert train.main([f"--config={RECIPE}", *CHANGES, "--workdir=run"]) == 0
    out, err = capfd.readouterr()
    assert (began, err) == ([3], "")
    assert "checkpoint 6 is damaged (" in out
    assert (workdir / "damaged" / "6.0").is_dir()  # nothing is thrown away
    assert sorted(path.name for path in Path().iterdir()) == ["run"]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_in_any_file_of_a_checkpoint(one_epoch, state, tmp_path_factory, data):
    directory = Path(shutil.copytree(one_epoch / "checkpoints", tmp_path_factory.mktemp("run") / "checkpoints"))
    files = sorted(path for path in (directory / "6").rglob("*") if path.is_file())
    path = files[data.draw(st.integers(0, len(files) - 1), label="file")]
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)), label="at")
    patch = data.draw(st.binary(max_size=9), label="patch")
    path.write_bytes(content[:at] + patch + content[at + data.draw(st.integers(0, 9), label="instead of") :])

    said = []
    with contextlib.closing(Checkpoints(directory, lambda: ())) as checkpoints:
        restored = checkpoints.restore(lambda _: state, said.append)
    assert restored is not None
    assert int(restored.step) == (3 if said else 6)
    expected = state.replace(step=restored.step)
    assert tree_digest(restored) == tree_digest(expected)


# Names in `checkpoints/` that are not steps. They stay, and the run ignores them.
STRANGERS = ["notes", "6.bak", "-6", "6e3", "1x", " 7", "x" * 200, "a\nb", "\x1b[2J"]


def test_what_is_no_checkpoint_stays(workdir, monkeypatch, capfd):
    for name in STRANGERS:
        (workdir / "checkpoints" / name).mkdir()
        (workdir / "checkpoints" / name / "mine").write_text("mine")
    (workdir / "checkpoints" / "9").write_text("mine")  # a file
    began = []
    train_from(monkeypatch, began)
    assert train.main([f"--config={RECIPE}", *CHANGES, "--workdir=run"]) == 0
    assert (began, capfd.readouterr().err) == ([6], "")
    for name in STRANGERS:
        assert (workdir / "checkpoints" / name / "mine").read_text() == "mine"
    assert (workdir / "checkpoints" / "9").read_text() == "mine"


def test_a_checkpoint_whose_description_is_nested_deep(train_refuses, workdir):
    every_file(workdir / "checkpoints" / "6", DEEP.encode())
    train_refuses([f"--config={RECIPE}", *CHANGES, "--workdir=run"], "run/checkpoints: its checkpoints cannot be")


def test_with_all_of_them_damaged_it_refuses(workdir, capfd):
    every_file(workdir / "checkpoints" / "3", b"")
    every_file(workdir / "checkpoints" / "6", b"")
    assert train.main([f"--config={RECIPE}", *CHANGES, "--workdir=run"]) == 2
    err = capfd.readouterr().err
    assert "none of its checkpoints can be read" in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in (workdir / "damaged").iterdir()) == ["3.0", "6.0"]


def test_rows_and_a_checkpoint_beyond_the_runs_end(workdir, capfd):
    """As if the dataset had more images before: the run must not train forever."""
    config = load_config(RECIPE, {**SMALL, "epochs": "1", "batch_size": "3000"})
    (workdir / "config.json").write_text(config.to_json())
    arguments = [f"--config.{name}={value}" for name, value in {**SMALL, "epochs": "1", "batch_size": "3000"}.items()]
    assert train.main([f"--config={RECIPE}", *arguments, "--workdir=run"]) == 2
    assert (
        capfd.readouterr().err
        == "train.py: run/metrics.jsonl:1: not a row of this run (step 6, where epoch 1 ends at 2; "
        "is data_dir the one it was trained on?)\n"
    )
    (workdir / "metrics.jsonl").unlink()
    assert train.main([f"--config={RECIPE}", *arguments, "--workdir=run"]) == 2
    err = capfd.readouterr().err
    assert (
        err
        == "train.py: workdir=run: its checkpoint is of step 6, the run has 2; is data_dir the one it was trained on?\n"
    )
