"""The same pictures, prepared by TFDS, in a folder, or in parquet files, train to the same bits."""

import csv
import dataclasses
import importlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from flax_resnets import cli
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.training import lr_find
from flax_resnets.training.lr_find import RangeTest
from flax_resnets.training.recipes import load_config
from flax_resnets.training.run_data import open_data, record_data
from flax_resnets.training.workdir import check_workdir, opened

RECIPE = """
from flax_resnets.training.config import Config

def get_config():
    return Config(
        model="lenet_bn", dataset="folder", image_size=28, batch_size=16, epochs=1, learning_rate=1e-2, flip=True,
        mean=(0.5,), std=(0.25,),
    )
"""
NAMES = ("bird", "cat", "dog")


class Picture(NamedTuple):
    name: str
    encoded: bytes
    label: int


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Picture]]:
    """JPEG pictures of several sizes, in an order that is neither that of the classes nor that of the names."""
    random = np.random.default_rng(0)

    def made(count: int) -> list[Picture]:
        found = []
        for number in random.permutation(count):
            label, buffer = int(random.integers(3)), io.BytesIO()
            pixels = random.integers(0, 100, (*random.integers(28, 40, 2), 3)) + 50 * label
            Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG")
            found.append(Picture(f"{NAMES[label]}/{number}.jpg", buffer.getvalue(), label))
        return found

    return {"train": made(70), "validation": made(20)}


def as_tfds(splits, make_set: Callable[..., Path]) -> Path:
    tfds = importlib.import_module("tensorflow_datasets")
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": tfds.features.ClassLabel(names=NAMES)}
    examples = {
        split: [[{"image": io.BytesIO(each.encoded), "label": each.label} for each in pictures]]
        for split, pictures in splits.items()
    }
    return make_set("my_pictures", features, examples).parents[1]


def as_folder(splits, root: Path, table: bool = True) -> Path:
    rows = []
    for split, pictures in splits.items():
        for each in pictures:
            path = root / split / each.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(each.encoded)
            rows.append((f"{split}/{each.name}", NAMES[each.label], split))
    if table:
        with (root / "images.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split"), *rows])
    return root


def as_parquet(splits, root: Path) -> Path:
    pa, pq = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    root.mkdir()
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": NAMES}}
    for split, pictures in splits.items():
        images = [{"bytes": each.encoded, "path": each.name} for each in pictures]
        columns = pa.table({"image": images, "label": [each.label for each in pictures]})
        described = columns.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(described, root / f"{split}-00000-of-00001.parquet", row_group_size=7)
    return root


@pytest.fixture
def kinds(splits, make_set, tmp_path) -> list[tuple[str, Path]]:
    """The dataset in three forms: names and directories."""
    return [
        ("my_pictures", as_tfds(splits, make_set)),
        ("folder", as_folder(splits, tmp_path / "folder")),
        ("parquet", as_parquet(splits, tmp_path / "parquet")),
    ]


def test_the_same_pixels_in_the_same_order(kinds):
    for split in ("train", "validation"):
        sources = [open_source(name, split, place) for name, place in kinds]
        (expected, *others) = [cached_images(source, size=28) for source in sources]
        for each in others:
            np.testing.assert_array_equal(each.images, expected.images)
            np.testing.assert_array_equal(each.labels, expected.labels)
        streamed = [StreamedImages(source, size=28).train_batches(8, 0, range(3)) for source in sources]
        for batches in zip(*streamed, strict=True):
            for each in batches[1:]:
                np.testing.assert_array_equal(each.images, batches[0].images)


def test_photos_are_turned_and_put_on_white(tmp_path):
    turned, transparent = io.BytesIO(), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(turned, "PNG", exif=exif)
    Image.new("RGBA", (12, 8), (9, 9, 9, 0)).save(transparent, "PNG")
    pictures = [Picture("a/1.png", turned.getvalue(), 0), Picture("b/2.png", transparent.getvalue(), 1)]
    splits = {"train": pictures, "validation": pictures}
    folder, parquet = as_folder(splits, tmp_path / "folder", table=False), as_parquet(splits, tmp_path / "parquet")
    for name, place in (("folder", folder), ("parquet", parquet)):
        source = open_source(name, "train", place)
        assert source.image(0).shape == (12, 8, 3)
        assert source.image(1).shape == (8, 12, 3)
        assert (source.image(1) == 255).all()


@pytest.fixture
def train(tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """A function that trains; returns the exit code, the last row and what was printed."""
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)

    def train(dataset: str, data_dir: Path, workdir: str, *others: str) -> tuple[int, dict[str, Any], str]:
        line = ["train", "--config=recipe.py", f"--config.dataset={dataset}", f"--config.data_dir={data_dir}"]
        code = cli.main([*line, f"--workdir={workdir}", *others])
        metrics = Path(workdir, "metrics.jsonl")
        rows = metrics.read_text().splitlines() if metrics.exists() else []
        captured = capsys.readouterr()
        return code, json.loads(rows[-1]) if rows else {}, " ".join((captured.out + captured.err).split())

    return train


def test_the_same_training(splits, make_set, tmp_path, train):
    (code, done, _), (other_code, other_done, printed) = (
        train("my_pictures", as_tfds(splits, make_set), "runs/tfds"),
        train("folder", as_folder(splits, tmp_path / "folder"), "runs/folder"),
    )
    assert (code, other_code) == (0, 0)
    assert other_done["state_digest"] == done["state_digest"]
    assert "70 training and 20 validation images, 28 px, colour, 3 classes" in printed


def test_a_run_notices_other_pictures(splits, tmp_path):
    def start() -> list[str]:
        said: list[str] = []
        check_workdir(config, workdir)
        _, _, found = open_data(config, workdir, said.append)
        with opened(config, workdir):
            record_data(found, workdir, 0, said.append)
        return said

    root, workdir = as_folder(splits, tmp_path / "folder", table=False), tmp_path / "run"
    shutil.rmtree(root / "validation" / "dog")
    (root / "train" / "cat" / "notes.txt").write_text("no picture")
    config = load_config("quickstart", {"dataset": "folder", "data_dir": str(root)})
    assert start() == [
        f"{root}/train: files left out, whose endings are no picture's ('.txt'): 1",
        f"{root}/validation: no pictures of the class 'dog', which training has",
    ]
    config = dataclasses.replace(config, data_dir=str(root.rename(tmp_path / "moved")))
    start()
    cats = tmp_path / "moved" / "train" / "cat"
    next(cats.glob("*.jpg")).rename(cats.with_name("dog") / "moved.jpg")
    with pytest.raises(UserError, match=r"its run trains on folder, but data_dir=.*/moved has other images or labels"):
        start()


def test_other_commands_take_a_folder(splits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.py").write_text(RECIPE)
    root = as_folder(splits, tmp_path / "folder", table=False)
    seen = []

    def search(model, config, train, **_):
        seen.append((model.num_classes, len(train)))
        losses = tuple(2.3 - 0.01 * step for step in range(40))
        return RangeTest(tuple(1e-5 * 1.1**step for step in range(40)), losses, losses, "end")

    monkeypatch.setattr(lr_find, "lr_find", search)  # it takes seconds
    data = ["--config=recipe.py", "--config.dataset=folder", f"--config.data_dir={root}"]
    assert cli.main(["lr-find", *data]) == 0
    assert seen == [(3, 70)]
    assert cli.main(["show-batch", *data, "--images=4"]) == 0
    assert Path("runs/recipe/show_batch/show_batch.png").exists()
    capsys.readouterr()
    (root / "train" / "dog" / "0.png").write_bytes(b"no picture")
    assert cli.main(["show-batch", *data]) == 2
    line = capsys.readouterr().err
    assert f"{root}/train/dog/0.png (class 'dog'): not a JPEG, PNG, GIF" in line
    assert line.count("\n") == 1


def test_no_workdir_is_left_by_a_folder_that_is_none(tmp_path, train):
    (tmp_path / "empty").mkdir()
    code, _, printed = train("folder", tmp_path / "empty", "runs/none")
    assert code == 2
    assert "has no directories with pictures; expected is a directory with train/" in printed
    assert not Path("runs").exists()
