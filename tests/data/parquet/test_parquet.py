"""Image datasets as parquet files: which files are found, which columns, and what is refused."""

import importlib
import json
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from flax_resnets.data.source import dataset_metadata, open_source
from flax_resnets.errors import UserError
from tests.data.parquet.tables import table
from tests.data.pictures import picture

pytest.importorskip("pyarrow")
pa, pq = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))

PICTURES = [picture(number) for number in range(7)]
NAMES = ["cat", "dog"]
TRAIN, TEST = table(PICTURES[:5], [0, 1, 1, 0, 1], NAMES), table(PICTURES[5:], [1, 0], NAMES)


@pytest.fixture
def root(write) -> Path:
    """Five training images in two files, and two test images."""
    return write(
        {
            "data/train-00000-of-00002.parquet": TRAIN.slice(0, 3),
            "data/train-00001-of-00002.parquet": TRAIN.slice(3),
            "data/test-00000-of-00001.parquet": TEST,
            "README.md.parquet.txt": TEST,
        }
    )


def refusal(root: Path | None, split: str = "train", **fields) -> str:
    with pytest.raises(UserError) as caught:
        open_source("parquet", split, root, **fields)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_two_splits_of_two_files(root):
    source = open_source("parquet", "train", root)
    assert (len(source), source.split, source.version, source.class_names) == (5, "train", "", ("cat", "dog"))
    assert [source.encoded(index) for index in range(5)] == PICTURES[:5]
    assert [source.label(index) for index in range(5)] == [0, 1, 1, 0, 1]
    image, label = source[4]
    assert (image.shape, label) == ((8, 8, 3), 1)
    assert source.image_name(4) == f"{root.resolve()}/data/train-00001-of-00002.parquet, row 1, path '4.png'"
    assert source.image_name(2).endswith("train-00000-of-00002.parquet, row 2, path '2.png'")
    assert [open_source("parquet", "validation", root).label(index) for index in range(2)] == [1, 0]
    assert dataset_metadata("parquet", root) == (2, 3, False)
    with pytest.raises(IndexError):
        source.label(5)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.parquet", "validation.parquet"),
        ("train-00000-of-00001-0123456789abcdef.parquet", "test-00000-of-00001-fedcba9876543210.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train/part-00000-of-00001.parquet", "val/part-00000-of-00001.parquet"),
        ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet"),
    ],
)
def test_other_ways_to_name_files(write, train, test):
    root = write({train: TRAIN, test: TEST})
    assert (len(open_source("parquet", "train", root)), len(open_source("parquet", "validation", root))) == (5, 2)


def test_files_are_in_the_order_of_their_numbers(write):
    root = write({f"train_{number}.parquet": TRAIN.slice(number % 5, 1) for number in (10, 9, 2)})
    source = open_source("parquet", "train", root, validation_share=0.4)
    order = [os.path.basename(source.image_name(index)).partition(",")[0] for index in range(len(source))]
    assert order in (["train_9.parquet", "train_10.parquet"], ["train_2.parquet", "train_10.parquet"])


def test_splits_are_named(root):
    source = open_source("parquet", "train", root, train_split="test", validation_split="train")
    assert (len(source), source.split) == (2, "test")
    assert "has no such split; there is 'test', 'train'" in refusal(root, validation_split="dev")
    assert "has a validation split, 'test'; leave the share out" in refusal(root, validation_share=0.2)


def test_one_split_is_divided(write):
    root = write({"train.parquet": table(PICTURES, [0, 0, 0, 1, 1, 1, 1], NAMES)})
    parts = [open_source("parquet", part, root, validation_share=0.3) for part in ("train", "validation")]
    found = [(part.encoded(index), part.label(index)) for part in parts for index in range(len(part))]
    assert sorted(found) == sorted(zip(PICTURES, [0, 0, 0, 1, 1, 1, 1], strict=True))
    assert [len(part) for part in parts] == [5, 2]
    assert parts[0].split != parts[1].split


@pytest.mark.parametrize(
    ("labels", "kind", "names", "numbers"),
    [
        (["b", "a", "b"], None, ("a", "b"), [1, 0, 1]),
        ([10, 2, 10], None, ("2", "10"), [1, 0, 1]),
        ([True, False, True], None, ("False", "True"), [1, 0, 1]),
        (["b", "a", "b"], "dictionary", ("a", "b"), [1, 0, 1]),
    ],
)
def test_labels_without_names(write, labels, kind, names, numbers):
    column = pa.array(labels).dictionary_encode() if kind else pa.array(labels)
    made = pa.table({"image": pa.array(PICTURES[:3], pa.binary()), "label": column})
    root = write({"train.parquet": made, "test.parquet": made.slice(0, 1)})
    source = open_source("parquet", "train", root)
    assert (source.class_names, [source.label(index) for index in range(3)]) == (names, numbers)
    assert source.encoded(2) == PICTURES[2]
    assert open_source("parquet", "validation", root).class_names == names
    assert dataset_metadata("parquet", root) == (2, 3, False)


SEVERAL = [[0, 1], [], None, [1], [1, 1]]
MANY_HOT = [[1, 1], [0, 0], [0, 0], [0, 1], [0, 1]]


def many(labels: list, form: str | None = None) -> pa.Table:
    """A table with lists of labels; `form` is how Hugging Face's library describes them, if it does."""
    made = pa.table({"image": pa.array(PICTURES[: len(labels)], pa.binary()), "labels": pa.array(labels)})
    feature = {"_type": form, "feature": {"_type": "ClassLabel", "names": NAMES}}
    described = {"huggingface": json.dumps({"info": {"features": {"labels": feature}}})}
    return made.replace_schema_metadata(described) if form else made


@pytest.mark.parametrize("form", ["Sequence", "List", None])
def test_lists_of_labels(write, form):
    made = many(SEVERAL, form)
    if form is None:
        made = many([None if each is None else [NAMES[number] for number in each] for each in SEVERAL])
    root = write({"train-00000-of-00002.parquet": made.slice(0, 2), "train-00001-of-00002.parquet": made.slice(2),
                  "test.parquet": made.slice(3, 1)})  # fmt: skip
    source = open_source("parquet", "train", root, label_key="labels")
    assert source.multilabel
    assert source.class_names == ("cat", "dog")
    assert source.labels().tolist() == MANY_HOT
    assert source[4][1].tolist() == [0, 1]
    assert open_source("parquet", "validation", root, label_key="labels").labels().tolist() == [[0, 1]]
    assert dataset_metadata("parquet", root, label_key="labels") == (2, 3, True)
    assert "label_key=labels would be" in refusal(root)


def test_a_label_in_a_list_that_is_no_class(write):
    made = many([[0, 1], [], [1, 7]], "List")
    root = write({"train.parquet": made, "test.parquet": made})
    assert "row 2 has the label '7', which is none of the 2 classes" in refusal(root, label_key="labels")


def test_a_list_of_truth_values_is_no_list_of_labels(write):
    made = many([[True, False], [False, True]])
    root = write({"train.parquet": made, "test.parquet": made})
    assert "column 'labels' is list<" in refusal(root, label_key="labels")


def test_a_declared_grey_image_has_one_channel(write):
    made = table(PICTURES[:2], [0, 1], NAMES, feature={"mode": "L"})
    root = write({"train.parquet": made, "test.parquet": made})
    assert open_source("parquet", "train", root)[0][0].shape == (8, 8, 1)
    assert dataset_metadata("parquet", root) == (2, 1, False)


def test_other_columns_are_suggested_and_chosen(write):
    made = table(PICTURES[:5], [0, 1, 1, 0, 1], NAMES, image="img", label="fine_label")
    made = made.append_column("coarse_label", pa.array(["x", "y", "x", "y", "y"]))
    made = made.append_column("weight", pa.array([0.5] * 5))
    root = write({"train.parquet": made, "test.parquet": made})
    assert "no column 'image', must be bytes, or a struct with bytes; image_key=img would be" in refusal(root)
    assert "label_key=fine_label or coarse_label would be" in refusal(root, image_key="img")
    assert open_source("parquet", "train", root, image_key="img", label_key="fine_label").class_names == ("cat", "dog")
    assert open_source("parquet", "train", root, image_key="img", label_key="coarse_label").class_names == ("x", "y")
    assert "column 'weight' is double, must be whole numbers or text" in refusal(
        root, image_key="img", label_key="weight"
    )


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({"train.parquet": TRAIN.select(["label"])}, "no column 'image', must be bytes"),
        ({"train.parquet": TRAIN.select(["image"])}, "no column 'label', must be whole numbers or text"),
        (
            {"train.parquet": table(PICTURES[:2], [0, None], NAMES)},
            "row 1 has the label 'None', which is none of the 2",
        ),
        ({"train.parquet": table(PICTURES[:2], [0, -1], NAMES)}, "row 1 has the label '-1'"),
        ({"train.parquet": table(PICTURES[:2], ["a", "a"])}, "have 1 classes; at least 2 are needed"),
        ({"train.parquet": TRAIN.slice(0, 0)}, "has no rows"),
        ({"train-00000-of-00002.parquet": TRAIN}, "of the 2 files of a split some are missing or there twice"),
        (
            {"train-00000-of-00001.parquet": TRAIN, "train-00000-of-00002.parquet": TRAIN},
            "some are missing or there twice; there is train-00000-of-00001.parquet, train-00000-of-00002.parquet",
        ),
        ({"a/train.parquet": TRAIN, "b/train.parquet": TRAIN}, "of several datasets ('a', 'b'); data_dir="),
        ({"test.parquet": TEST}, "has no such split; there is 'test'"),
    ],
)
def test_other_files_are_refused(write, files, line):
    others = {} if "several" in line else {"val.parquet": TEST}
    assert line in refusal(write({**others, **files}))


def test_splits_must_be_alike(write):
    root = write({"train.parquet": TRAIN, "test.parquet": table(PICTURES[:2], [0, 1], ["dog", "cat"])})
    assert "test.parquet: its class names is not that of train.parquet" in refusal(root, "validation")
    root = write({"train.parquet": table(PICTURES[:2], ["a", "b"]), "test.parquet": table(PICTURES[:1], ["c"])})
    assert "row 0 has the label 'c', which is none of the 2 classes" in refusal(root, "validation")


def test_no_files_no_directory_and_no_parquet(write, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no parquet files; expected is a directory with files such as train-00000" in refusal(tmp_path / "empty")
    (tmp_path / "empty" / "x.npz").write_bytes(b"")
    assert refusal(tmp_path / "empty").endswith("has no parquet files; it has arrays: dataset=npz reads them")
    assert "no such directory; expected is a directory with files such as" in refusal(tmp_path / "nowhere")
    assert "needs data_dir" in refusal(None)
    (tmp_path / "empty" / "train.parquet").write_bytes(b"PAR1 no parquet PAR1")
    assert "train.parquet: cannot be read as parquet" in refusal(tmp_path / "empty")


def test_a_damaged_file_names_its_image(root):
    path = root / "data" / "train-00000-of-00002.parquet"
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    begin = column.dictionary_page_offset or column.data_page_offset
    content[begin : begin + 30] = bytes(30)
    path.write_bytes(content)
    source = open_source("parquet", "train", root)
    with pytest.raises(UserError, match=r"image 0 in .*train-00000-of-00002\.parquet, row 0.*: the record is damaged"):
        source[0]
    assert source.encoded(4) == PICTURES[4]


def test_a_row_without_an_image_is_named(write):
    root = write({"train.parquet": table([PICTURES[0], None, b"no picture"], [0, 1, 1], NAMES), "test.parquet": TEST})
    source = open_source("parquet", "train", root)
    with pytest.raises(UserError, match=r"row 1, path '1\.png': the record is damaged \(it has no bytes\)"):
        source[1]
    with pytest.raises(UserError, match=r"row 2, path '2\.png' \(class 'dog'\): not a JPEG"):
        source[2]


def test_the_content_is_recognised(root, write, tmp_path):
    before = open_source("parquet", "train", root).fingerprint
    root.rename(tmp_path / "moved")
    assert open_source("parquet", "train", tmp_path / "moved").fingerprint == before
    write({"data/train-00001-of-00002.parquet": TRAIN.slice(2, 2)}, root="moved")
    assert open_source("parquet", "train", tmp_path / "moved").fingerprint != before


def test_threads_share_row_groups_of_which_few_are_kept(root, monkeypatch):
    from flax_resnets.data.parquet import source as module

    monkeypatch.setattr(module, "_KEPT", 1)
    source = open_source("parquet", "train", root)
    read, lock = [], threading.Lock()
    reading = source._read

    def count(group, column):
        with lock:
            read.append(group)
        return reading(group, column)

    monkeypatch.setattr(source, "_read", count)
    for _ in range(2):
        assert [source.encoded(index) for index in range(5)] == PICTURES[:5]
    assert read == [0, 1, 2] * 2  # in order, each is read once and only one is kept
    monkeypatch.setattr(module, "_KEPT", 2**20)
    read.clear()
    orders = [np.random.default_rng(number).permutation(5) for number in range(8)]
    wrong = []

    def look(order):
        wrong.extend(index for index in order for _ in range(20) if source.encoded(index) != PICTURES[index])

    threads = [threading.Thread(target=look, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(read) in ([0, 1], [0, 1, 2])  # the last one may have been kept from before


@pytest.mark.parametrize("failure", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_read_that_failed_is_tried_again(root, monkeypatch, failure):
    source = open_source("parquet", "train", root)
    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetFile, "read_row_group", lambda *_, **__: (_ for _ in ()).throw(failure))
        with pytest.raises((UserError, KeyboardInterrupt)):
            source.encoded(0)
    assert [source.encoded(index) for index in range(2)] == PICTURES[:2]


def test_more_declared_names_than_the_labels_type_has_numbers(write):
    names = [f"class {number}" for number in range(200)]
    root = write({"train.parquet": table(PICTURES[:2], [0, 127], names, kind=pa.int8()), "test.parquet": TEST})
    source = open_source("parquet", "train", root, validation_split=None)
    assert ([source.label(0), source.label(1)], source.num_classes) == ([0, 127], 200)


def test_two_files_of_a_split_with_other_labels(write):
    numbers, words = table(PICTURES[:2], [0, 1]), table(PICTURES[2:4], ["a", "b"])
    root = write({"train-00000-of-00002.parquet": numbers, "train-00001-of-00002.parquet": words})
    assert "train-00001-of-00002.parquet: its label type is not that of train-00000" in refusal(root)


def test_lists_of_labels_without_rows(write):
    empty = table([], [], kind=pa.list_(pa.string()))
    assert "the training images in" in refusal(write({"train.parquet": empty, "test.parquet": empty}))


def test_without_pyarrow_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(root) == (
        "dataset='parquet': needs pyarrow, which is not installed: pip install 'flax_resnets[parquet]'"
    )
