"""A run that goes on under a changed configuration."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets.cli import main
from flax_resnets.errors import UserError
from flax_resnets.training.amendments import read_amendments
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.config import Config
from flax_resnets.training.interruption import Interruption, Stopped
from flax_resnets.training.loop import Run, run
from flax_resnets.training.step import Evaluation

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")


def newest(workdir: Path) -> int:
    """The step of the newest checkpoint."""
    return max(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Config:
    """Two epochs of four steps, on 40 bright or dark pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for split, number in (("train", 20), ("val", 6)):
        for label, name in enumerate(("bright", "dark")):
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 90, (28, 28)) + 150 * (1 - label)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / name / f"{index:02}.png")
    return Config(
        model="lenet_bn",
        dataset="folder",
        data_dir=str(folder),
        image_size=28,
        mean=(0.5,),
        std=(0.25,),
        batch_size=10,
        epochs=2,
        learning_rate=1e-2,
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("trained") / "run"
    run(config, workdir)
    return workdir


@pytest.fixture
def workdir(trained, tmp_path) -> Path:
    """The workdir of a run of two epochs that is done."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


class Watch(Callback):
    """Notes the learning rates; and stops the run a few steps after a step, because steps are computed ahead."""

    def __init__(self, stop_at: int | None = None):
        self.rates: dict[int, float] = {}
        self._stop_at = stop_at

    def on_step_end(self, run, step, output):
        self.rates[step] = float(output.learning_rate)
        if step == self._stop_at:
            run.stop.ask()


class Killed(BaseException):
    pass


class Kill(Callback):
    """Ends the run in its third step, without a save."""

    def on_step_end(self, run, step, output):
        if step == 3:
            raise Killed


@pytest.fixture(scope="module")
def killed(config, tmp_path_factory) -> Path:
    """The workdir of a run with a checkpoint in the middle of its first epoch of four steps."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        run(dataclasses.replace(config, schedule="constant", epochs=3, save_every=2), workdir, [Kill()])
    assert newest(workdir) == 2
    return workdir


def amend(config: Config, workdir: Path, stop_at: int | None = None, **changes) -> tuple[Run | None, Watch]:
    """Amends the run, and stops it."""
    return go_on(dataclasses.replace(config, **changes), workdir, stop_at, amend=True)


def go_on(config: Config, workdir: Path, stop_at: int | None = None, **how) -> tuple[Run | None, Watch]:
    watch = Watch(stop_at)
    with contextlib.suppress(Stopped) if stop_at else contextlib.nullcontext():
        return run(config, workdir, [watch], stop=Interruption(), **how), watch
    return None, watch


def rows(workdir: Path, event: str) -> list[dict]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [row for row in lines if row["event"] == event]


def test_a_run_that_is_done_gets_more_epochs_at_another_rate(config, workdir):
    before = rows(workdir, "epoch")
    longer, watch = amend(config, workdir, epochs=4, learning_rate=0.002)
    assert rows(workdir, "epoch")[:2] == before
    assert [(row["epoch"], row["step"]) for row in rows(workdir, "epoch")[2:]] == [(3, 12), (4, 16)]
    (row,) = rows(workdir, "amended")
    assert row["step"] == 8
    assert row["changes"] == {"epochs": [2, 4], "learning_rate": [config.learning_rate, 0.002]}
    assert len(longer.history) == 4
    # One cycle over the eight steps that are left, from its beginning.
    assert watch.rates[9] == pytest.approx(0.002 / config.div_factor, rel=1e-4)
    assert watch.rates[11] == pytest.approx(0.002)
    assert json.loads((workdir / "config.json").read_text())["epochs"] == 4


def test_the_same_command_does_nothing_more_with_or_without_amend(config, workdir, capsys):
    longer = dataclasses.replace(config, epochs=3)
    run(longer, workdir, amend=True)
    before = (workdir / "metrics.jsonl").read_bytes()
    for again in (True, False):
        run(longer, workdir, amend=again)
        assert "already done" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("stop_at", [8 + 1, *(pytest.param(8 + more, marks=pytest.mark.slow) for more in (6, 11))])
def test_stopped_at_any_step_it_goes_on_to_the_same_bits(config, workdir, tmp_path, stop_at):
    """With twice the steps in an epoch, and with augmentation."""
    changes = {"batch_size": 5, "epochs": 4, "flip": True, "mixup": 0.2}
    whole = tmp_path / "whole"
    shutil.copytree(workdir, whole)
    unbroken, _ = amend(config, whole, **changes)
    amend(config, workdir, stop_at, **changes)
    stopped = newest(workdir)
    assert stopped < 24
    resumed, watch = go_on(dataclasses.replace(config, **changes), workdir)
    assert min(watch.rates) == stopped + 1
    assert resumed.digest == unbroken.digest
    assert [(row["epoch"], row["step"]) for row in rows(workdir, "epoch")] == [(1, 4), (2, 8), (3, 16), (4, 24)]


def test_within_an_epoch_the_same_images_follow(config, killed, tmp_path):
    """The amended run computes what it would have computed, if what is changed makes no difference to its steps."""
    shutil.copytree(killed, tmp_path / "amended")
    unbroken = run(dataclasses.replace(config, schedule="constant", epochs=2), tmp_path / "whole")
    constant = dataclasses.replace(config, schedule="constant")
    amended, watch = amend(constant, tmp_path / "amended", epochs=2)
    assert min(watch.rates) == 3
    assert [row.valid_loss for row in amended.history] == [row.valid_loss for row in unbroken.history]


def test_every_second_checkpoint_is_kept(config, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    amend(config, tmp_path / "run", epochs=6, keep_every=2)
    best = rows(tmp_path / "run", "done")[-1]["best_step"]
    kept = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {8, 16, 20, 24, best}


@pytest.mark.slow
def test_amended_twice_and_a_second_time_at_the_same_step(config, workdir):
    amend(config, workdir, stop_at=9, epochs=3)
    assert newest(workdir) > 8
    amend(config, workdir, epochs=4, learning_rate=1e-3)
    assert [row["changes"].keys() for row in rows(workdir, "amended")] == [{"epochs"}, {"epochs", "learning_rate"}]
    # A run that is done is amended at its last step, and again there before it takes another.
    amend(config, workdir, stop_at=17, epochs=5)
    shutil.rmtree(workdir / "checkpoints" / str(newest(workdir)))
    run(dataclasses.replace(config, epochs=5, clip_norm=1.0), workdir, amend=True)
    last = read_amendments(workdir)[-1]
    assert (last.step, last.changes["clip_norm"], last.changes["learning_rate"]) == (
        16,
        (None, 1.0),
        (1e-3, config.learning_rate),
    )


@pytest.mark.parametrize(
    ("changes", "anew"),
    [
        pytest.param({"weight_decay": 0.1, "ema_decay": 0.9}, False, marks=pytest.mark.slow),
        ({"optimizer": "sgd", "momentum": (0.9, 0.9), "ema_decay": 0.9}, True),
        ({"clip_norm": 1.0}, False),  # although its state has one more level
    ],
)
def test_what_the_state_carries_over(config, workdir, capsys, changes, anew):
    amended, _ = amend(config, workdir, epochs=3, **changes)
    assert ("the optimizer's moments begin anew" in capsys.readouterr().out) == anew
    assert amended.history[-1].valid_loss < amended.history[0].valid_loss
    assert (amended.state.ema is not None) == ("ema_decay" in changes)
    assert amended.digest == rows(workdir, "done")[-1]["state_digest"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "lenet"},
            "model=lenet: {} has lenet_bn, and the weights are those of this network; pick",
        ),
        ({"seed": 1}, "seed=1: {} has 0, and it decides the order of the images"),
        ({"validation_split": "train"}, "validation_split=train: {} has None, and other images or classes would be"),
        ({"weights_head": "new"}, "weights_head=new: {} has auto, and it says how the run began; pick"),
        ({"epochs": 2, "learning_rate": 0.1}, "epochs=2: must be above the 2 that {} has trained"),
        ({"epochs": 1}, "epochs=1: must be above the 2"),
        (
            {"epochs": 4, "schedule": "warmup_cosine", "warmup_epochs": 2.0},
            "warmup_epochs=2: warmup_cosine begins anew, and must be below the 2 epochs that are left",
        ),
        ({"epochs": 4, "image_size": 32}, "with image_size=32, lenet_bn has other parameters"),
    ],
)
def test_what_cannot_be_amended_says_why(config, workdir, changes, message):
    before = {path.name: path.read_bytes() for path in workdir.glob("*.json*")}
    with pytest.raises(UserError) as caught:
        amend(config, workdir, **changes)
    assert message.format(workdir) in str(caught.value)
    assert len(str(caught.value)) < 600
    assert {path.name: path.read_bytes() for path in workdir.glob("*.json*")} == before


def test_another_batch_size_waits_for_the_epochs_end(config, killed):
    with pytest.raises(UserError, match="batch_size=5: the newest checkpoint, of step 2, is within an epoch"):
        amend(dataclasses.replace(config, schedule="constant", epochs=3), killed, batch_size=5)


def test_after_an_amendment_patience_begins_anew(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("flax_resnets.training.loop.evaluate", lambda *_: Evaluation(1.0, 0.5, 0.5))  # never better
    patient = dataclasses.replace(config, epochs=4, patience=1)
    assert run(patient, tmp_path / "run").ended_by == "patience"
    assert len(rows(tmp_path / "run", "epoch")) == 2
    for _ in range(2):
        longer = run(dataclasses.replace(patient, epochs=6), tmp_path / "run", amend=True)
        assert len(longer.history) == 3
        assert (rows(tmp_path / "run", "done")[-1]["ended_by"], longer.ended_by) == ("patience", "patience")
    assert "already done" not in capsys.readouterr().out  # because --amend asks whether there is patience left
    run(dataclasses.replace(patient, epochs=6), tmp_path / "run")
    assert "already done, ended after epoch 3 by patience" in capsys.readouterr().out
    (amended,) = rows(tmp_path / "run", "amended")
    assert amended["changes"] == {"epochs": [4, 6]}


def test_while_the_head_trains_alone_the_run_is_not_amended(config, tmp_path):
    phases = dataclasses.replace(config, schedule="constant", freeze_epochs=1, epochs=3, save_every=2)
    with pytest.raises(Killed):
        run(phases, tmp_path / "run", [Kill()])
    with pytest.raises(UserError) as caught:
        amend(phases, tmp_path / "run", learning_rate=1e-3)
    assert str(caught.value) == (
        f"--amend: freeze_epochs=1: {tmp_path / 'run'} is in epoch 1, in which the head trains alone; let the run go "
        "beyond these epochs"
    )
    go_on(phases, tmp_path / "run", stop_at=5)
    assert newest(tmp_path / "run") < 12
    with pytest.raises(UserError, match=r"freeze_epochs=0: .* has 1, and it says how the run began; pick another"):
        amend(phases, tmp_path / "run", freeze_epochs=0)
    amended, watch = amend(phases, tmp_path / "run", learning_rate=1e-3, freeze=("conv1",))
    assert [row.epoch for row in amended.history] == [1, 2, 3]
    # Half of the rate, as in all epochs after those of the head alone.
    assert list(watch.rates.values()) == pytest.approx([1e-3 / 2] * len(watch.rates))


def test_the_refusal_of_another_configuration_names_amend(config, workdir):
    with pytest.raises(UserError, match=r"with epochs=2 \(now 4\); --amend goes on with it"):
        run(dataclasses.replace(config, epochs=4), workdir)
    with pytest.raises(UserError) as caught:
        run(dataclasses.replace(config, epochs=4, seed=1), workdir)
    assert "--amend" not in str(caught.value)


def test_where_there_is_no_run_there_is_nothing_to_amend(config, tmp_path, capsys):
    assert main(["train", "--config=quickstart", f"--workdir={tmp_path / 'none'}", "--amend"]) == 2
    assert "--amend: " in (line := capsys.readouterr().err)
    assert "has no run with a checkpoint; without --amend the command begins one" in line
    assert not (tmp_path / "none").exists()


def test_killed_between_the_row_and_the_configuration_it_is_not_amended(config, workdir, monkeypatch):
    from flax_resnets.training import workdir as module

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            amend(config, workdir, epochs=4)
    assert rows(workdir, "amended")
    assert run(config, workdir).digest == rows(workdir, "done")[-1]["state_digest"]
    longer, _ = amend(config, workdir, epochs=3)
    assert [row.epoch for row in longer.history] == [1, 2, 3]
    assert len(rows(workdir, "amended")) == 1


def test_if_its_first_checkpoint_is_damaged_it_is_amended_at_the_one_before(config, workdir):
    amend(config, workdir, stop_at=9, epochs=4)
    for step in (8, newest(workdir)):
        (workdir / "checkpoints" / str(step) / "SHA256SUMS").write_text("")
    longer = dataclasses.replace(config, epochs=4)
    with pytest.raises(
        UserError, match="amended at step 8, whose checkpoint is damaged; the same command with --amend"
    ):
        run(longer, workdir)
    amended = run(longer, workdir, amend=True)
    assert [(each.step, each.epoch) for each in read_amendments(workdir)] == [(4, 1)]
    assert [row.epoch for row in amended.history] == [1, 2, 3, 4]


@pytest.mark.parametrize("changes", [{"optimizer": "sgd"}, {"learning_rate": 1e-3}])
def test_if_its_run_goes_on_while_the_data_is_read_nothing_is_amended(config, killed, tmp_path, monkeypatch, changes):
    """The amendment's step is that of the newest checkpoint, which was another one by then."""
    from flax_resnets.training import loop

    workdir = Path(shutil.copytree(killed, tmp_path / "run"))
    constant = dataclasses.replace(config, schedule="constant", epochs=3, save_every=2)
    open_data = loop.open_data

    def while_it_goes_on(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "open_data", open_data)
            run(constant, workdir)
        return open_data(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "open_data", while_it_goes_on)
        with pytest.raises(UserError, match=r"--amend: the run in .* went on meanwhile; give the same command again"):
            amend(constant, workdir, epochs=5, **changes)
    assert not rows(workdir, "amended")
    assert [row["epoch"] for row in rows(workdir, "epoch")] == [1, 2, 3]
    assert not (workdir / "damaged").exists()
    amend(constant, workdir, epochs=5, **changes)
    assert [each.step for each in read_amendments(workdir)] == [12]
