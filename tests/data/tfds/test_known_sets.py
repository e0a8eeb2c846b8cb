"""Well-known datasets: TFDS's own builders prepare them without TensorFlow, and they are opened and trained on."""

import json

import numpy as np
import pytest
from small_archives import picture

from flax_resnets import cli
from flax_resnets.data.source import dataset_metadata, open_source

HALVES = {"train_split": "train[:60%]", "validation_split": "train[60%:]"}
# Dataset, the fields it needs, numbers of classes, of training and of validation images.
SETS = [
    ("cats_vs_dogs", HALVES, 2, 14, 10),
    ("tf_flowers", {"validation_share": 0.2}, 5, 20, 5),
    ("oxford_iiit_pet", {}, 37, 10, 6),
    ("oxford_iiit_pet", {"label_key": "species"}, 2, 10, 6),
    ("cifar100", {}, 100, 20, 8),
    ("cifar100", {"label_key": "coarse_label"}, 20, 20, 8),
    ("eurosat", {"validation_share": 0.5}, 10, 4, 4),
    ("imagenet2012", {}, 1000, 16, 6),
]
IDS = [f"{name}-{'-'.join(fields)}".strip("-") for name, fields, *_ in SETS]


@pytest.mark.parametrize(("dataset", "fields", "classes", "train", "validation"), SETS, ids=IDS)
def test_it_is_prepared_and_opened(archives_of, as_tfrecord, data_dir, dataset, fields, classes, train, validation):
    archives_of(dataset)
    assert dataset_metadata(dataset, data_dir, **fields) == (classes, 3, False)
    first = open_source(dataset, "train", data_dir, **fields)
    if dataset == "imagenet2012":  # which most people have in this format
        as_tfrecord(first.directory)
    for split, count in {"train": train, "validation": validation}.items():
        source = open_source(dataset, split, data_dir, **fields)
        assert (len(source), source.num_classes) == (count, classes)
        for index in range(count):
            image, label = source[index]
            assert image.shape[2] == 3
            assert 0 <= label < classes
            if split == "train":
                assert (source.encoded(index), label) == (first.encoded(index), first.label(index))


def test_the_label_is_the_one_that_is_asked_for(archives_of, data_dir):
    archives_of("cifar100")
    fine = open_source("cifar100", "train", data_dir)
    coarse = open_source("cifar100", "train", data_dir, label_key="coarse_label")
    assert sorted(map(fine.label, range(20))) == sorted(map(coarse.label, range(20))) == list(range(20))
    assert (fine.class_names[0], coarse.class_names[0]) == ("fine 0", "coarse 0")
    assert fine.encoded(3) == coarse.encoded(3)
    assert fine.fingerprint != coarse.fingerprint
    assert fine.cache_key != coarse.cache_key  # the labels are in the cache too


def test_images_that_a_builder_encodes_anew_look_the_same(archives_of, data_dir):
    archives_of("cats_vs_dogs")
    source = open_source("cats_vs_dogs", "train", data_dir)
    names = {source.image_name(index).rpartition("PetImages/")[2]: index for index in range(len(source))}
    for number in range(12):
        image = source.image(names[f"Cat/{number}.jpg'"])
        assert abs(image.mean() - picture(number, 20, 24, 3).mean()) < 3
        assert image.shape == (20, 24, 3)


def test_a_jpeg_that_is_a_png_with_transparency(archives_of, data_dir):
    archives_of("oxford_iiit_pet")
    source = open_source("oxford_iiit_pet", "train", data_dir)
    (index,) = [index for index in range(10) if source.class_names[source.label(index)] == "beagle"]
    assert source.encoded(index)[:2] == b"\xff\xd8"
    np.testing.assert_allclose(source.image(index).mean(), picture(0, 20, 24, 4)[..., :3].mean(), atol=3)


def small(dataset: str, data_dir, workdir) -> list[str]:
    return [
        *("train", "--config", "quickstart", f"--workdir={workdir}", f"--config.dataset={dataset}"),
        *(f"--config.data_dir={data_dir}", "--config.model_options.width=4", "--config.image_size=16"),
        *("--config.mean=0.5", "--config.std=0.25", "--config.batch_size=4", "--config.epochs=1"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "fields", "classes", "train", "validation"), SETS, ids=IDS)
def test_it_is_trained_on(archives_of, as_tfrecord, data_dir, tmp_path, dataset, fields, classes, train, validation):
    archives_of(dataset)
    if dataset == "imagenet2012":
        as_tfrecord(open_source(dataset, "train", data_dir).directory)
    arguments = small(dataset, data_dir, tmp_path / "run")
    assert cli.main([*arguments, *(f"--config.{name}={value}" for name, value in fields.items())]) == 0
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert (data["counts"], len(data["class_names"])) == ({"train": train, "validation": validation}, classes)
