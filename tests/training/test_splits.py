"""Loading the images of a configuration."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.recipes import load_config
from flax_resnets.training.splits import load_split


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
