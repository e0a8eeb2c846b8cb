"""The bundled sample: six thousand real images, without a download."""

from pathlib import Path

import numpy as np
import pytest

import flax_resnets.data
from flax_resnets.data.cache import cached_images
from flax_resnets.data.sample import make
from flax_resnets.data.source import Source, open_source

SAMPLE = Path(flax_resnets.data.__file__).parent / "sample"


@pytest.mark.parametrize(("split", "per_class"), [("train", 600), ("validation", 100)])
def test_each_class_has_as_many_images(split, per_class):
    data = cached_images(open_source("fashion_mnist_sample", split), size=28)
    np.testing.assert_array_equal(np.bincount(data.labels), [per_class] * 10)
    assert len(np.unique(data.images.reshape(len(data), -1), axis=0)) > 0.99 * len(data)


def test_classes_are_mixed():
    train = open_source("fashion_mnist_sample", "train")
    assert len({train.label(index) for index in range(100)}) == 10


def test_training_and_test_images_are_different_ones():
    train, test = (
        {source.encoded(index) for index in range(len(source))}
        for source in (open_source("fashion_mnist_sample", split) for split in ("train", "validation"))
    )
    assert not train & test


def test_it_is_small_carries_its_licence_and_no_ones_paths():
    files = [path for path in SAMPLE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 5e6
    assert "Copyright © 2017 Zalando SE, https://tech.zalando.com" in (SAMPLE / "LICENSE").read_text()
    info = (SAMPLE / "fashion_mnist_sample" / "1.0.0" / "dataset_info.json").read_text()
    assert '"/' not in info  # no absolute path


def records(source: Source) -> list[tuple[bytes, int]]:
    return [(source.encoded(index), source.label(index)) for index in range(len(source))]


def test_it_can_be_made_again_from_the_whole_set(prepared, tmp_path):
    """The sample itself stands in for the whole dataset. It has 600 images of each class, so all are taken."""
    whole = prepared / "fashion_mnist" / "3.0.1"
    whole.parent.mkdir()
    (prepared / "my_images" / "1.0.0").rename(whole)
    for path in whole.iterdir():
        path.rename(path.with_name(path.name.replace("my_images", "fashion_mnist")))
    info = whole / "dataset_info.json"
    info.write_text(info.read_text().replace("my_images", "fashion_mnist").replace('"1.0.0"', '"3.0.1"'))

    make.main(["--data_dir", str(prepared), "--output", str(tmp_path / "made")])
    made = open_source("fashion_mnist_sample", "train")
    assert sorted(records(made)) == sorted(records(open_source("fashion_mnist", "train", prepared)))
    assert sorted(path.name for path in (tmp_path / "made" / "fashion_mnist_sample" / "1.0.0").iterdir()) == sorted(
        path.name for path in (SAMPLE / "fashion_mnist_sample" / "1.0.0").iterdir()
    )
