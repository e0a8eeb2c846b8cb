"""The command `predict`: rows in three forms, images that cannot be read, standard input, and output files."""

import csv
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets import Classifier, cli, create_model
from flax_resnets.cli import predict as command
from flax_resnets.data.source import open_source
from flax_resnets.inference.preprocess import Settings

NAMES = ("cat", "a very strange dog", "owl")


@pytest.fixture(scope="module")
def network() -> Classifier:
    """A network that was not trained, which the command finds wherever it is asked for one."""
    import jax

    settings = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.3,))
    model = create_model("lenet", num_classes=3)
    return Classifier(model, model.init(jax.random.key(0), np.zeros((1, 28, 28, 1))), settings, NAMES)


@pytest.fixture
def photos(network, tmp_path, monkeypatch) -> Path:
    """Three images and a broken one, in a working directory with nothing else."""
    monkeypatch.setattr(command, "load", lambda arguments: network)
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("b.png", "a.jpg", "c.png"):
        Image.fromarray(np.random.default_rng(ord(name[0])).integers(0, 256, (40, 30, 3)).astype(np.uint8)).save(
            f"photos/{name}"
        )
    Path("photos/broken.png").write_bytes(b"no image")
    return Path("photos")


def predict(*arguments: str) -> int:
    return cli.main(["predict", "runs/mine", *arguments])


def given(text: bytes, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


def test_a_row_for_each_image_with_its_classes(photos, network, capsys):
    assert predict("photos/a.jpg", "photos/b.png") == 0
    out, err = capsys.readouterr()
    first = out.splitlines()[0]
    assert first.startswith("photos/a.jpg  ")
    for prediction in network.predict("photos/a.jpg", 3, batch_size=2)[0]:
        assert f"{prediction.probability:.1%} {prediction.class_name}" in first
    assert len(out.splitlines()) == 2
    assert err == ""


def test_an_image_that_cannot_be_read_has_its_row_and_the_others_follow(photos, capsys):
    assert predict("photos", "missing.png", "photos/a.jpg", "--top-k", "1") == 1
    out, err = capsys.readouterr()
    names = [line.split()[0] for line in out.splitlines()]
    assert names == [*(f"photos/{name}" for name in ("a.jpg", "b.png", "broken.png", "c.png")), "missing.png", names[0]]
    assert "error: not a JPEG, PNG" in out.splitlines()[2]
    assert "error: no such file" in out.splitlines()[4]
    assert err == "flax_resnets: 2 of 6 images cannot be read; their rows say why\n"


def test_lines_of_json(photos, network, capsys):
    assert predict("photos", "--json", "--top-k", "2") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == [f"photos/{name}" for name in ("a.jpg", "b.png", "broken.png", "c.png")]
    (wanted,) = network.predict("photos/a.jpg", 2, batch_size=4)
    assert [each["class_name"] for each in rows[0]["predictions"]] == [each.class_name for each in wanted]
    assert rows[0]["predictions"][0]["probability"] == pytest.approx(wanted[0].probability, abs=1e-6)
    assert rows[2] == {"image": "photos/broken.png", "error": rows[2]["error"]}
    assert rows[2]["error"].startswith("not a JPEG")


def test_lines_of_csv(photos, capsys):
    assert predict("photos", "--csv", "--top-k", "2") == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["image"], row["rank"]) for row in rows[:3]] == [
        ("photos/a.jpg", "1"),
        ("photos/a.jpg", "2"),
        ("photos/b.png", "1"),
    ]
    assert len(rows) == 7
    assert rows[0]["class_name"] in NAMES
    assert rows[4]["error"].startswith("not a JPEG")


def test_paths_from_standard_input(photos, monkeypatch, capsys):
    given(b"photos/b.png\n\nphotos/a.jpg\r\nno\xff\x1b[2Jsuch.png\nphotos/c.png", monkeypatch)
    assert predict("-", "--top-k", "1") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["photos/b.png", "photos/a.jpg"]
    assert "error: no" in lines[2] or "error:" in lines[2]
    assert lines[2].isprintable()
    assert lines[3].startswith("photos/c.png")


def test_a_folder_without_images_has_a_row(photos, capsys):
    Path("empty").mkdir()
    assert predict("empty", "photos/a.jpg") == 1
    assert capsys.readouterr().out.startswith("empty  error: has no image in it")


def test_an_output_file_is_whole_and_never_replaced_unasked(photos, capsys, network, monkeypatch):
    assert predict("photos/a.jpg", "--json", "--output", "rows.json") == 0
    first = Path("rows.json").read_text()
    assert json.loads(first)["image"] == "photos/a.jpg"
    assert predict("photos/b.png", "--json", "--output", "rows.json") == 2
    assert "--output=rows.json: exists; name another file, or replace it with --force" in capsys.readouterr().err
    assert Path("rows.json").read_text() == first

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(network, "each_prediction", interrupted)
        assert predict("photos/b.png", "--output", "rows.json", "--force") == 130
    assert Path("rows.json").read_text() == first
    assert predict("photos/b.png", "--json", "--output", "rows.json", "--force") == 0
    assert json.loads(Path("rows.json").read_text())["image"] == "photos/b.png"
    assert sorted(os.listdir()) == ["photos", "rows.json"]


@pytest.mark.parametrize("path", ["photos", "no/such/rows.csv", ".", "/", "x" * 300, "a\0b"])
def test_an_output_that_cannot_be_written(photos, capsys, path):
    assert predict("photos/a.jpg", "--output", path) == 2
    line = capsys.readouterr().err
    assert line.startswith("flax_resnets: predict: --output=")
    assert line.count("\n") == 1


def test_thousands_of_images_take_the_memory_of_a_few(photos, monkeypatch, network):
    """What is decoded and not yet printed stays within a few steps."""
    alive = most = 0
    stored = network.preprocess.stored

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def counting(item):
        nonlocal alive, most
        image = stored(item).view(Counted)
        alive += 1
        most = max(most, alive)
        return image

    monkeypatch.setattr(network.preprocess, "stored", counting)
    given(b"photos/a.jpg\n" * 2000, monkeypatch)
    assert predict("-", "--batch-size", "16", "--output", "rows.txt") == 0
    assert len(Path("rows.txt").read_text().splitlines()) == 2000
    assert most < 16 * 8


def test_a_run_is_loaded_as_the_flags_say(tmp_path, monkeypatch, capsys):
    calls = []

    def load_classifier(source, **how):
        calls.append((source, how))
        raise cli.UserError("enough")

    monkeypatch.setattr("flax_resnets.inference.load.load_classifier", load_classifier)
    assert predict("a.png", "--checkpoint", "12", "--average", "--class-names", "x,y") == 2
    assert predict("a.png", "--checkpoint", "last") == 2
    assert calls[0] == ("runs/mine", {"checkpoint": 12, "average": True, "class_names": ("x", "y")})
    assert calls[1] == ("runs/mine", {"checkpoint": "last", "average": None, "class_names": None})


def test_a_run_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert predict("a.png", "--output", "rows.txt") == 2
    assert capsys.readouterr().err == (
        "flax_resnets: runs/mine: no such directory; name a run's workdir, a saved folder, hf-hub:owner/name "
        "or a name such as resnet50.a1_in1k\n"
    )
    assert os.listdir(tmp_path) == []


def test_the_samples_images_are_read_from_files(photos, network):
    source = open_source("fashion_mnist_sample", "validation")
    Path("shoe.png").write_bytes(source.encoded(0))
    assert predict("shoe.png", "--json", "--output", "row.json") == 0
    row = json.loads(Path("row.json").read_text())["predictions"][0]
    assert row["index"] == int(network.logits(source.image(0)).argmax())


def test_output_replaces_no_device_and_touches_no_file_beside_it(photos, capsys):
    os.mkfifo("pipe")
    assert predict("photos/a.jpg", "--output", "pipe", "--force") == 2
    assert "--output=pipe: is no name of a file" in capsys.readouterr().err
    Path("rows.csv.tmp").write_text("mine")
    assert predict("photos/a.jpg", "--csv", "--output", "rows.csv") == 0
    assert Path("rows.csv.tmp").read_text() == "mine"
    assert sorted(os.listdir()) == ["photos", "pipe", "rows.csv", "rows.csv.tmp"]
