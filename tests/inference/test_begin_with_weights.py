"""Runs that begin with the weights of another run, from beginning to end."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_resnets import load_classifier
from flax_resnets.errors import UserError
from flax_resnets.training import Callback, run
from flax_resnets.training.config import Config
from flax_resnets.training.interruption import Interruption, Stopped


@pytest.fixture(scope="module")
def second(config) -> Config:
    """Two more epochs of the same network; mean and std are left to the weights."""
    return dataclasses.replace(config, mean=None, std=None, epochs=2, ema_decay=None, eval_flip=False)


class StopAt(Callback):
    """Stops a run after a step."""

    def __init__(self, step: int):
        self.step, self.stop = step, Interruption()

    def on_step_end(self, run, step, output):
        if step == self.step:
            self.stop.ask("the test")


@pytest.fixture(scope="module")
def source(trained, tmp_path_factory) -> Path:
    """A copy of the first run, which a test may take away."""
    return Path(shutil.copytree(trained, tmp_path_factory.mktemp("source") / "first"))


@pytest.fixture(scope="module")
def begun(second, source, tmp_path_factory) -> Path:
    """The second run, stopped in its second epoch; after that its source is gone, and it went on to its end."""
    workdir = tmp_path_factory.mktemp("begun") / "second"
    config = dataclasses.replace(second, weights=str(source))
    stop = StopAt(6)
    with pytest.raises(Stopped):
        run(config, workdir, [stop], stop=stop.stop)
    shutil.move(source, source.with_name("moved"))
    source.mkdir()
    (source / "data.json").write_text("{")  # nobody reads what lies there now
    run(config, workdir)
    shutil.rmtree(source)
    shutil.move(source.with_name("moved"), source)
    return workdir


def done(workdir: Path) -> dict:
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])


def test_it_resumes_to_the_bit_without_the_source(begun, second, source, tmp_path, capsys):
    unbroken = run(dataclasses.replace(second, weights=str(source)), tmp_path / "run")
    assert unbroken.digest == done(begun)["state_digest"]
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    step = done(source)["best_step"]
    assert f"weights={source}: 26 tensors of step {step}; with their head, which is for these classes" in printed
    assert "mean=0.286 and std=0.353 come with the weights" in printed


def test_its_lineage_is_in_the_workdir(begun, source):
    lineage = json.loads((begun / "lineage.json").read_text())
    assert lineage.pop("digest")
    assert lineage == {
        "weights": str(source),
        "head": "kept",
        "step": done(source)["best_step"],
        "state_digest": done(source)["state_digest"],
        "mean": [0.286],
        "std": [0.353],
    }
    assert "mean" not in json.loads((begun / "data.json").read_text())


def test_it_begins_where_the_first_run_ended(begun, source):
    first, second = (
        [json.loads(line).get("train_loss") for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        for workdir in (source, begun)
    )
    assert second[0] < first[0]


def test_its_classifier_normalises_as_the_weights_were_trained(begun):
    settings = load_classifier(begun).settings
    assert (settings.mean, settings.std) == ((0.286,), (0.353,))


def test_other_weights_are_another_run(begun, second, tmp_path):
    for weights in (None, str(tmp_path)):
        with pytest.raises(UserError, match="holds another run, with weights="):
            run(dataclasses.replace(second, weights=weights), begun)


def test_a_source_that_has_changed_is_not_taken_for_the_first_one(begun, second, source, tmp_path):
    """A run killed before its first checkpoint is complete begins anew: from the same weights, or not at all."""
    workdir = Path(shutil.copytree(begun, tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints")
    first_row = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)[0]
    (workdir / "metrics.jsonl").write_text(first_row)
    record = json.loads((workdir / "lineage.json").read_text())
    (workdir / "lineage.json").write_text(json.dumps(record | {"digest": "0" * 64}))
    with pytest.raises(UserError, match=r"weights=.*: has changed since the run in .* began"):
        run(dataclasses.replace(second, weights=str(source)), workdir)


def test_a_saved_folder_is_a_source_too(trained, second, tmp_path):
    classifier = load_classifier(trained)
    classifier.save(tmp_path / "saved")
    stop = StopAt(1)
    with pytest.raises(Stopped):
        run(dataclasses.replace(second, weights=str(tmp_path / "saved")), tmp_path / "run", [stop], stop=stop.stop)
    lineage = json.loads((tmp_path / "run" / "lineage.json").read_text())
    assert (lineage["head"], lineage["mean"], lineage["step"]) == ("kept", [0.286], None)
    # One or two steps at the schedule's first rates change the weights little.
    with pytest.warns(RuntimeWarning, match="has no row of an epoch"):
        ours = load_classifier(tmp_path / "run").variables["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.05), ours, classifier.variables["params"])
