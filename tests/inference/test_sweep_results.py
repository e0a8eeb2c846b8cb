"""The table and the picture of a sweep for several kinds of fields; half of its runs may be missing."""

import csv
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from flax_resnets.errors import UserError
from flax_resnets.inference.sweep_results import read_results
from flax_resnets.training.recipes import load_config
from flax_resnets.training.sweep import axis, points

ROW = {"event": "epoch", "epoch": 1, "step": 93, "train_loss": 1.0, "valid_loss": None, "seconds": 2.0}
ROW |= {"images_per_second": 50.0, "skipped_steps": 0}


def swept(directory: Path, over: list[str], number: int | None = None, figures: str = "accuracy top5_accuracy"):
    found = points(load_config("quickstart"), [axis(each) for each in over], number)
    for place, point in enumerate(found[:-1]):
        workdir = directory / point.name
        workdir.mkdir(parents=True)
        (workdir / "config.json").write_text(point.config.to_json())
        row = ROW | {"accuracy": 0.5 + place / 100} | dict.fromkeys(figures.split(), 0.5 + place / 100)
        done = {"event": "done", "best_accuracy": 0.5, "state_digest": "a"}
        (workdir / "metrics.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(done) + "\n")
    return read_results(directory, found)


@pytest.mark.parametrize(
    ("over", "number", "width"),
    [
        (["seed=0,1,2"], None, 500),
        (["learning_rate=0.001,0.01", "optimizer=sgd,adamw", "seed=0,1"], None, 940),
        (["learning_rate=log:1e-3:1e-1", "flip=true,false", "momentum=0.9,0.9;0.95,0.85"], 4, 1380),
    ],
)
def test_every_kind_of_field_is_drawn(tmp_path, over, number, width):
    results = swept(tmp_path, over, number)
    header, rows = results.table()
    assert all(len(row) == len(header) for row in rows)
    assert Image.open(io.BytesIO(results.picture())).width == width
    assert json.loads(json.dumps(results.as_dict(), allow_nan=False))["runs"][-1]["state"] == "not begun"
    assert len(results.as_csv().splitlines()) == len(results.outcomes) + 1


def test_the_best_has_all_its_seeds(tmp_path):
    results = swept(tmp_path, ["learning_rate=0.001,0.003,0.01", "seed=0,1"])
    assert results.best is not None
    assert results.best.values == {"learning_rate": 0.003}  # the last one lacks a seed
    assert [row[-1] for row in results.table()[1]] == ["", "best", "1 not begun"]


def test_with_several_labels_an_image_the_best_has_the_highest_precision(tmp_path):
    results = swept(tmp_path, ["seed=0,1,2"], figures="mean_average_precision f1")
    assert [each.score for each in results.outcomes] == [0.5, 0.51, None]


def test_with_several_labels_an_image_the_tables_have_the_precision(tmp_path):
    results = swept(tmp_path, ["seed=0,1,2"], figures="mean_average_precision f1")
    header, (row,) = results.table()
    assert dict(zip(header, row, strict=True))["mAP"] == "50.50 ± 0.71"
    assert results.as_dict()["settings"][0]["mean_average_precision_mean"] == pytest.approx(0.505)
    first, *_, last = csv.DictReader(results.as_csv().splitlines())
    assert (first["mean_average_precision"], first["f1"], last["f1"]) == ("0.5", "0.5", "")


def test_finished_epochs_are_told_from_those_that_are_swept(tmp_path):
    results = swept(tmp_path, ["epochs=2,3"])
    header = results.as_csv().splitlines()[0].split(",")
    assert len(set(header)) == len(header)
    first, last = csv.DictReader(results.as_csv().splitlines())
    assert (first["epochs"], first["finished_epochs"], last["epochs"], last["finished_epochs"]) == ("2", "1", "3", "")


def test_a_saved_folder_in_place_of_a_run(tmp_path):
    results = swept(tmp_path, ["seed=0,1"])
    path = tmp_path / results.outcomes[0].point.name
    (path / "config.json").write_text('{"architecture": "lenet", "model": "lenet", "dataset": "x"}')
    with pytest.raises(UserError, match="is a saved folder"):
        read_results(tmp_path, [each.point for each in results.outcomes])
