"""The training and validation images of a TFDS dataset: its splits, parts of them, or a share that is drawn."""

import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from flax_resnets import cli
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import Source, open_source
from flax_resnets.data.tfds.prepare import declared_splits
from flax_resnets.errors import UserError


def picture(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), number, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def make(make_set, data_dir):
    """A function that makes a dataset with these splits, each of three files, and opens one."""

    def make(**counts: int):
        features = {"image": tfds.features.Image(shape=(4, 4, 1)), "label": tfds.features.ClassLabel(names=["a", "b"])}
        first, splits = 0, {}
        for name, count in counts.items():
            examples = [{"image": io.BytesIO(picture(n)), "label": n % 2} for n in range(first, first + count)]
            splits[name] = [examples[: count // 2], examples[count // 2 : count // 2 + 1], examples[count // 2 + 1 :]]
            first += count
        make_set("my_set", features, splits)
        return lambda split, **fields: open_source("my_set", split, data_dir, **fields)

    return make


def images(source: Source) -> list[int]:
    """Each image's number over the whole dataset."""
    return [int(source.image(index)[0, 0, 0]) for index in range(len(source))]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train", range(100)),
        ("train[:80%]", range(80)),
        ("train[80%:]", range(80, 100)),
        ("train[10%:20%]", range(10, 20)),
        ("train[-5:]", range(95, 100)),
        ("train[30:60]", range(30, 60)),
        ("train[:1shard]", range(50)),
        ("train[2shard]", range(51, 100)),
        ("train[49:52]", [49, 50, 51]),
        ("test", range(100, 110)),
        ("train[:2]+test[8:]", [0, 1, 108, 109]),
        ("test[:1] + train[99:]", [100, 99]),
        ("train[98:]+train[:1]", [98, 99, 0]),
        ("all", range(110)),
    ],
)
def test_a_split_in_words_of_tfds(make, words, expected):
    source = make(train=100, test=10)("validation", validation_split=words)
    assert images(source) == list(expected)
    assert [source.label(index) for index in range(len(source))] == [number % 2 for number in expected]
    assert source.split == words


def test_parts_of_one_split_have_caches_and_fingerprints_of_their_own(make):
    opened = make(train=10)
    halves = {"train_split": "train[:50%]", "validation_split": "train[50%:]"}
    train, validation = opened("train", **halves), opened("validation", **halves)
    assert train.fingerprint != validation.fingerprint
    assert cached_images(train, 4).images[:, 0, 0, 0].tolist() == list(range(5))
    assert cached_images(validation, 4).images[:, 0, 0, 0].tolist() == list(range(5, 10))
    assert train.image_name(4) != validation.image_name(0)


def test_a_whole_split_in_words_is_the_same_split(make):
    opened = make(train=10, test=5)
    usual, named = opened("train"), opened("train", train_split="train", validation_split="test")
    assert (usual.split, usual.fingerprint, usual.cache_key) == (named.split, named.fingerprint, named.cache_key)


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev", "test"])
def test_names_of_a_validation_split(make, name):
    assert make(train=4, **{name: 2}, extra=3)("validation").split == name


def test_validation_goes_before_test(make):
    assert make(test=3, train=4, dev=2)("validation").split == "dev"


def test_a_set_that_has_only_a_test_split_can_be_evaluated_on(make):
    opened = make(test=4)
    assert len(opened("validation")) == 4
    with pytest.raises(UserError, match="has no train split, only test; needs 'train'"):
        opened("train")


def test_a_share_is_drawn_by_the_seed(make):
    opened = make(train=100)

    def drawn(split: str, seed: int = 0) -> list[int]:
        return images(opened(split, validation_share=0.2, seed=seed))

    train, validation = drawn("train"), drawn("validation")
    assert (len(train), len(validation)) == (80, 20)
    assert sorted(train + validation) == list(range(100))
    assert (train, validation) == (sorted(train), sorted(validation)) == (drawn("train"), drawn("validation"))
    assert validation not in (list(range(20)), list(range(80, 100)), drawn("validation", seed=1))


def test_the_images_that_a_share_draws_stay_the_same_in_later_versions(make):
    expected = [1, 5, 10, 14, 15, 19, 27, 28, 36, 39]
    assert images(make(train=40)("validation", validation_share=0.25, seed=7)) == expected


def test_shares_and_seeds_have_fingerprints_and_caches_of_their_own(make):
    opened = make(train=20)
    sources = [opened(split, validation_share=share, seed=seed)
               for split in ("train", "validation") for share in (0.2, 0.4) for seed in (0, 1)]  # fmt: skip
    assert len({source.fingerprint for source in sources}) == len({source.split for source in sources}) == 8
    for source in sources:
        assert cached_images(source, 4).images[:, 0, 0, 0].tolist() == images(source)


def test_a_share_of_a_part(make):
    opened = make(train=100, test=10)
    fields = {"train_split": "train[:50%]", "validation_share": 0.1}
    assert sorted(images(opened("train", **fields)) + images(opened("validation", **fields))) == list(range(50))


@pytest.mark.parametrize(
    ("split", "fields", "message"),
    [
        ("validation", {}, "--config.train_split='train[:80%]' --config.validation_split='train[80%:]', or "
                           "--config.validation_share=0.2"),
        ("train", {"train_split": "nowhere"}, "train_split=nowhere: my_set has no split 'nowhere', only train, ex"),
        ("train", {"validation_split": "valid"}, "validation_split=valid: my_set has no split 'valid'"),
        ("train", {"train_split": "train[:80%"}, "train_split=train[:80%: must be the name of a split, or in TFDS's"),
        ("train", {"train_split": "train[5]"}, "train_split=train[5]: must be the name of a split"),
        ("train", {"train_split": "train[:101%]"}, "train_split=train[:101%]: must be the name of a split"),
        ("train", {"train_split": "train[:11]"}, "train_split=train[:11]: Requested slice [:11] incompatible"),
        ("train", {"train_split": "train[7:3]"}, "its split 'train[7:3]' has no images"),
        ("train", {"train_split": "train[5:4]"}, "its split 'train[5:4]' has no images"),
        ("train", {"train_split": "train+train[:3]"}, "train_split=train+train[:3]: has 3 images twice"),
        ("train", {"validation_split": "train[80%:]"}, "train_split=train, validation_split=train[80%:]: have 2 im"),
        ("train", {"train_split": "all", "validation_split": "extra"}, "have 4 images in common"),
        ("train", {"validation_share": 0.2, "validation_split": "extra"}, "validation_share=0.2, validation_split=ext"),
        ("train", {"validation_share": 0.01}, "validation_share=0.01: is 0 of the 10 images"),
        ("validation", {"validation_share": 0.99}, "validation_share=0.99: is 10 of the 10 images"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen(make, split, fields, message):
    with pytest.raises(UserError) as caught:
        make(train=10, extra=4)(split, **fields)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_share_beside_a_validation_split_is_drawn_only_on_purpose(make):
    opened = make(train=10, test=4)
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=r"validation_share=0.2: my_set has the split 'test' .*train_split=train"):
            opened(split, validation_share=0.2)
        opened(split, validation_share=0.2, train_split="train")


def test_a_set_whose_one_split_has_another_name(make):
    opened = make(full=10)
    for split in ("train", "validation"):
        with pytest.raises(UserError, match=r"train_split='full\[:80%\]' --config.validation_split='full\[80%:\]'"):
            opened(split)
    assert len(opened("train", train_split="full", validation_share=0.3)) == 7


@pytest.mark.parametrize(
    ("dataset", "splits"),
    [
        ("cats_vs_dogs", ["train"]),
        ("tf_flowers", ["train"]),
        ("eurosat", ["train"]),
        ("imagenet_v2", ["test"]),
        ("fashion_mnist", ["train", "test"]),
        ("imagenette", ["train", "validation"]),
        ("beans", ["train", "validation", "test"]),
        ("cifar10", None),  # it reads the classes' names first
        ("imagenet2012", None),  # it looks which archives there are
    ],
)
def test_the_splits_of_a_set_that_is_not_prepared(dataset, splits, data_dir):
    assert declared_splits(tfds.builder(dataset, data_dir=data_dir)) == splits
    assert not list(data_dir.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "dataset='tf_flowers': has no validation split, only train; needs 'validation' or 'test', or a part of "
             "train: --config.train_split='train[:80%]' --config.validation_split='train[80%:]', or "
             "--config.validation_share=0.2"),
        (["--config.train_split=train[:80%]"], "has no validation split, only train"),
        (["--config.validation_split=test"], "validation_split=test: tf_flowers has no split 'test', only train"),
        (["--config.train_split=x[", "--config.validation_split=train"], "train_split=x[: must be the name"),
    ],
)  # fmt: skip
def test_what_a_run_lacks_is_found_before_anything_is_downloaded(arguments, message, archives_of, data_dir, capsys):
    archives_of("tf_flowers")
    fields = ["--config.dataset=tf_flowers", f"--config.data_dir={data_dir}", "--config.mean=0.5", "--config.std=0.5"]
    workdir = data_dir.parent / "run"
    assert cli.main(["train", "--config=quickstart", f"--workdir={workdir}", *fields, *arguments]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert not list(data_dir.iterdir())
    assert not workdir.exists()
