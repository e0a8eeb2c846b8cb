"""Arrays in `.npz` files: which are found, which labels there are, and what is refused."""

import hashlib
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from flax_resnets import cli
from flax_resnets.data.config import DataConfig, Part
from flax_resnets.data.source import dataset_metadata, open_source
from flax_resnets.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (12, 8, 6), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 8, 6, 3), np.uint8)
LABELS = np.arange(12) % 3


def written(root: Path, name: str = "digits", **arrays) -> Path:
    root.mkdir(exist_ok=True)
    np.savez(root / f"{name}.npz", **arrays)
    return root


def refusal(root: Path | None, split: Part = "train", **fields) -> str:
    with pytest.raises(UserError) as caught:
        open_source("npz", split, root, **fields)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_images_and_labels_of_which_a_share_is_the_validation_split(tmp_path):
    root = written(tmp_path / "data", images=GREY, labels=LABELS)
    train, validation = open_source("npz", "train", root), open_source("npz", "validation", root)
    assert (len(train), len(validation), validation.split) == (9, 3, "0.2 of all by seed 0")
    assert (train.class_names, train.channels, train.image_shape) == (("0", "1", "2"), 1, (8, 6, 1))
    assert train.fingerprint != validation.fingerprint
    whole = open_source("npz", "all", root)
    assert (len(whole), whole.split, whole.is_share, validation.is_share) == (12, "all", False, True)
    image, label = whole[5]
    np.testing.assert_array_equal(image[..., 0], GREY[5])
    assert label == 2
    assert whole.image_name(5) == f"{root.resolve()}/digits.npz, images[5]"
    seen = {hashlib.sha256(source.image(i)).hexdigest() for source in (train, validation) for i in range(len(source))}
    assert seen == {hashlib.sha256(image).hexdigest() for image in GREY}


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"), "val"),  # MedMNIST
        (("x_train", "y_train", "x_test", "y_test"), "test"),  # Keras
    ],
)
def test_the_arrays_of_all_splits_in_one_file(tmp_path, names, split):
    arrays = [COLOUR, LABELS[:, None], COLOUR[:6], LABELS[:6, None], COLOUR[:3], LABELS[:3, None]]
    root = written(tmp_path / "data", **dict(zip(names, arrays, strict=False)))
    train, validation = open_source("npz", "train", root), open_source("npz", "validation", root)
    assert (len(train), train.split, len(validation), validation.split) == (12, "train", 6, split)
    np.testing.assert_array_equal(validation.image(4), COLOUR[4])
    np.testing.assert_array_equal(train.labels(), LABELS)
    assert dataset_metadata("npz", root) == (3, 3, False)
    assert len(open_source("npz", "validation", root, validation_split="test")) == (3 if split == "val" else 6)
    assert f"split='all': {root.resolve()} has the splits 'train' and '{split}'" in refusal(root, "all")


def test_a_file_for_each_split_and_arrays_of_other_names(tmp_path):
    root = written(tmp_path / "data", "train", pixels=GREY, digit=LABELS, parity=LABELS % 2)
    written(root, "test", pixels=GREY[:2], digit=LABELS[:2], parity=LABELS[:2] % 2)
    keys = {"image_key": "pixels", "label_key": "parity"}
    assert [len(open_source("npz", split, root, **keys)) for split in ("train", "validation")] == [12, 2]
    assert open_source("npz", "train", root, **keys).class_names == ("0", "1")
    message = refusal(root)
    assert "test.npz: has pixels, digit, parity; needs images or x and labels or y, alone or with a split" in message


def test_names_of_the_classes(tmp_path):
    names = np.array(["cat", "dog", "owl"])
    root = written(tmp_path / "a", images=GREY, labels=LABELS, class_names=names)
    assert open_source("npz", "train", root).class_names == ("cat", "dog", "owl")
    root = written(tmp_path / "b", images=GREY, labels=names[::-1][LABELS])
    source = open_source("npz", "all", root)
    assert (source.class_names, source.label(0)) == (("cat", "dog", "owl"), 2)
    root = written(tmp_path / "c", images=GREY, labels=10 * LABELS)
    assert open_source("npz", "train", root).class_names == ("0", "10", "20")
    root = written(tmp_path / "d", images=GREY, labels=LABELS)
    assert open_source("npz", "train", root, num_classes=5).class_names == ("0", "1", "2", "3", "4")
    assert "row 2 has the label '2', which is none of the 2 classes" in refusal(root, num_classes=2)
    with pytest.raises(UserError, match="num_classes=2147483647: must be from 2 to 1000000"):
        DataConfig(dataset="npz", num_classes=2**31 - 1)  # their names alone would not fit into memory


def test_any_number_of_labels_an_image(tmp_path):
    labels = np.stack([LABELS == 0, LABELS < 2], 1)
    root = written(tmp_path / "a", images=GREY, labels=labels, class_names=np.array(["cat", "pet"]))
    source = open_source("npz", "all", root)
    assert source.multilabel
    np.testing.assert_array_equal(source.labels(), labels)
    assert dataset_metadata("npz", root) == (2, 1, True)
    assert "has exactly one class in each row; give the numbers of the classes: y.argmax(1)" in refusal(
        written(tmp_path / "b", images=GREY, labels=np.eye(3, dtype=int)[LABELS])
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GREY / 255}, "is float64; must be uint8, from 0 to 255; of numbers from 0 to 1: (255 * x).round()"),
        ({"images": GREY.transpose(0, 2, 1)[:, None].repeat(3, 1)}, "x.transpose(0, 2, 3, 1) brings the channels to"),
        ({"images": COLOUR.repeat(2, 3)}, "must be (N, H, W) or (N, H, W, C); C must be 1 or 3"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "has the shape (0, 8, 6)"),
        ({"labels": LABELS[:5]}, "has the shape (5,); must be a label for each of the 12 images"),
        (
            {"labels": LABELS / 1},
            "is float64; must be whole numbers or text, or 0 and 1 in (N, classes); y.astype(int)",
        ),
        ({"labels": np.eye(3)[LABELS]}, "(N, classes); y.argmax(1) gives numbers"),
        ({"labels": np.tri(3)[LABELS]}, "(N, classes); y.astype(int) gives numbers"),  # several classes an image
        ({"labels": LABELS * 0}, "has 1 class; at least 2 are needed"),
        ({"labels": LABELS.astype(object)}, "labels: cannot be read (Object arrays cannot be loaded"),
        ({"labels": LABELS - 1, "class_names": np.array(["a", "b", "c"])}, "row 0 has the label '-1'"),
        ({"labels": np.array([b"a", b"\xff"])[LABELS % 2]}, "labels: has text that is not UTF-8"),
        (
            {"labels": np.array(["b", "c", "a"])[LABELS], "class_names": np.array(["b", "c", "a"])},
            "must have the names in",
        ),
        ({"y": LABELS}, "has labels and y; label_key names one of them"),
        (
            {"train_images": GREY, "images_train": GREY, "train_y": LABELS},
            "has train_images and images_train; image_key",
        ),
        ({"class_names": np.array(["a", "a", "b"])}, "must be a list of names, each of which is there once"),
        ({"labels": LABELS[:, None] < [1, 2], "class_names": np.array(["a"])}, "has 1 names, labels 2 columns"),
    ],
)
def test_arrays_that_are_no_labelled_images(tmp_path, arrays, message):
    assert message in refusal(written(tmp_path / "data", **{"images": GREY, "labels": LABELS} | arrays))


def test_files_that_are_none(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no .npz file; expected is a directory with one .npz file" in refusal(tmp_path / "empty")
    (tmp_path / "empty" / "cat").mkdir()
    (tmp_path / "empty" / "cat" / "1.png").write_bytes(b"")
    assert refusal(tmp_path / "empty").endswith("has no .npz file; it has pictures: dataset=folder reads them")
    assert "needs data_dir" in refusal(None)
    root = written(tmp_path / "data", images=GREY, labels=LABELS)
    content = (root / "digits.npz").read_bytes()
    (root / "digits.npz").write_bytes(content[: len(content) // 2])
    assert "digits.npz: cannot be read (File is not a zip file); must be what numpy.savez wrote" in refusal(root)
    noise = np.random.default_rng(2).integers(0, 256, (12, 100, 100), np.uint8)
    large = written(tmp_path / "large", images=noise, labels=LABELS)
    whole = bytearray((large / "digits.npz").read_bytes())
    whole[100_000] ^= 1
    (large / "digits.npz").write_bytes(whole)
    source = open_source("npz", "all", large)  # the images are not read yet
    for _ in range(2):
        with pytest.raises(UserError, match=r"digits\.npz, images: cannot be read \(Bad CRC-32"):
            source.image(0)
    written(root, "more", train_images=GREY, train_labels=LABELS)
    (root / "digits.npz").write_bytes(content)
    assert "has 2 .npz files, of which more.npz names its splits itself" in refusal(root)


@pytest.mark.parametrize("labels", [LABELS / 2, np.eye(3)[LABELS] / 2, LABELS + np.nan])
def test_numbers_that_are_no_classes_are_not_to_be_rounded(tmp_path, labels):
    assert refusal(written(tmp_path / "data", images=GREY, labels=labels)).endswith("or 0 and 1 in (N, classes)")


@pytest.mark.parametrize("header", ["{'shape': (", "{'descr': '<i8', 'fortran_order': False, 'shape': (True,)}"])
def test_a_header_that_numpy_does_not_read(tmp_path, header):
    root = written(tmp_path / "data", images=GREY)
    with zipfile.ZipFile(root / "digits.npz", "a") as members:
        members.writestr("labels.npy", b"\x93NUMPY\1\0" + bytes([len(header), 0]) + header.encode() + bytes(8))
    assert "digits.npz, labels: cannot be read (" in refusal(root)


def test_all_images_of_an_array_are_no_copy_of_it(tmp_path):
    source = open_source(
        "npz", "all", written(tmp_path / "data", images=np.zeros((20, 500, 500), np.uint8), labels=np.arange(20) % 2)
    )
    tracemalloc.start()
    source.image(0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 7_500_000


def test_the_sample_as_arrays_trains_as_the_sample_does(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sample = open_source("fashion_mnist_sample", "train")
    arrays = {}
    for split, number in (("train", 500), ("test", 200)):
        source = open_source("fashion_mnist_sample", "train" if split == "train" else "validation")
        arrays[f"x_{split}"] = np.stack([source.image(i) for i in range(number)])
        arrays[f"y_{split}"] = np.array([source.label(i) for i in range(number)])
    written(tmp_path / "arrays", "mnist", **arrays, class_names=np.array(sample.class_names))
    small = ["--config.model=lenet", "--config.model_options=none", "--config.epochs=1", "--config.batch_size=100"]
    command = ["train", "--config", "quickstart", *small]
    of_sample = ["--config.train_split=train[:500]", "--config.validation_split=test[:200]", "--workdir=a"]
    assert cli.main([*command, *of_sample]) == 0
    assert cli.main([*command, "--config.dataset=npz", "--config.data_dir=arrays", "--workdir=b"]) == 0
    digests = [(Path(each) / "metrics.jsonl").read_text().split("state_digest")[1] for each in ("a", "b")]
    assert digests[0] == digests[1]
    assert "npz: 500 training and 200 validation images, 28 px, grey, 10 classes" in capsys.readouterr().out
