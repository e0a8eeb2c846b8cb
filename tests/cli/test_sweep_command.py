"""The command `sweep`: which runs it trains, how it goes on, what it writes, and what it refuses."""

import contextlib
import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnets import cli
from flax_resnets.cli import sweep
from flax_resnets.data.lock import locked
from flax_resnets.training.recipes import load_config

BASE = ["sweep", "--config", "quickstart", "--config.epochs=2", "--workdir", "swept"]
OVER = ["--over", "learning_rate=0.003,0.01", "--over", "seed=0,1"]


def row(epoch: int, accuracy: float) -> str:
    figures = {"train_loss": 1.0, "valid_loss": 1.1, "accuracy": accuracy, "top5_accuracy": 0.9, "seconds": 2.0}
    more = {"images_per_second": 50.0, "skipped_steps": 0}
    return json.dumps({"event": "epoch", "epoch": epoch, "step": 93 * epoch, **figures, **more}) + "\n"


class Trainings:
    """Stands for the processes that train: writes a run's record at once."""

    def __init__(self):
        self.names: list[str] = []
        self.codes: dict[str, int] = {}
        self.stop_at: str | None = None

    def __call__(self, command: list[str], stop, say_to_stderr: bool) -> int:
        parsed = cli.parse(command[3:])
        workdir, config = Path(parsed.workdir), load_config(parsed.config, parsed.overrides)
        self.names.append(workdir.name)
        if code := self.codes.get(workdir.name, 0):
            return code
        workdir.mkdir(exist_ok=True)
        (workdir / "config.json").write_text(config.to_json())
        rows = row(1, 0.5) + row(2, 0.6 + 10 * config.learning_rate + 0.01 * config.seed)
        if self.stop_at == workdir.name:
            stop.ask("SIGTERM")
            rows = row(1, 0.5)
        else:
            rows += json.dumps({"event": "done", "best_accuracy": 0.7, "state_digest": "a"}) + "\n"
        (workdir / "metrics.jsonl").write_text(rows)
        return 0


@pytest.fixture(autouse=True)
def trainings(tmp_path, monkeypatch) -> Trainings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "_start", fake := Trainings())
    return fake


def test_it_trains_every_combination_and_shows_the_best(trainings, capsys):
    assert cli.main([*BASE, *OVER]) == 0
    names = [f"learning_rate={rate}-seed={seed}" for rate in ("0.003", "0.01") for seed in (0, 1)]
    assert trainings.names == names
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["0.003", "2", "0,", "1", "2", "63.50", "±", "0.71", "64.00", "1.1000", "238", "s"] in lines
    assert ["0.01", "2", "0,", "1", "2", "70.50", "±", "0.71", "71.00", "1.1000", "238", "s", "best"] in lines
    assert out.endswith(
        "compare swept/learning_rate=0.01-seed=0 swept/learning_rate=0.01-seed=1 "
        "swept/learning_rate=0.003-seed=0 swept/learning_rate=0.003-seed=1\n"
    )
    assert sorted(os.listdir("swept")) == [*names, "sweep.csv", "sweep.json", "sweep.png"]
    assert Path("swept/sweep.png").read_bytes()[1:4] == b"PNG"
    rows = list(csv.DictReader(Path("swept/sweep.csv").read_text().splitlines()))
    assert [each["learning_rate"] for each in rows] == ["0.003", "0.003", "0.01", "0.01"]
    record = json.loads(Path("swept/sweep.json").read_text())
    assert record["config"]["epochs"] == 2
    assert [each["best"] for each in record["settings"]] == [False, True]


def test_a_stopped_sweep_goes_on_by_the_same_command(trainings, capsys):
    trainings.stop_at = "learning_rate=0.003-seed=1"
    assert cli.main([*BASE, *OVER]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1].endswith(" -m flax_resnets " + " ".join([*BASE, *OVER]))
    assert "stopped by SIGTERM; to go on: " in out
    assert "1 unfinished" in out
    assert "best\n" not in out
    trainings.names, trainings.stop_at = [], None
    assert cli.main([*BASE, *OVER]) == 0
    assert trainings.names == ["learning_rate=0.003-seed=1", "learning_rate=0.01-seed=0", "learning_rate=0.01-seed=1"]
    assert "swept: 4 runs: 1 done, 1 unfinished, 2 not begun" in capsys.readouterr().out
    trainings.names = []
    assert cli.main([*BASE, "--over", "seed=0", "--over", "learning_rate=3e-3,0.03"]) == 0  # adds a value
    assert trainings.names == ["learning_rate=0.03-seed=0"]
    assert "swept: 5 runs: 4 done, 1 not begun" in capsys.readouterr().out
    assert len(json.loads(Path("swept/sweep.json").read_text())["runs"]) == 5


def test_a_sweep_of_an_earlier_version_goes_on(trainings, capsys):
    assert cli.main([*BASE, *OVER]) == 0
    record = json.loads(Path("swept/sweep.json").read_text())
    del record["config"]["augmentation"]  # a field that it did not have
    Path("swept/sweep.json").write_text(json.dumps(record))
    assert cli.main([*BASE, *OVER]) == 0
    assert "4 runs: 4 done" in capsys.readouterr().out


def test_a_run_that_diverges_or_fails_does_not_end_the_sweep(trainings, capsys):
    trainings.codes = {"learning_rate=0.01-seed=0": 3, "learning_rate=0.003-seed=0": -9}
    assert cli.main([*BASE, *OVER, "--json"]) == 2
    found = capsys.readouterr()
    states = {each["run"]: each["state"] for each in json.loads(found.out)["runs"]}
    assert list(states.values()) == ["not begun", "done", "diverged", "done"]
    assert not any(each["best"] for each in json.loads(found.out)["settings"])
    assert "swept/learning_rate=0.003-seed=0: failed, exit code -9" in found.err
    trainings.names, trainings.codes = [], {}
    assert cli.main([*BASE, *OVER]) == 0
    assert trainings.names == ["learning_rate=0.003-seed=0"]  # what diverged would only diverge again
    assert "1 diverged" in capsys.readouterr().out


def test_if_every_run_diverges_there_is_a_table_and_no_picture(trainings, capsys, monkeypatch):
    """A run that diverged after its first epoch has a score."""

    def diverge(command, stop, say_to_stderr):
        trainings(command, stop, say_to_stderr)
        (Path(cli.parse(command[3:]).workdir) / "metrics.jsonl").write_text(row(1, 0.1))
        return 3

    monkeypatch.setattr(sweep, "_start", diverge)
    assert cli.main([*BASE, "--over", "learning_rate=0.5"]) == 0
    assert "1 diverged" in capsys.readouterr().out
    assert sorted(os.listdir("swept")) == ["learning_rate=0.5", "sweep.csv", "sweep.json"]


def test_a_full_disk_takes_no_result_away(trainings, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))  # sweep.png is larger
    try:
        assert cli.main([*BASE, *OVER]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = capsys.readouterr()
    assert "64.00" in found.out
    assert "sweep: swept/sweep.png: File too large; once that is put right, the same command goes on" in found.err
    assert "sweep.png" not in os.listdir("swept")


def test_of_two_sweeps_that_begin_at_once_one_is_refused_and_leaves_the_other(trainings, capsys, monkeypatch):
    """The other one makes its directory and its record when this one has seen that there is none."""

    def overtaken(self: Path, **options):
        os.makedirs(self)
        (self / "sweep.json").write_text("the other's")
        stack.enter_context(locked(self))

    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(Path, "mkdir", overtaken)
        assert cli.main([*BASE, *OVER]) == 2
    assert "another sweep is under way in it" in capsys.readouterr().err
    assert Path("swept/sweep.json").read_text() == "the other's"


def test_a_record_with_points_of_different_fields_is_refused(trainings, capsys):
    assert cli.main([*BASE, *OVER]) == 0
    record = json.loads(Path("swept/sweep.json").read_text())
    del record["points"][1]["overrides"]["seed"]
    Path("swept/sweep.json").write_text(json.dumps(record))
    capsys.readouterr()
    assert cli.main([*BASE, *OVER]) == 2
    assert "sweep.json: is no record of a sweep (its points have different fields)" in capsys.readouterr().err


def test_if_no_run_can_begin_nothing_is_left(trainings, capsys):
    trainings.codes = {"seed=0": 2}
    assert cli.main([*BASE, "--over", "seed=0"]) == 2
    assert "no run could begin" in capsys.readouterr().err
    assert os.listdir() == []


def test_a_signal_before_the_first_run_leaves_nothing(trainings, capsys, monkeypatch):
    def stopped(arguments, sweep, stop, say):
        stop.ask("SIGTERM")
        return {}

    monkeypatch.setattr(sweep, "_train", stopped)
    assert cli.main([*BASE, *OVER]) == 0
    assert capsys.readouterr().out.startswith("stopped by SIGTERM; to go on: ")
    assert os.listdir() == []


def test_without_a_workdir_it_is_named_by_its_fields(trainings, capsys):
    assert cli.main(["sweep", "--config", "quickstart", "--config.epochs=2", *OVER]) == 0
    assert os.listdir("runs") == ["quickstart-epochs=2-sweep-learning_rate-seed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--over FIELD=A,B is needed"),
        (["--over", "learning_rate"], "write --over FIELD=A,B"),
        (["--over", "learning_rate=,"], "write --over FIELD=A,B"),
        (["--over", "lr=1"], "did you mean learning_rate?"),
        (["--over", "model_options=1"], "no such field"),
        (["--over", "model_options.widht=8"], "widht"),
        (["--over", "learning_rate=fast,1"], "learning_rate=fast: must be a number"),
        (["--over", "learning_rate=0.1,1e-1"], "learning_rate=0.1 is there twice"),
        (["--over", "seed=0", "--over", "seed=1"], "is given twice"),
        (["--over", "epochs=1,2"], "--config.epochs: is swept by --over epochs"),
        (["--over", "save_every=1,2"], "changes nothing in a run's numbers"),
        (["--over", "learning_rate=log:1:2"], "needs --random N"),
        (["--over", "learning_rate=log:0:2", "--random=2"], "above 0"),
        (["--over", "learning_rate=lin:a:2", "--random=2"], "two numbers"),
        (["--over", "seed=log:1:9", "--random=2"], "seeds are listed"),
        (["--over", "seed=0,1", "--random=2"], "nothing to draw"),
        (["--over", "learning_rate=1,2", "--random=2"], "there are 2 settings"),
        (["--over", "seed=" + ",".join(map(str, range(1001)))], "1,001 combinations; at most 1,000"),
        (["--over", "seed=0", "--workdir=a\0b"], "pick a --workdir that can be written"),
        (["--over", "seed=0", "--workdir=gs://bucket/a"], "must be on this machine"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_made(arguments, message, trainings, capsys):
    assert cli.main([*BASE, *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 600
    assert os.listdir() == []
    assert trainings.names == []


def test_other_directories_are_refused(trainings, capsys):
    assert cli.main([*BASE, *OVER]) == 0
    before = Path("swept/sweep.json").read_bytes()
    trainings.names = []

    def refused(*arguments: str) -> str:
        assert cli.main([*arguments]) == 2
        assert Path("swept/sweep.json").read_bytes() == before
        assert trainings.names == []
        return capsys.readouterr().err

    capsys.readouterr()
    assert "has another sweep, over learning_rate, seed (now seed)" in refused(*BASE, "--over", "seed=0")
    assert "with optimizer=adamw (now sgd)" in refused(*BASE, *OVER, "--config.optimizer=sgd")
    with locked(Path("swept")):
        assert "another sweep is under way in it" in refused(*BASE, *OVER)
    run = "swept/learning_rate=0.01-seed=0"
    assert "holds a run, no sweep" in refused(*BASE, *OVER, "--workdir", run)
    Path(run, "config.json").write_text(load_config("quickstart").to_json())
    assert "holds another run" in refused(*BASE, *OVER)
    before = b"[]"
    Path("swept/sweep.json").write_bytes(before)
    assert "is no record of a sweep" in refused(*BASE, *OVER)


def test_a_signal_reaches_the_run_once(monkeypatch):
    """A real process in place of the training: it counts what it gets, as a run saves on the first signal."""
    monkeypatch.undo()
    from flax_resnets.training.interruption import Interruption

    program = (
        "import os, signal, sys, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda number, frame: got.append(number))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.3)\n"
        "sys.exit(40 + len(got))\n"
    )
    with Interruption() as stop:
        assert sweep._start([sys.executable, "-c", program], stop, say_to_stderr=False) == 41
        assert stop.signal == "SIGINT"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM} == set()


@pytest.mark.slow
def test_a_real_sweep(tmp_path):
    small = ["--config.model=lenet", "--config.model_options=none", "--config.epochs=1", "--config.batch_size=1000"]
    command = [sys.executable, "-m", "flax_resnets", *BASE[:3], *small, "--workdir=swept", *OVER, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [each["state"] for each in found["runs"]] == ["done"] * 4
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert json.loads(again.stdout) == found
    assert "4 runs: 4 done" in again.stderr
