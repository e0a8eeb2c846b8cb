"""Loading the images that a configuration names."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from flax_resnets.data.cache import CachedImages
from flax_resnets.data.tfds import SAMPLE, SAMPLE_DIR
from flax_resnets.errors import UserError
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.loop import run
from flax_resnets.training.recipes import load_config
from flax_resnets.training.splits import load_images, load_split, open_split


@pytest.fixture
def config() -> Config:
    return load_config(Path(__file__).parents[2] / "configs" / "quickstart.py")


def test_cached_and_streamed_are_the_same_images(config):
    batches = []
    for images in ("cached", "streamed"):
        split, classes = load_split(dataclasses.replace(config, images=images), "train", Display(silent=True))
        assert (len(split), split.channels, classes) == (6000, 1, 10)
        batches.append(next(split.train_batches(64, 0, range(7, 8))))
    np.testing.assert_array_equal(batches[0].images, batches[1].images)
    np.testing.assert_array_equal(batches[0].labels, batches[1].labels)


def sample_without(split: str, data_dir: Path) -> None:
    """Makes `my_images`: the bundled sample under another name, without one of its splits."""
    original = SAMPLE_DIR / SAMPLE / "1.0.0"
    copy = data_dir / "my_images" / "1.0.0"
    copy.mkdir(parents=True)
    for path in original.iterdir():
        shutil.copyfile(path, copy / path.name.replace(SAMPLE, "my_images"))
    info = json.loads((copy / "dataset_info.json").read_text())
    info["name"] = "my_images"
    info["splits"] = [each for each in info["splits"] if each["name"] != split]
    (copy / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    ("lacking", "changes", "message"),
    [
        ("test", {}, "has no validation split, only train; needs 'validation' or 'test'"),
        ("train", {}, "has no train split, only test; needs 'train'"),
        ("none", {"batch_size": 6001}, "batch_size=6001: must be at most the 6000 training images"),
        ("none", {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}, "mean: has 3 values; my_images has 1 channels"),
    ],
)
def test_what_is_known_beforehand_is_found_before_anything_is_decoded(
    config, lacking, changes, message, tmp_path, monkeypatch
):
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "cache"))
    sample_without(lacking, tmp_path / "data")
    config = dataclasses.replace(config, dataset="my_images", data_dir=str(tmp_path / "data"), **changes)
    with pytest.raises(UserError, match=message):
        run(config, tmp_path / "workdir")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_channels_are_compared_before_anything_is_downloaded(config, tmp_path, monkeypatch):
    """imagenette has colour images, whether it is prepared or not."""
    monkeypatch.setattr("flax_resnets.training.splits.source.open_split", lambda *_: pytest.fail("it is opened"))
    config = dataclasses.replace(
        config, dataset="imagenette/160px-v2", data_dir=str(tmp_path), mean=(0.1, 0.2), std=(1, 1)
    )
    with pytest.raises(UserError, match="mean: has 2 values; imagenette/160px-v2 has 3 channels"):
        open_split(config, "train")


def test_a_mean_for_each_channel(config):
    config = dataclasses.replace(config, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    with pytest.raises(UserError, match="mean: has 3 values; fashion_mnist_sample has 1 channels"):
        load_split(config, "train", Display(silent=True))


def test_broken_images_that_are_left_out_are_counted_and_named(config, damaged_data_dir, capsys):
    config = dataclasses.replace(config, dataset="my_images", data_dir=str(damaged_data_dir), broken_images="skip")
    split, _ = load_split(config, "train", Display())
    left_out = 6000 - len(split)
    assert left_out > 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"my_images train: {left_out} of 6000 images are broken and left out; the first: " in said
    load_images(config, open_split(config, "train"), Display(), Path("runs/my/broken_images.txt"))
    assert capsys.readouterr().out.strip().endswith("; all in runs/my/broken_images.txt")


def test_a_run_lists_the_images_it_leaves_out(config, damaged_data_dir, tmp_path, monkeypatch):
    config = dataclasses.replace(config, dataset="my_images", data_dir=str(damaged_data_dir), broken_images="skip")
    split, _ = load_split(config, "train", Display(silent=True))
    assert isinstance(split, CachedImages)
    monkeypatch.setattr("flax_resnets.training.loop.fit", lambda *_: None)
    run(config, tmp_path / "workdir")
    assert (tmp_path / "workdir" / "broken_images.txt").read_text().splitlines() == list(split.broken)


def test_one_that_turns_out_to_be_impossible_leaves_no_list_either(config, damaged_data_dir, tmp_path, monkeypatch):
    def impossible(*_):
        raise UserError("more than memory holds")

    config = dataclasses.replace(config, dataset="my_images", data_dir=str(damaged_data_dir), broken_images="skip")
    monkeypatch.setattr("flax_resnets.training.loop.fit", impossible)
    with pytest.raises(UserError, match="more than memory holds"):
        run(config, tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()
