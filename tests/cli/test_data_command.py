"""`python -m flax_resnets data`, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets import cli
from flax_resnets.data.source import open_source
from tests.data.pictures import picture


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def printed(capsys, *arguments: str) -> str:
    assert cli.main(["data", *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_the_bundled_sample_in_words_and_in_a_picture(capsys):
    first, *lines = printed(capsys, "fashion_mnist_sample", "--picture=classes.png").splitlines()
    assert first.startswith("fashion_mnist_sample 1.0.0 in ")
    assert first.endswith(": 10 classes, grey")
    cells = [line.split() for line in lines]
    for row in (
        ["split", "train", "test"],
        ["images", "6,000", "1,000"],
        ["longer", "side", "28", "px", "28", "px"],
        ["damaged", "not", "checked", "not", "checked"],
        ["T-shirt/top", "600", "100"],
        ["Ankle", "boot", "600", "100"],
    ):
        assert row in cells
    assert "mean 0.2876, std 0.3541, at 28 px (squash)" in lines
    assert lines[-1] == "classes.png"
    with Image.open("classes.png") as picture:
        assert picture.size == (960, 1450)
        assert np.asarray(picture.convert("L")).std() > 30, "there is something in it"


def test_the_same_as_json(capsys):
    report = json.loads(printed(capsys, "fashion_mnist_sample", "--json", "--config.store_size=14"))
    train = open_source("fashion_mnist_sample", "train")
    assert report["class_names"] == list(train.class_names)
    assert report["splits"]["train"]["class_counts"] == [600] * 10
    assert report["splits"]["validation"]["shorter_side"] == [28, 28, 28]
    assert (report["channels"], report["in_both"], report["remarks"]) == (1, 0, [])
    assert report["mean_at"] == {"size": 14, "resize": "squash"}
    assert len(report["mean"]) == len(report["std"]) == 1
    assert len(report["fingerprint"]) == 64


def test_damaged_images_are_found_with_check(capsys, damaged_data_dir):
    flags = ["my_images", f"--data_dir={damaged_data_dir}", "--json"]
    report = json.loads(printed(capsys, *flags, "--check"))
    broken = report["splits"]["train"]["broken"]
    assert broken
    assert all("my_images" in message for message in broken)
    assert report["splits"]["validation"]["broken"] == []
    assert sum(report["splits"]["train"]["class_counts"]) + len(broken) >= 6000
    (remark,) = json.loads(printed(capsys, *flags))["remarks"]
    assert remark == f"{len(broken)} of the 6,000 images read for mean and std are damaged; --check finds all"


def test_equal_images_are_named(capsys, tmp_path):
    for split, names in (("train", "abcdef"), ("val", "ab")):
        for number, name in enumerate(names):
            path = tmp_path / "photos" / split / ("cat", "dog")[number % 2] / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture({"c": 0, "e": 0}.get(name, number)))
    out = printed(capsys, "folder", "--data_dir=photos", "--check")
    assert "copies in train, byte by byte: cat/c.png = cat/a.png, cat/e.png = cat/a.png\n" in out
    assert "new images: val/cat/a.png = train/cat/a.png, val/dog/b.png = train/dog/b.png\n" in out
    assert json.loads(printed(capsys, "folder", "--data_dir=photos", "--json"))["splits"]["train"]["repeated"] == 2


def test_a_picture_is_overwritten_with_force_alone(capsys):
    Path("shown.png").write_bytes(b"mine")
    assert cli.main(["data", "fashion_mnist_sample", "--picture=shown.png"]) == 2
    assert "data: --picture=shown.png: is there already" in capsys.readouterr().err
    assert Path("shown.png").read_bytes() == b"mine"
    printed(capsys, "fashion_mnist_sample", "--picture=shown.png", "--force")
    assert Path("shown.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "data: the following arguments are required: dataset"),
        ("fashion_mnits", "dataset='fashion_mnits': TFDS has no such dataset"),
        ("fashion_mnist_sample --data_dir=/no/such", "data_dir='/no/such': no such directory"),
        ("fashion_mnist_sample --data_dir=", "data_dir=: must be a directory"),
        ("fashion_mnist_sample --config.epochs=3", "data: --config.epochs: no such field of a dataset"),
        (
            "fashion_mnist_sample --config.store_sise=3",
            "data: --config.store_sise: no such field of a dataset; did you",
        ),
        ("fashion_mnist_sample --config.store_size=0", "store_size=0: must be at least 1"),
        (
            "fashion_mnist_sample --picture=shown.jpg",
            "data: --picture=shown.jpg: must be a file whose name ends in .png",
        ),
        ("fashion_mnist_sample --picture=no/such/shown.png", "data: --picture=no/such/shown.png: no such directory"),
        ("fashion_mnist_sample --config.validation_split=nonsuch", "validation_split=nonsuch: "),
        ("fashion_mnist_sample --chekc", "data: --chekc: no such flag; did you mean --check?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, tmp_path, line, message):
    assert cli.main(["data", *line.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"flax_resnets: {message}")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
