"""Classifier.evaluate: the figures of the run, sets with other classes, test-time augmentation, broken images."""

import dataclasses
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from flax_resnets import Classifier, load_classifier
from flax_resnets.data.identity import identity_of
from flax_resnets.data.source import Source, open_split
from flax_resnets.errors import UserError
from flax_resnets.inference.evaluate import five_crops
from flax_resnets.inference.explain import class_number


@pytest.fixture(scope="module")
def classifier(trained):
    return load_classifier(trained)


class Renamed(Source):
    """The validation split with other class names, in another order."""

    def __init__(self, source: Source, names: tuple[str, ...], order: list[int]):
        self._source, self.class_names, self._order = source, names, order
        for name in ("dataset", "split", "version", "channels", "image_shape", "directory", "fingerprint"):
            setattr(self, name, getattr(source, name))
        self.cache_key = f"renamed {names}"

    def __len__(self):
        return len(self._source)

    def read(self, index):
        encoded, label = self._source.read(index)
        return encoded, self._order.index(label)

    def image_name(self, index):
        return self._source.image_name(index)


def test_the_figures_are_those_of_the_run_to_the_last_digit(trained, classifier):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    best = next(row for row in rows if row.get("step") == rows[-1]["best_step"])
    evaluation = classifier.evaluate()
    assert evaluation.accuracy == best["accuracy"]
    assert evaluation.top5_accuracy == best["top5_accuracy"]
    assert evaluation.loss == best["valid_loss"]
    assert evaluation.tta == "flip"
    assert evaluation.dataset == "fashion_mnist_sample 1.0.0, test"


def test_it_says_if_the_data_are_no_longer_the_runs(trained, tmp_path):
    for name in ("config.json", "data.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    (tmp_path / "checkpoints").symlink_to(trained / "checkpoints")
    record = json.loads((tmp_path / "data.json").read_text())
    (tmp_path / "data.json").write_text(json.dumps(record | {"fingerprint": "0" * 64}))
    with pytest.warns(RuntimeWarning, match=r"is not what the run was trained on: it has other images or labels"):
        load_classifier(tmp_path).evaluate()
    with pytest.warns(RuntimeWarning, match="may have been trained on some of these images"):
        load_classifier(tmp_path).evaluate("fashion_mnist_sample", "train")


@pytest.fixture
def folder(validation, tmp_path) -> Path:
    """100 labelled pictures: a directory for each class, and no splits."""
    for index in range(100):
        name = validation.class_names[validation.label(index)].replace("/", " or ")
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name / f"{index}.png").write_bytes(validation.encoded(index))
    return tmp_path / "photos"


@pytest.fixture
def of_folders(classifier, validation) -> Classifier:
    """A classifier whose classes have names that directories can have."""
    names = [name.replace("/", " or ") for name in validation.class_names]
    return Classifier(classifier.model, classifier.variables, classifier.settings, names)


def test_another_folder_without_splits_is_evaluated_whole(classifier, of_folders, folder):
    whole = of_folders.evaluate("folder", data_dir=str(folder))
    first = classifier.evaluate()
    assert whole.accuracy == (first.logits[:100].argmax(1) == first.labels[:100]).mean()
    assert (whole.images, whole.dataset) == (100, "folder, all")
    assert of_folders.evaluate("folder", "all", data_dir=folder).accuracy == whole.accuracy
    share = of_folders.evaluate("folder", "validation", data_dir=folder)
    assert (share.images, share.dataset) == (21, "folder, 0.2 of all by seed 0")
    assert of_folders.evaluate("folder", data_dir=folder, validation_share=0.4).images == 40
    (folder / "train").mkdir()
    for name in sorted(each.name for each in folder.iterdir() if each.name != "train"):
        (folder / name).rename(folder / "train" / name)
    (folder / "val").symlink_to(folder / "train")
    assert of_folders.evaluate("folder", data_dir=folder).dataset == "folder, val"
    with pytest.raises(UserError, match=r"^split='all': .*photos has the splits 'train' and 'val'; name one of them"):
        of_folders.evaluate("folder", "all", data_dir=folder)


def test_the_folder_of_the_run_is_evaluated_on_what_it_did_not_see(of_folders, folder):
    settings = dataclasses.replace(of_folders.settings, dataset="folder", data_dir=str(folder), train_split=None)
    data = identity_of(open_split(settings, "train"), open_split(settings, "validation"))
    known = Classifier(of_folders.model, of_folders.variables, settings, of_folders.class_names, identity=data)
    assert known.evaluate().images == known.evaluate(data_dir=folder).images == 21
    with pytest.warns(RuntimeWarning, match="was trained on most of these images"):
        assert known.evaluate(split="all").images == 100
    # The saved network has no record of its data. A folder of the same kind may be the run's.
    saved = Classifier(of_folders.model, of_folders.variables, settings, of_folders.class_names)
    assert saved.evaluate(data_dir=folder).images == 21
    next(folder.glob("*/*.png")).unlink()
    with pytest.warns(RuntimeWarning, match="is not what the run was trained on"):
        assert known.evaluate().images < 30
    with pytest.warns(RuntimeWarning, match="has other images than the run was trained on; all 99 are evaluated"):
        assert known.evaluate(data_dir=folder).images == 99


def test_all_of_a_tfds_dataset_is_every_split(classifier, validation):
    with pytest.warns(RuntimeWarning, match="was trained on most of these images"):
        assert classifier.evaluate(split="all", batch_size=1000).images == 7000


def test_logits_are_those_of_predict(classifier, files):
    evaluation = classifier.evaluate("fashion_mnist_sample")
    np.testing.assert_array_equal(evaluation.logits[:250], classifier.logits(files[:250], batch_size=250))


def test_streamed_images_give_the_same(classifier):
    evaluation, streamed = classifier.evaluate(), classifier.evaluate(images="streamed", broken_images="skip")
    np.testing.assert_array_equal(streamed.logits, evaluation.logits)
    np.testing.assert_array_equal(streamed.labels, evaluation.labels)


def test_the_crop_of_timms_weights_is_that_of_predict(classifier, files):
    """Training's cache has no `shorter_side`, also where the filter is training's."""
    settings = dataclasses.replace(classifier.settings, shorter_side=32, resize="crop", crop_pct=1.0)
    cropped = Classifier(classifier.model, classifier.variables, settings, classifier.class_names)
    logits = cropped.evaluate(batch_size=250).logits
    np.testing.assert_array_equal(logits[:250], cropped.logits(files[:250], batch_size=250))


def test_any_batch_size_counts_every_image_once(classifier):
    evaluation = classifier.evaluate(batch_size=333)
    assert evaluation.images == 1000
    assert evaluation.loss == pytest.approx(classifier.evaluate().loss, rel=1e-5)


def test_classes_are_found_by_their_names(classifier, validation):
    order = [3, 1, 2, 0, 4, 5, 6, 7, 8, 9]
    renamed = Renamed(validation, tuple(validation.class_names[i] for i in order), order)
    evaluation, other = classifier.evaluate(), classifier.evaluate(renamed)
    np.testing.assert_array_equal(other.labels, evaluation.labels)
    assert other.accuracy == evaluation.accuracy


def test_a_class_that_the_classifier_does_not_have(classifier, validation):
    names = (*validation.class_names[:9], "Hat")
    with pytest.raises(UserError, match="has the class 'Hat', which is none of the classifier's 10: T-shirt/top"):
        classifier.evaluate(Renamed(validation, names, list(range(10))))


def test_classes_of_the_same_words(classifier, validation):
    """ImageNet has two cranes and two maillots."""
    ids = ("n02012849", "n03126707", *validation.class_names[2:])
    words = ("crane", "crane", *validation.class_names[2:])
    both = Classifier(
        classifier.model, classifier.variables, classifier.settings, ids, words=dict(zip(ids, words, strict=True))
    )
    wanted = classifier.evaluate().labels
    for names in (ids, words):
        np.testing.assert_array_equal(both.evaluate(Renamed(validation, names, list(range(10)))).labels, wanted)
    order = [3, 1, 2, 0, 4, 5, 6, 7, 8, 9]
    renamed = Renamed(validation, tuple(ids[i] for i in order), order)
    np.testing.assert_array_equal(both.evaluate(renamed).labels, wanted)
    message = r"has the class 'crane'; 2 classes have these words: 'n02012849' \(0\), 'n03126707' \(1\)"
    with pytest.raises(UserError, match=message):
        both.evaluate(Renamed(validation, tuple(words[i] for i in order), order))


def test_names_that_are_written_in_two_ways_are_one(classifier, validation):
    """A file system of macOS takes letters and their accents apart."""
    composed, apart = (unicodedata.normalize(form, "Bébé") for form in ("NFC", "NFD"))
    names = (*validation.class_names[:9], composed)
    named = Classifier(classifier.model, classifier.variables, classifier.settings, names)
    evaluation = named.evaluate(Renamed(validation, (*names[:9], apart), list(range(10))))
    np.testing.assert_array_equal(evaluation.labels, classifier.evaluate().labels)
    assert class_number(named, apart) == 9


def test_test_time_augmentation_is_named_and_changes_the_logits(classifier):
    logits = {tta: classifier.evaluate(tta=tta).logits for tta in ("none", "flip", "five_crop")}
    assert not np.array_equal(logits["none"], logits["flip"])
    assert not np.array_equal(logits["none"], logits["five_crop"])
    np.testing.assert_array_equal(logits["flip"], classifier.evaluate().logits)
    assert classifier.evaluate(tta="five_crop").tta == "five_crop"
    assert classifier.evaluate(tta="none").tta is None


def test_five_crops_are_the_centre_and_the_corners():
    image = np.arange(16).reshape(1, 4, 4, 1)
    crops = [crop[0, ..., 0].tolist() for crop in five_crops(image, 0.5)]
    assert crops == [[[5, 6], [9, 10]], [[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]]]


def test_arrays_in_place_of_a_dataset_are_told_how(classifier):
    with pytest.raises(UserError, match=r"dataset is a ndarray; must be a name\. .* evaluate\(\"npz\", data_dir="):
        classifier.evaluate(np.zeros((3, 28, 28), np.uint8), np.zeros(3, int))


def test_a_broken_image_stops_it_or_is_left_out(classifier, validation):
    class Broken(Renamed):
        def read(self, index):
            encoded, label = super().read(index)
            return (b"no image" if index == 7 else encoded), label

    broken = Broken(validation, validation.class_names, list(range(10)))
    broken.cache_key = "broken images"
    with pytest.raises(UserError, match="image 7"):
        classifier.evaluate(broken)
    evaluation, whole = classifier.evaluate(broken, broken_images="skip"), classifier.evaluate()
    assert evaluation.images == 999
    np.testing.assert_array_equal(evaluation.labels, np.delete(whole.labels, 7))
    assert evaluation.image_name(7) == validation.image_name(8)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"dataset": "fashion_mnist_smaple"}, "TFDS has no such dataset; did you mean 'fashion_mnist_sample'"),
        ({"tta": "mirror"}, "tta='mirror': must be one of none, flip, five_crop"),
        ({"split": "tset"}, "split=tset: fashion_mnist_sample has no split 'tset', only train, test"),
        ({"broken_images": "Stop"}, "broken_images='Stop': must be stop or skip"),
        ({"batch_size": 0}, "batch_size=0: must be a whole number from 1 to 65536"),
        ({"batch_size": -3}, "batch_size=-3: must be a whole number from 1 to 65536"),
        ({"colour": 1}, "colour: is no field of a dataset"),
        ({"data_dir": "nowhere"}, "data_dir='nowhere': no such directory"),
    ],
)
def test_mistakes_are_one_line(classifier, keywords, message):
    with pytest.raises(UserError, match=message):
        classifier.evaluate(**keywords)
