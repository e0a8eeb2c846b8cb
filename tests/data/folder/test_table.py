"""images.csv lists the pictures, in its own order."""

import os
from pathlib import Path

import pytest

from flax_resnets.data.source import dataset_metadata, open_source
from flax_resnets.errors import UserError
from flax_resnets.training.recipes import load_config


@pytest.fixture
def pile(make_folder) -> Path:
    """Pictures without any order."""
    return make_folder("3.png", "1.png", "2.png", "deep/\u732b 4.png", "5.png")


def write(root: Path, text: str, encoding: str = "utf-8") -> None:
    (root / "images.csv").write_bytes(text.encode(encoding))


def listed(root: Path, split: str = "train", **fields) -> list[tuple[str, str]]:
    source = open_source("folder", split, root, **fields)
    names = [os.path.relpath(source.image_name(index), root.resolve()) for index in range(len(source))]
    return [(name, source.class_names[source.label(index)]) for index, name in enumerate(names)]


def refusal(root: Path, split: str = "train", **fields) -> str:
    with pytest.raises(UserError) as caught:
        open_source("folder", split, root, **fields)
    return str(caught.value)


ROWS = "path,label,split\n3.png,dog,train\n1.png,cat,train\ndeep/\u732b 4.png,dog,val\n5.png,cat,test\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_keep_their_order(pile, encoding, end):
    write(pile, ROWS.replace("\n", end), encoding)
    assert listed(pile) == [("3.png", "dog"), ("1.png", "cat")]
    assert listed(pile, "validation") == [("deep/\u732b 4.png", "dog")]
    assert listed(pile, "validation", validation_split="test") == [("5.png", "cat")]
    assert open_source("folder", "train", pile).class_names == ("cat", "dog")
    assert dataset_metadata("folder", pile) == (2, 3, False)


def test_without_a_column_of_splits_a_share_is_taken(pile):
    write(pile, 'label,path,"size, px"\nb,1.png,"1,2"\na,3.png,\n\nb,2.png,\na,5.png,\n')
    train, valid = listed(pile, validation_share=0.5), listed(pile, "validation", validation_share=0.5)
    assert sorted(train + valid) == [("1.png", "b"), ("2.png", "b"), ("3.png", "a"), ("5.png", "a")]
    assert sorted(kind for _, kind in valid) == ["a", "b"]


def test_a_repeated_row_counts_once_and_is_said(pile):
    again = "1.png,b\n./1.png,b\n"
    write(pile, f"path,label\n1.png,b\n2.png,b\n3.png,a\n5.png,a\n{again}")
    train, valid = listed(pile, validation_share=0.5), listed(pile, "validation", validation_share=0.5)
    assert sorted(train + valid) == [("1.png", "b"), ("2.png", "b"), ("3.png", "a"), ("5.png", "a")]
    (note,) = open_source("folder", "train", pile, validation_share=0.5).notes
    assert note == f"{pile.resolve()}/images.csv: 2 rows repeat an earlier one, and count once"


def test_a_picture_of_both_splits_is_refused(pile):
    write(pile, ROWS + "./1.png,cat,val\n")
    assert refusal(pile) == (
        f"{pile.resolve()}/images.csv: path '1.png' is in 'train' and in 'val'; the two must have no images in common"
    )
    assert len(listed(pile, "validation", validation_split="test")) == 1


def test_with_one_split_a_share_of_it_is_taken(pile):
    write(pile, "path,label,split\n" + "".join(f"{n}.png,{n % 2},train\n" for n in (1, 2, 3, 5)) + "1.png,9,unused\n")
    assert open_source("folder", "train", pile, validation_share=0.3).class_names == ("0", "1")
    assert listed(pile, "validation", validation_share=0.3) in ([("1.png", "1")], [("3.png", "1")], [("5.png", "1")])


def test_columns_may_have_other_names(pile):
    write(pile, "file,kind,label\n1.png,x,1\n2.png,y,2\n3.png,x,3\n")
    fields = {"image_key": "file", "label_key": "kind", "validation_share": 0.4}
    assert listed(pile, **fields)[-1][0] in ("2.png", "3.png")
    assert open_source("folder", "train", pile, **fields).class_names == ("x", "y")
    assert "image_key names another column" in refusal(pile)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the first line must name the columns 'path' and 'label', separated by commas, once each; it has nothing"),
        ("path;label\n1.png;cat\n", "it has 'path;label'; image_key names another column"),
        ("1.png,cat\n", "it has '1.png', 'cat'"),
        ("path,label,label\n", "it has 'path', 'label', 'label'; label_key names another"),
        ("path,label\n", "has no rows"),
        ("path,label\n1.png\n", "line 2: has 1 values, the header 2"),
        ("path,label\n1.png,big, red\n", "line 2: has 3 values, the header 2"),
        ("path,label\n1.png,a\n,b\n", "line 3: has no path; each row must have one"),
        ("path,label\n1.png,\n", "line 2: has no label"),
        ("path,label,split\n1.png,a,train\n2.png,b,\n", "line 3: has no split"),
        ("path,label\n1.png,a\n../2.png,b\n", "line 3: path '../2.png' must be relative to"),
        ("path,label\n1.png,a\n1.png,b\n", "line 3: path '1.png' has the label 'b', but 'a' before"),
        ("path,label\n1.png,a\n/etc/passwd,b\n", "line 3: path '/etc/passwd' must be relative to"),
        ("path,label\n1.png,a\n8.png,b\n9.png,b\n", "names '8.png' (and 1 others), but"),
        ("path,label\n1.png,a\ndeep,b\n", "names 'deep', but"),
        ("path,label\n1.png,a\n2.png,a\n", "has one class, 'a'; at least 2 are needed"),
        ("path,label,split\n1.png,a,val\n", "train_split='train': "),
        (
            "path,label,split\n1.png,a,train\n2.png,b,train\n3.png,c,val\n",
            "has the class 'c' in 'val', but not in 'train'",
        ),
        ('path,label\n"1.png,a\n', "is not a table of comma-separated values"),
        ("path,label\n1.png,caf\u00e9\n", "is not UTF-8"),
    ],
)
def test_other_tables_are_refused(pile, text, line):
    write(pile, text, "latin-1" if "\u00e9" in text else "utf-8")
    found = refusal(pile)
    assert line in found
    assert str(pile.resolve() / "images.csv") in found
    assert len(found) < 600


def test_splits_that_it_does_not_have_are_refused(pile):
    write(pile, "path,label\n1.png,a\n2.png,b\n")
    assert "has no column 'split'; leave it out, or add the column" in refusal(pile, validation_split="val")
    write(pile, ROWS)
    assert "has no such split; there is 'test', 'train', 'val'" in refusal(pile, validation_split="dev")
    assert "validation_share=0.1: " in refusal(pile, validation_share=0.1)


def test_a_table_that_is_a_directory(pile):
    (pile / "images.csv").mkdir()
    assert "images.csv: Is a directory" in refusal(pile)


MANY = "path,label,split\n3.png,dog; cat,train\n1.png,,train\n2.png,owl;owl;,train\n5.png,cat;dog,valid\n"


def test_several_labels_of_a_picture(pile):
    write(pile, MANY)
    source = open_source("folder", "train", pile, label_separator=";")
    assert source.multilabel
    assert source.class_names == ("cat", "dog", "owl")
    assert source.labels().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert [source.label(index).tolist() for index in range(3)] == source.labels().tolist()
    assert open_source("folder", "validation", pile, label_separator=";").labels().tolist() == [[1, 1, 0]]
    assert dataset_metadata("folder", pile, label_separator=";") == (3, 3, True)


def test_other_columns_and_a_space_between_labels(pile):
    write(pile, "fname,labels,is_valid\n3.png,dog  cat,True\n1.png,cat,False\n2.png,,False\n5.png,dog,False\n")
    fields = {"image_key": "fname", "label_key": "labels", "label_separator": " ", "validation_share": 0.5}
    train, valid = (open_source("folder", split, pile, **fields) for split in ("train", "validation"))
    assert len(train) + len(valid) == 4
    assert train.class_names == valid.class_names == ("cat", "dog")


def test_other_labels_are_another_dataset(pile):
    fields = {"label_separator": ";"}
    write(pile, MANY)
    before = open_source("folder", "train", pile, **fields).fingerprint
    write(pile, MANY.replace("owl;owl", "owl"))
    assert open_source("folder", "train", pile, **fields).fingerprint == before
    write(pile, MANY.replace("1.png,,", "1.png,owl,"))
    assert open_source("folder", "train", pile, **fields).fingerprint != before


@pytest.mark.parametrize(
    ("text", "separator", "message"),
    [
        (MANY, None, "line 3: has no label; each row must have one, unless label_separator says"),
        (MANY.replace(",,", ",owl,"), "|", "has exactly one label in each row, such as 'dog; cat'"),
        (MANY.replace("cat;dog", "cat;ant"), ";", "has the class 'ant' in 'valid', but not in 'train'"),
        (MANY + "5.png,cat,valid\n", ";", "has the label 'cat', but 'cat;dog' before"),
        (MANY.replace("dog", "cat").replace("owl", "cat"), ";", "has one class, 'cat'; at least 2"),
        ("path,label\n1.png,\n2.png,\n", ";", "has no class; at least 2 are needed"),
    ],
)
def test_labels_that_cannot_be_used(pile, text, separator, message):
    write(pile, text)
    assert message in refusal(pile, label_separator=separator)
    assert len(refusal(pile, label_separator=separator)) < 600


def test_a_separator_where_there_is_nothing_to_separate(photos):
    assert "label_separator=';': directories have no columns" in refusal(photos, label_separator=";")
    with pytest.raises(UserError, match="label_separator=';': only with dataset=folder"):
        open_source("fashion_mnist_sample", "train", label_separator=";")
    with pytest.raises(UserError, match="label_separator=: must be the text between two labels"):
        load_config("quickstart", {"label_separator": ""})


def test_labels_that_look_like_several_are_said(pile):
    write(pile, "path,label\n3.png,dog\n1.png,cat\n2.png,cat;dog\n5.png,cat;dog\n")
    (note,) = open_source("folder", "train", pile, validation_share=0.5).notes
    assert note.endswith("images.csv: 'cat;dog' looks like several labels: if so, give label_separator=';'")
    write(pile, "path,label\n3.png,red apple\n1.png,red apple\n2.png,pear\n5.png,pear\n")
    assert open_source("folder", "train", pile, validation_share=0.5).notes == ()
