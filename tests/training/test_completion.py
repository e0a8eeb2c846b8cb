"""A configuration gets numbers where it leaves them to the data."""

import dataclasses

import numpy as np
import pytest

from flax_resnets.data.cache import CachedImages
from flax_resnets.data.source import Source
from flax_resnets.data.statistics import PixelStatistics
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.training.completion import completed, placeholder
from flax_resnets.training.display import Display
from flax_resnets.training.trainer import Trainer


@pytest.fixture
def left(config):
    """A configuration that leaves mean and std to the data."""
    return dataclasses.replace(config, mean=None, std=None)


def test_one_that_leaves_nothing_stays_as_it_is(config, data):
    assert completed(config, data, 4) is config
    assert placeholder(config, 1, 4) is config


def test_the_steps_use_the_datas_mean_and_std(left, data):
    trainer = Trainer(dataclasses.replace(left, model="lenet", image_size=28), data, data, 4, Display(silent=True))
    pixels = data.images.astype(np.float64) / 255
    np.testing.assert_allclose(trainer.config.mean, [pixels.mean()], rtol=1e-12)
    np.testing.assert_allclose(trainer.config.std, [pixels.std()], rtol=1e-12)


def test_known_statistics_are_not_computed_again(left):
    nothing = CachedImages(np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int32))
    complete = completed(left, nothing, 4, statistics=PixelStatistics((0.1,), (0.2,)))
    assert (complete.mean, complete.std) == ((0.1,), (0.2,))


def test_imagenets_are_a_word(config, data):
    complete = completed(dataclasses.replace(config, mean="imagenet", std="imagenet"), data, 4)
    assert (complete.mean, complete.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_balanced_weights_come_from_the_training_labels(config):
    labels = np.array([0, 0, 0, 2], np.int32)
    train = CachedImages(np.zeros((4, 4, 4, 1), np.uint8), labels)
    assert completed(dataclasses.replace(config, class_weights="balanced"), train, 3).class_weights == (2 / 3, 0.0, 2.0)


def test_a_placeholder_needs_no_data(left):
    compiled = placeholder(dataclasses.replace(left, class_weights="balanced"), channels=3, num_classes=5)
    assert (len(compiled.mean), len(compiled.std), len(compiled.class_weights)) == (3, 3, 5)


class Damaged(Source):
    """A dataset whose labels are in its records, one of which cannot be read."""

    dataset, split, class_names, channels = "damaged", "train", ("cat", "dog"), 1

    def __len__(self):
        return 50

    def read(self, index):
        if index == 30:
            raise ValueError("bad checksum")
        return b"", index % 2

    def image_name(self, index):
        return f"record {index}"


@pytest.mark.parametrize("changes", [{"sampler": "balanced"}, {"class_weights": "balanced"}], ids=str)
def test_streamed_labels_are_read_before_the_run(config, changes, capsys):
    split = StreamedImages(Damaged(), 12)
    with pytest.raises(UserError, match="image 30 in record 30: the record is damaged"):
        completed(dataclasses.replace(config, **changes), split, 2, display=Display())
    assert capsys.readouterr().out == "reading 50 records for their labels, which balanced needs\n"
    assert completed(config, split, 2) is config
