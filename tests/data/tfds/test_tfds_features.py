"""The features that are taken for the image and the label, by `image_key`, `label_key` and `num_classes`."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from flax_resnets.data.source import dataset_metadata, open_source
from flax_resnets.errors import UserError
from flax_resnets.training.recipes import load_config

KINDS = tfds.features


def png(number: int) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(buffer, "PNG")
    return io.BytesIO(buffer.getvalue())


@pytest.fixture
def make(make_set, data_dir):
    """A function that makes a set of six images with these features, and opens it."""

    def make(features, example, **fields):
        make_set("my_images", features, {"train": [[example(number) for number in range(6)]]})
        metadata = dataset_metadata("my_images", data_dir, **fields)
        source = open_source("my_images", "train", data_dir, **fields)
        assert metadata == (source.num_classes, source.channels, source.multilabel)
        return source

    return make


def test_other_names(make):
    features = {
        "photo": KINDS.Image(shape=(4, 4, 3)),
        "image": KINDS.Image(shape=(None, None, 1)),
        "kind": KINDS.ClassLabel(names=["x", "y", "z"]),
        "label": KINDS.ClassLabel(num_classes=2),
    }

    def example(number):
        return {"photo": png(number), "image": png(99), "kind": number % 3, "label": 0}

    source = make(features, example, image_key="photo", label_key="kind")
    assert source.class_names == ("x", "y", "z")
    assert [(source.image(n)[0, 0, 0], source.label(n)) for n in range(6)] == [(n, n % 3) for n in range(6)]


def test_names_inside_another_feature(make):
    features = {
        "view/left": {"pixels": KINDS.Image(shape=(4, 4, 3)), "mask": KINDS.Image(shape=(4, 4, 3))},
        "about": {"kind": {"species": KINDS.ClassLabel(names=["cat", "dog"])}},
    }

    def example(number):
        return {
            "view/left": {"pixels": png(number), "mask": png(9)},
            "about": {"kind": {"species": number % 2}},
        }

    source = make(features, example, image_key="view/left/pixels", label_key="about/kind/species")
    assert [(source.image(n)[0, 0, 0], source.label(n)) for n in range(6)] == [(n, n % 2) for n in range(6)]


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_labels_that_are_numbers(make, kind):
    features = {"image": KINDS.Image(shape=(4, 4, 3)), "label": KINDS.Scalar(dtype=kind)}
    source = make(features, lambda number: {"image": png(number), "label": number % 4}, num_classes=4)
    assert source.class_names == ("0", "1", "2", "3")
    assert [source.label(number) for number in range(6)] == [0, 1, 2, 3, 0, 1]


SEVERAL = [[0, 2], [], [1], [2, 2, 1], [0], [0, 1, 2]]


@pytest.mark.parametrize("key", ["labels", "objects/kind"])
def test_several_labels_of_an_image(make, as_tfrecord, key):
    kind = KINDS.ClassLabel(names=["cat", "dog", "owl"])
    features = {
        "image": KINDS.Image(shape=(4, 4, 3)),
        "labels": KINDS.Sequence(kind),
        "objects": KINDS.Sequence({"kind": kind}),
    }

    def example(number):
        each = SEVERAL[number] if key == "labels" else []
        objects = [{"kind": number} for number in SEVERAL[number]] if key != "labels" else []
        return {"image": png(number), "labels": each, "objects": objects}

    source = make(features, example, label_key=key)
    assert source.multilabel
    assert source.class_names == ("cat", "dog", "owl")
    wanted = [[int(number in classes) for number in range(3)] for classes in SEVERAL]
    assert source.labels().tolist() == wanted
    assert source.label(3).tolist() == wanted[3]
    as_tfrecord(source.directory)
    again = open_source("my_images", "train", source.directory.parents[1], label_key=key)
    image, label = again[3]
    assert (image[0, 0, 0], label.tolist()) == (3, wanted[3])


def test_several_numbers_as_labels(make):
    features = {"image": KINDS.Image(shape=(4, 4, 3)), "label": KINDS.Sequence(np.int64)}
    source = make(features, lambda number: {"image": png(number), "label": SEVERAL[number]}, num_classes=3)
    assert source.labels().sum(0).tolist() == [3, 3, 3]
    source = open_source("my_images", "train", source.directory.parents[1], num_classes=2)
    with pytest.raises(UserError, match=r"image 0 in .*: the record is damaged \(label 2 is not in range\(2\)\)"):
        source.label(0)


def test_a_number_above_the_classes(make):
    features = {"image": KINDS.Image(shape=(4, 4, 3)), "label": KINDS.Scalar(dtype=np.int64)}
    source = make(features, lambda number: {"image": png(number), "label": number}, num_classes=4)
    with pytest.raises(UserError, match=r"image 5 in .*: label 5 is not in range\(4\)"):
        source.label(5)


def test_classes_that_the_dataset_does_not_count(make_set, data_dir):
    features = {"image": KINDS.Image(shape=(4, 4, 3)), "label": KINDS.ClassLabel(num_classes=3)}
    examples = [{"image": png(number), "label": number % 3} for number in range(6)]
    path = make_set("my_images", features, {"train": [examples]}) / "features.json"
    path.write_text(path.read_text().replace('"numClasses": "3"', ""))
    with pytest.raises(UserError, match=r"ClassLabel with no classes, .*--config.num_classes=N allows"):
        open_source("my_images", "train", data_dir)
    assert open_source("my_images", "train", data_dir, num_classes=3).class_names == ("0", "1", "2")


def test_another_number_of_classes_than_the_dataset_has(data_dir):
    for call in (dataset_metadata, lambda name, **fields: open_source(name, "train", **fields)):
        with pytest.raises(UserError, match="num_classes=11: fashion_mnist_sample has 10; leave the field out"):
            call("fashion_mnist_sample", num_classes=11)
        call("fashion_mnist_sample", num_classes=10)


@pytest.mark.parametrize("number", ["1", "0", "-3", "2.5", "9" * 30])
def test_numbers_of_classes_that_no_dataset_has(number):
    with pytest.raises(UserError, match="num_classes="):
        load_config("quickstart", {"num_classes": number})


IMAGE, LABEL = KINDS.Image(shape=(4, 4, 3)), KINDS.ClassLabel(num_classes=3)


@pytest.mark.parametrize(
    ("features", "fields", "message"),
    [
        ({"image": IMAGE, "kind": LABEL}, {}, "(there is 'kind'), --config.label_key=kind takes that one"),
        ({"photo": IMAGE, "label": LABEL}, {}, "(there is 'photo'), --config.image_key=photo takes that one"),
        ({"view": {"photo": IMAGE}, "label": LABEL}, {}, "--config.image_key=view/photo takes that one"),
        ({"image": IMAGE, "label": LABEL}, {"label_key": "labels"}, "the features 'image' and 'labels'; 'labels'"),
        ({"image": IMAGE, "label": LABEL}, {"label_key": "image"}, "'image' is Image of uint8 with 3 channels"),
        ({"image": IMAGE, "objects": KINDS.Sequence({"kind": KINDS.Text()})}, {"label_key": "objects/kind"},
         "'objects/kind' is Text inside a Sequence, must be a ClassLabel"),
        ({"image": IMAGE, "label": LABEL, "objects": KINDS.Sequence({"kinds": KINDS.Sequence(LABEL)})},
         {"label_key": "objects/kinds"}, "'objects/kinds' is Sequence of ClassLabel with 3 classes inside a Sequence"),
        ({"views": KINDS.Sequence({"image": IMAGE}), "label": LABEL}, {"image_key": "views/image"},
         "'views/image' is Image of uint8 with 3 channels inside a Sequence, must be an Image"),
        ({"image": IMAGE, "labels": KINDS.Sequence(LABEL)}, {}, "--config.label_key=labels takes that one"),
        ({"image": IMAGE, "label": KINDS.Scalar(dtype=np.int64)}, {},
         "'label' is Scalar of int64, must be a ClassLabel with at least 2 classes, or a Sequence of it; "
         "--config.num_classes=N allows"),
        ({"image": IMAGE, "label": KINDS.Scalar(dtype=np.float32)}, {"num_classes": 3}, "'label' is Scalar of float32"),
        ({"image": IMAGE, "label": KINDS.Text()}, {"num_classes": 3}, "'label' is Text, must be"),
        ({"image": KINDS.Image(shape=(4, 4, 4)), "label": LABEL}, {},
         "'image' is Image of uint8 with 4 channels, must be an Image of uint8 with 1 or 3 channels"),
        ({"image": KINDS.Image(shape=(4, 4, 1), dtype=np.uint16), "label": LABEL}, {}, "'image' is Image of uint16"),
        ({"image": KINDS.Image(shape=(4, 4, 1), dtype=np.float32), "label": LABEL}, {}, "'image' is Image of float32"),
        ({"image": KINDS.Tensor(shape=(4, 4, 3), dtype=np.uint8), "label": LABEL}, {},
         "'image' is Tensor of uint8, shape (4, 4, 3), must be an Image"),
    ],
)  # fmt: skip
def test_features_that_cannot_be_used(features, fields, message, make_set, data_dir):
    make_set("my_images", features, {"train": []})
    with pytest.raises(UserError) as caught:
        open_source("my_images", "train", data_dir, **fields)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_the_message_of_a_known_set_names_the_keys(data_dir):
    with pytest.raises(UserError, match=r"'angle_label'.*, --config\.label_key=angle_label takes that one"):
        open_source("coil100", "train", data_dir)
    assert json.dumps(dataset_metadata("coil100", data_dir, label_key="object_id")) == "[100, 3, false]"
