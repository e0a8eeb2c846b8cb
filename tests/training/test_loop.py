"""A run from beginning to end, stopped and resumed."""

import contextlib
import dataclasses
import json
import re
import shutil
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.config import Config
from flax_resnets.training.loop import Diverged, Stopped, fit, run
from flax_resnets.training.recipes import load_config
from flax_resnets.training.trainer import Trainer

LENET = Path(__file__).parents[2] / "configs" / "lenet_bn_fashion_mnist.py"


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def figures(workdir: Path) -> list[dict]:
    """The rows without measured times."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows(workdir)]


def signal_at(trainer: Trainer, step: int, number: signal.Signals = signal.SIGINT) -> Trainer:
    """Sends this process a signal during training step `step`."""
    train_step_at = trainer.steps.train_step_at

    def stepping_at(size):
        def stepping(state, batch):
            if int(state.step) == step:
                signal.raise_signal(number)
            return train_step_at(size)(state, batch)

        return stepping

    return trainer.with_steps(train_step_at=stepping_at)


def poisoned(trainer: Trainer) -> Trainer:
    """The same trainer, but one initial weight is NaN."""

    def create_state(pretrained):
        state = trainer.steps.create_state(pretrained)
        state.params["head"]["bias"] = state.params["head"]["bias"] * jnp.nan
        return state

    return trainer.with_steps(create_state=create_state)


@pytest.fixture(scope="module")
def unbroken(make_trainer, config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("unbroken")
    fit(make_trainer(config), workdir)
    return workdir


def test_a_run_learns_and_writes_a_row_an_epoch(unbroken):
    *epochs, done = rows(unbroken)
    assert [row["epoch"] for row in epochs] == [1, 2, 3]
    assert [row["step"] for row in epochs] == [6, 12, 18]
    assert epochs[-1]["accuracy"] > 0.9
    assert epochs[-1]["train_loss"] < epochs[0]["train_loss"]
    assert done["best_accuracy"] == max(row["accuracy"] for row in epochs)
    assert sorted(path.name for path in unbroken.iterdir()) == [
        "checkpoints",
        "curves.png",
        "machine.json",
        "metrics.jsonl",
        "tensorboard",
    ]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("step", "number"),
    [
        (0, signal.SIGINT),
        (0, signal.SIGTERM),
        (5, signal.SIGHUP),  # ends an epoch
        (8, signal.SIGTERM),
        (8, signal.SIGHUP),
        (17, signal.SIGINT),  # the last
    ],
)
def test_stopped_at_any_step_it_goes_on_to_the_same_bits(
    make_trainer, config, unbroken, tmp_path, monkeypatch, step, number
):
    trainer = make_trainer(config)
    with pytest.raises(Stopped, match=number.name):
        fit(signal_at(trainer, step, number), tmp_path)
    assert (tmp_path / "checkpoints" / str(step + 1)).is_dir()
    fit(trainer, tmp_path)
    assert figures(tmp_path) == figures(unbroken)


@pytest.mark.usefixtures("no_pictures")
def test_stopped_in_an_evaluation_it_evaluates_again(make_trainer, config, unbroken, tmp_path, monkeypatch):
    trainer = make_trainer(config)

    def evaluating(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return trainer.steps.eval_step(*arguments)

    with pytest.raises(Stopped):
        fit(trainer.with_steps(eval_step=evaluating), tmp_path)
    assert rows(tmp_path) == []
    fit(trainer, tmp_path)
    assert figures(tmp_path) == figures(unbroken)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("step", [2, 5, 6, 13])
def test_a_run_of_growing_images_resumes_to_the_bit(make_trainer, config, growing, tmp_path, monkeypatch, step):
    """Stops before, at and after a change of size. Step 5 ends an epoch, so statistics have just been recalibrated."""
    trainer = make_trainer(growing_config(config))
    with pytest.raises(Stopped):
        fit(signal_at(trainer, step), tmp_path)
    fit(trainer, tmp_path)
    assert figures(tmp_path) == figures(growing)
    saved = [trainer_checkpoint(workdir, trainer).ema for workdir in (tmp_path, growing)]
    jax.tree.map(np.testing.assert_array_equal, *saved)


def growing_config(config):
    return dataclasses.replace(
        config, progressive=((1, 8), (2, 10)), ema_decay=0.9, ema_batch_norm="recalibrate", recalibrate_steps=2
    )


def trainer_checkpoint(workdir: Path, trainer: Trainer):
    checkpoints = Checkpoints(workdir / "checkpoints", lambda: ())
    with contextlib.closing(checkpoints):
        return checkpoints.restore(lambda _: trainer.steps.abstract_state, print)


@pytest.fixture(scope="module")
def growing(make_trainer, config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("growing")
    fit(make_trainer(growing_config(config)), workdir)
    return workdir


def test_the_averages_accuracy_stands_beside_the_weights_own(growing):
    *epochs, _ = rows(growing)
    assert all({"ema_valid_loss", "ema_accuracy", "ema_top5_accuracy"} <= set(row) for row in epochs)
    assert epochs[-1]["ema_accuracy"] > 0.9


@pytest.mark.usefixtures("no_pictures")
def test_saving_within_an_epoch_changes_no_bit(make_trainer, config, unbroken, tmp_path):
    fit(make_trainer(dataclasses.replace(config, save_every=1)), tmp_path)
    assert figures(tmp_path) == figures(unbroken)
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    best = max(rows(tmp_path)[:-1], key=lambda row: row["accuracy"])["step"]
    assert kept == {17, 18, best}


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_run_is_left_as_it_is(make_trainer, config, unbroken):
    before = (unbroken / "metrics.jsonl").read_bytes()
    fit(make_trainer(config), unbroken)
    assert (unbroken / "metrics.jsonl").read_bytes() == before


def test_a_test_time_flip_is_named_wherever_its_accuracy_is(make_trainer, config, unbroken, tmp_path, capsys):
    trainer = make_trainer(dataclasses.replace(config, eval_flip=True))
    fit(trainer, tmp_path)
    assert "accuracies are with a test-time flip (eval_flip)" in capsys.readouterr().out
    assert rows(tmp_path)[-1]["eval_flip"] is True
    fit(trainer, tmp_path)
    assert re.search(
        r"already done, best accuracy [\d.]+, with a test-time flip \(eval_flip\)", capsys.readouterr().out
    )
    assert "eval_flip" not in rows(unbroken)[-1]


@pytest.mark.usefixtures("no_pictures")
def test_statistics_are_recalibrated_at_the_size_trained_at(make_trainer, config, monkeypatch, tmp_path):
    trainer, sizes = make_trainer(growing_config(config)), []

    def statistics_step_at(size):
        sizes.append(size)
        return trainer.steps.statistics_step_at(size)

    fit(trainer.with_steps(statistics_step_at=statistics_step_at), tmp_path)
    assert sizes == [8, 10, 12]


@pytest.mark.usefixtures("no_pictures")
def test_without_the_rows_of_its_past_it_goes_on_and_says_so(
    make_trainer, config, unbroken, tmp_path, monkeypatch, capsys
):
    trainer = make_trainer(config)
    with pytest.raises(Stopped):
        fit(signal_at(trainer, 13), tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(Stopped):
        fit(signal_at(trainer, 15), tmp_path)
    assert "metrics.jsonl has lost the rows of epochs 1, 2; the run goes on without them" in capsys.readouterr().out
    fit(trainer, tmp_path)
    *epochs, done = figures(tmp_path)
    *whole, whole_done = figures(unbroken)
    assert epochs == whole[2:]
    assert done["state_digest"] == whole_done["state_digest"]


@pytest.mark.usefixtures("no_pictures")
def test_an_epoch_of_skipped_steps_alone_has_no_loss(make_trainer, config, tmp_path, monkeypatch):
    trainer = make_trainer(config)
    fit(poisoned(trainer), tmp_path)
    assert [row["train_loss"] for row in rows(tmp_path)[:-1]] == [None] * 3
    assert [row["skipped_steps"] for row in rows(tmp_path)[:-1]] == [6, 12, 18]


def test_killed_before_its_last_row_it_writes_it(make_trainer, config, unbroken, tmp_path):
    trainer = make_trainer(config)
    fit(trainer, tmp_path)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    fit(trainer, tmp_path)
    assert figures(tmp_path) == figures(unbroken)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("saves", [0, 1])
def test_killed_between_a_row_and_its_checkpoint(make_trainer, config, unbroken, tmp_path, monkeypatch, saves):
    class Killed(BaseException):
        pass

    done = []

    def save(self, state):
        if len(done) == saves:
            raise Killed
        done.append(state.step)
        return whole_save(self, state)

    whole_save = Checkpoints.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save)
        with pytest.raises(Killed):
            fit(make_trainer(config), tmp_path)
    assert len(rows(tmp_path)) == saves + 1
    fit(make_trainer(config), tmp_path)
    assert figures(tmp_path) == figures(unbroken)


@pytest.mark.usefixtures("no_pictures")
def test_a_history_without_a_checkpoint_is_not_started_over(make_trainer, config, tmp_path):
    trainer = make_trainer(config)
    fit(trainer, tmp_path)
    for path in (tmp_path / "checkpoints").iterdir():
        path.rename(tmp_path / path.name)
    with pytest.raises(UserError, match="has metrics and no checkpoint"):
        fit(trainer, tmp_path)


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_run_of_one_epoch_without_checkpoints_is_not_started_over(make_trainer, config, tmp_path):
    trainer = make_trainer(dataclasses.replace(config, epochs=1))
    fit(trainer, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="has metrics and no checkpoint"):
        fit(trainer, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_it_gives_up_after_so_many_steps_that_are_not_finite(make_trainer, config, tmp_path, monkeypatch):
    trainer = make_trainer(dataclasses.replace(config, max_skipped_steps=4))
    with pytest.raises(Diverged, match="for 4 steps in a row"):
        fit(poisoned(trainer), tmp_path)
    assert list((tmp_path / "checkpoints").iterdir()) == []


SMALL = {"dataset": "fashion_mnist_sample", "image_size": "12", "store_size": "12", "model_options.padding": "2"}
SMALL |= {"optimizer": "adamw", "learning_rate": "1e-3", "batch_size": "1000", "max_skipped_steps": "3"}


def small(**changes: str) -> Config:
    """Two epochs of six steps: a small network on the bundled sample."""
    return load_config(LENET, {**SMALL, "epochs": "2", **changes})


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_learned_nothing_leaves_its_workdir_to_a_lower_rate(tmp_path):
    workdir = tmp_path / "run"
    with pytest.raises(Diverged, match="the same workdir begins a new run") as caught:
        run(small(learning_rate="1e30"), workdir)
    assert caught.value.kept == ()
    assert [path.name for path in workdir.iterdir()] == ["tensorboard"]  # TensorBoard still shows the run
    run(small(epochs="1"), workdir)
    assert [row["event"] for row in rows(workdir)] == ["epoch", "done"]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_diverged_keeps_what_it_learned_and_says_where_to_go_on(tmp_path):
    workdir = tmp_path / "run"
    (tmp_path / "run-2").mkdir()
    with pytest.raises(Diverged, match=f"--workdir={workdir}-3: this one keeps its checkpoint of step 1") as caught:
        run(small(learning_rate="1e30", save_every="1"), workdir)
    assert len(str(caught.value)) < 600
    assert caught.value.kept == (1,)
    assert (workdir / "checkpoints" / "1").is_dir()
    with pytest.raises(UserError, match="holds another run, with learning_rate"):
        run(small(save_every="1"), workdir)


@pytest.mark.usefixtures("no_pictures")
def test_in_a_thread_it_is_stopped_by_asking_and_goes_on(tmp_path, capsys):
    ended = []

    class StopAfterAnEpoch(Callback):
        def on_epoch_end(self, run, row):
            run.stop.ask("a test")

    def running() -> None:
        try:
            run(small(), str(tmp_path / "run"), [StopAfterAnEpoch()])
        except Stopped as stopped:
            ended.append(str(stopped))

    thread = threading.Thread(target=running)
    thread.start()
    thread.join()
    assert ended == ["a test"]
    run(small(), tmp_path / "run")
    assert [row["event"] for row in rows(tmp_path / "run")] == ["epoch", "epoch", "done"]
    out = capsys.readouterr().out
    assert re.search(r"lenet_bn \(padding=2\): [\d,]+ parameters, float32, on 1 CPU device of \d+ cores?\n", out)
    assert "fashion_mnist_sample 1.0.0: 6,000 training and 1,000 validation images, 12 px, grey, 10 classes\n" in out
    (best,) = re.findall(r"best accuracy ([\d.]+), in epoch [12] of 2; in .*run: curves\.png, .*\(steps .*12\)", out)
    assert float(best) == pytest.approx(rows(tmp_path / "run")[-1]["best_accuracy"], abs=1e-4)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_gives_its_classifier_and_its_curves_also_if_it_was_done_before(tmp_path):
    config = small(learning_rate="3e-2", ema_decay="0.5")
    finished = run(config, tmp_path / "run")
    for each in (finished, run(config, tmp_path / "run")):
        assert each.columns["epoch"] == [1, 2]
        assert each.columns["ema_accuracy"] == [row.ema_accuracy for row in finished.history]
        assert "f1" not in each.columns
        labels = [line.get_label() for line in each.plot().axes[1].lines]
        assert labels == ["top-1", "top-5", "top-1, EMA", f"best: epoch {finished.best.epoch}"]
        best = each.classifier()
        assert best.step == finished.best.step
        assert best.evaluate().accuracy == finished.best.accuracy
    last = finished.classifier("last", average=True)
    assert last.step == 12
    jax.tree.map(np.testing.assert_array_equal, last.variables["params"], finished.state.ema.params)
    with pytest.raises(UserError, match=r"checkpoint=7: .* has checkpoints 6, 12, best and last"):
        finished.classifier(7)


@pytest.mark.parametrize(
    ("config", "workdir", "message"),
    [
        ("configs/quickstart.py", "run", r"config=configs/quickstart\.py: must be a Config"),
        ({"epochs": 1}, "run", "config={'epochs': 1}: must be a Config"),
        (small(), "", "workdir=: must be the path of a directory"),
        (small(), None, "workdir=None: must be the path of a directory"),
        (small(), "~nobody-of-that-name/run", "workdir=~nobody-of-that-name/run: there is no such user"),
    ],
)
def test_a_call_with_something_else_is_a_users_mistake(tmp_path, monkeypatch, config, workdir, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        run(config, workdir)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (None, r"callbacks=None: must be a list of Callbacks; \[\] for none"),
        (Callback(), r"callbacks=<.*Callback object .*>: must be a list of Callbacks"),
        ([Callback], r"callbacks: <class .*Callback'>: write Callback\(\), which makes one"),
        ([Callback(), print], "callbacks: <built-in function print>: must be a Callback"),
    ],
)
def test_callbacks_that_are_none_are_a_users_mistake(tmp_path, callbacks, message):
    with pytest.raises(UserError, match=message):
        run(small(), tmp_path / "run", callbacks)
    assert list(tmp_path.iterdir()) == []


def test_what_a_user_should_know_of_the_steps_is_said(make_trainer, config):
    assert make_trainer(config).remarks() == []
    assert make_trainer(dataclasses.replace(config, freeze_epochs=1, batch_size=200)).remarks() == [
        "freeze_epochs=1: what is frozen is random, without weights=SOURCE",
        "an epoch has one step, of 200 of the 203 images; a smaller batch_size makes more",
    ]
    frozen = dataclasses.replace(config, freeze=("stem", "stage1"))
    assert make_trainer(frozen).remarks() == ["freeze=stem,stage1: what is frozen is random, without weights=SOURCE"]


def test_fewer_images_than_a_batch(make_trainer, config):
    with pytest.raises(UserError, match="batch_size=256: must be at most the 203 training images"):
        make_trainer(dataclasses.replace(config, batch_size=256))


class Watcher(Callback):
    """Records the calls that it gets, and asks the run to stop after a given step."""

    def __init__(self, stop_at: int | None = None):
        self.told: list[tuple] = []
        self.stop_at = stop_at

    def on_run_begin(self, run):
        self.told.append(("begin", int(run.state.step), len(run.history)))

    def on_epoch_begin(self, run, epoch):
        self.told.append(("epoch", epoch))

    def on_step_end(self, run, step, output):
        self.told.append(("step", step))
        assert np.isfinite(float(output.loss))
        if step == self.stop_at:
            run.stop.ask("a watcher")

    def on_evaluation_begin(self, run, batches):
        self.told.append(("evaluation", batches))

    def on_epoch_end(self, run, row):
        self.told.append(("row", row.epoch, run.history[-1] is row))

    def on_run_end(self, run):
        self.told.append(("end", run.best.epoch))

    def close(self):
        self.told.append(("closed",))


@pytest.mark.usefixtures("no_pictures")
def test_a_callback_sees_it_all_in_order_and_changes_nothing(make_trainer, config, unbroken, tmp_path):
    watcher = Watcher()
    done = fit(make_trainer(config), tmp_path, callbacks=[watcher])
    an_epoch = [[("epoch", e), *(("step", 6 * e - 5 + i) for i in range(6))] for e in (1, 2, 3)]
    expected = [("begin", 0, 0)]
    for epoch, told in enumerate(an_epoch, start=1):
        expected += [*told, ("evaluation", 7), ("row", epoch, True)]
    assert watcher.told == [*expected, ("end", done.best.epoch), ("closed",)]
    assert figures(tmp_path) == figures(unbroken)
    assert done.digest == rows(unbroken)[-1]["state_digest"]
    assert [row.accuracy for row in done.history] == [row["accuracy"] for row in rows(unbroken)[:-1]]
    assert int(done.state.step) == 18


@pytest.mark.usefixtures("no_pictures")
def test_a_callback_may_ask_for_a_stop(make_trainer, config, unbroken, tmp_path):
    watcher = Watcher(stop_at=9)
    with pytest.raises(Stopped, match="a watcher"):
        fit(make_trainer(config), tmp_path, callbacks=[watcher])
    assert watcher.told[-1] == ("closed",)
    fit(make_trainer(config), tmp_path)
    assert figures(tmp_path) == figures(unbroken)


class StopsAfterAnEpoch(Callback):
    """Asks for a stop when the first epoch has its row."""

    def on_epoch_end(self, run, row):
        run.stop.ask("a test")


@pytest.mark.usefixtures("no_pictures")
def test_numbers_left_to_the_data_are_recorded_and_the_same_streamed_and_resumed(tmp_path, capsys, monkeypatch):
    config = Config(
        model="lenet",
        dataset="fashion_mnist_sample",
        image_size=14,
        batch_size=1000,
        epochs=2,
        learning_rate=1e-3,
        sampler="balanced",
    )
    whole = run(config, tmp_path / "whole")
    train = whole.trainer.train.images.astype(np.float64) / 255
    words = f"10 classes, pixels of mean {train.mean():.3f} and std {train.std():.3f}"
    assert words in capsys.readouterr().out

    other = tmp_path / "other"
    with pytest.raises(Stopped):
        run(dataclasses.replace(config, images="streamed"), other, [StopsAfterAnEpoch()])
    recorded = [json.loads((workdir / "data.json").read_text()) for workdir in (tmp_path / "whole", other)]
    assert recorded[0]["mean"] == recorded[1]["mean"] == [pytest.approx(train.mean(), rel=1e-12)]
    assert recorded[0]["std"] == recorded[1]["std"] == [pytest.approx(train.std(), rel=1e-12)]
    assert recorded[0]["class_counts"] == {"train": [600] * 10, "validation": [100] * 10}
    assert recorded[0]["in_both"] == 0
    assert json.loads((other / "config.json").read_text())["mean"] is None

    # A run that resumes takes the recorded numbers.
    monkeypatch.setattr("flax_resnets.training.completion.pixel_statistics", lambda *_: pytest.fail("it computes them"))
    assert run(config, other).digest == whole.digest
