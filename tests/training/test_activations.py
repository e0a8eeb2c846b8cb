"""The statistics of activations: equal to a computation by hand, and recorded without changing the run."""

import json
import shutil

import jax
import numpy as np
import pytest

from flax_resnets.errors import UserError
from flax_resnets.models.activations import LayerStatistics
from flax_resnets.training.activations import ActivationRow, RecordActivations, _line, read_activations
from flax_resnets.training.loop import Stopped, fit

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")


def digest(workdir) -> str:
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["state_digest"]


@pytest.fixture(scope="module")
def recorded(make_trainer, config, tmp_path_factory):
    """A run that records every second step; and its workdir."""
    workdir = tmp_path_factory.mktemp("runs") / "recorded"
    recorder = RecordActivations(every=2, images=50)
    return fit(make_trainer(config), workdir, callbacks=[recorder]), recorder, workdir


def test_the_run_computes_the_same_bits(recorded, make_trainer, config, tmp_path):
    fit(make_trainer(config), tmp_path / "plain")
    assert digest(recorded[2]) == digest(tmp_path / "plain")


def test_there_is_a_row_every_few_steps_and_at_the_end_of_each_epoch(recorded):
    _, recorder, workdir = recorded
    steps = [row.step for row in recorder.rows]
    assert steps[0] == 0
    assert {6, 12, 18} <= set(steps)
    assert steps == sorted(set(steps))
    assert len(steps) >= 7
    assert [list(row.layers) for row in recorder.rows] == [["stem", "stage1", "stage2", "head"]] * len(steps)
    assert read_activations(workdir / "activations.jsonl") == recorder.rows


def test_the_last_row_is_that_of_the_trained_network(recorded, data):
    run, recorder, _ = recorded
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    images = (data.images[:50].astype(np.float32) / 255 - 0.5) / 0.25
    layers = run.trainer.model.apply(jax.device_get(variables), images, method="layers")
    for name, found in recorder.rows[-1].layers.items():
        values = np.asarray(layers[name], np.float64)
        assert found == pytest.approx((values.mean(), values.std(), (np.abs(values) <= 0.05).mean()), abs=1e-3)


def test_a_run_that_resumes_goes_on_with_its_rows(recorded, make_trainer, config, tmp_path):
    class Stop(RecordActivations):
        def on_epoch_end(self, run, row):
            super().on_epoch_end(run, row)
            if row.epoch == 2:
                run.stop.ask()

    workdir = tmp_path / "stopped"
    with pytest.raises(Stopped):
        fit(make_trainer(config), workdir, callbacks=[Stop(images=50)])
    before = read_activations(workdir / "activations.jsonl")
    assert [row.step for row in before] == [0, 6, 12]
    with (workdir / "activations.jsonl").open("a") as file:  # as if it had been killed after a later step
        file.write(_line(before[-1]._replace(step=14)))
    fit(make_trainer(config), workdir, callbacks=[RecordActivations(images=50)])
    rows = read_activations(workdir / "activations.jsonl")
    assert rows[:3] == before
    assert [row.step for row in rows] == [0, 6, 12, 18]
    assert rows[-1].layers == recorded[1].rows[-1].layers
    assert digest(workdir) == digest(recorded[2])


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="every=-1: must be a whole number from 0 up"):
        RecordActivations(every=-1)
    (tmp_path / "activations.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match=r"activations\.jsonl:1: is no row of activations"):
        read_activations(tmp_path / "activations.jsonl")
    assert read_activations(tmp_path / "missing.jsonl") == []


def test_a_damaged_file_is_named_and_left_as_it_is(recorded, make_trainer, config, tmp_path):
    shutil.copytree(recorded[2], tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(
        "".join((recorded[2] / "metrics.jsonl").read_text().splitlines(keepends=True)[:2])
    )
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "18")
    (tmp_path / "run" / "activations.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UserError, match=r"activations\.jsonl:1: is no row of activations"):
        fit(make_trainer(config), tmp_path / "run", callbacks=[RecordActivations(every=2)])
    assert (tmp_path / "run" / "activations.jsonl").read_text() == '{"step": 1}\n'


def test_what_is_not_a_number_can_be_written(tmp_path):
    line = _line(ActivationRow(3, {"head": LayerStatistics(float("nan"), 1.0, 0.0)}))
    json.loads(line, parse_constant=pytest.fail)
    (tmp_path / "a.jsonl").write_text(line)
    ((step, layers),) = read_activations(tmp_path / "a.jsonl")
    assert step == 3
    assert np.isnan(layers["head"].mean)
    assert layers["head"].std == 1
