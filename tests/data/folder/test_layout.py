"""Which layouts of a folder are understood, which files in it count, and what is said of other ones."""

import os
from pathlib import Path

import pytest

from flax_resnets.data.source import dataset_metadata, open_source
from flax_resnets.errors import UserError


def listed(root: Path, split: str = "train", **fields) -> list[tuple[str, str]]:
    """Names relative to the folder, and classes, in the split's order."""
    source = open_source("folder", split, root, **fields)
    names = [os.path.relpath(source.image_name(index), root.resolve()) for index in range(len(source))]
    return [(name, source.class_names[source.label(index)]) for index, name in enumerate(names)]


def refusal(root: Path, split: str = "train", **fields) -> str:
    with pytest.raises(UserError) as caught:
        open_source("folder", split, root, **fields)
    assert len(str(caught.value)) < 600 + len(str(root))
    return str(caught.value)


def test_two_splits_with_a_directory_for_each_class(photos):
    source = open_source("folder", "train", photos)
    assert (len(source), source.split, source.version, source.class_names) == (5, "train", "", ("cat", "dog"))
    assert (source.channels, source.directory) == (3, (photos / "train").resolve())
    image, label = source[3]
    assert (image.shape, label, source.notes) == ((8, 8, 3), 1, ())
    assert listed(photos, "validation") == [
        ("val/cat/8.png", "cat"),
        ("val/cat/9.png", "cat"),
        ("val/dog/8.png", "dog"),
    ]
    assert dataset_metadata("folder", photos) == (2, 3, False)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_validation_split_has_one_of_four_names(photos, name):
    (photos / "val").rename(photos / name)
    assert open_source("folder", "validation", photos).split == name


def test_other_names_of_splits_are_named(photos):
    (photos / "train").rename(photos / "Training")
    (photos / "test").mkdir()
    assert "'Training', which looks like a split" in refusal(photos)
    assert len(listed(photos, train_split="Training")) == 5
    assert len(listed(photos, "validation", train_split="Training", validation_split="val")) == 3
    line = refusal(photos, "validation", train_split="Training", validation_split="dev")
    assert line.startswith("validation_split='dev': ")
    assert line.endswith("has no such split; there is 'Training', 'test', 'val'")
    assert "train_split='../photos/Training'" in refusal(photos, train_split="../photos/Training")


@pytest.mark.parametrize("inside", ["", "train/"])
def test_one_split_is_divided_by_a_share_of_each_class(make_folder, inside):
    counts = {"a": 10, "b": 5, "c": 1}
    root = make_folder(*[f"{inside}{kind}/{number}.png" for kind in counts for number in range(counts[kind])])
    train, valid = listed(root), listed(root, "validation")
    assert {kind: sum(kind == each for _, each in valid) for kind in "abc"} == {"a": 2, "b": 1, "c": 0}
    assert sorted(train + valid) == sorted({*train, *valid})
    assert len(train) + len(valid) == 16
    assert train == sorted(train)
    assert listed(root, "validation") == valid
    assert listed(root, "validation", seed=1) != valid
    assert len(listed(root, "validation", validation_share=0.5)) == 5 + 3
    halves = [open_source("folder", part, root, validation_share=0.5) for part in ("train", "validation")]
    assert halves[0].split != halves[1].split
    assert halves[0].fingerprint != halves[1].fingerprint


def test_a_share_beside_a_validation_split_is_refused(photos):
    assert "has a validation split, 'val'; leave the share out" in refusal(photos, validation_share=0.3)
    assert len(listed(photos, "validation", validation_share=0.3, train_split="train")) == 2


def test_too_few_pictures_for_a_share(make_folder):
    root = make_folder("a/1.png", "b/1.png")
    assert "no class has enough to give one to validation" in refusal(root)


def test_keys_are_refused(photos):
    assert refusal(photos, image_key="img").startswith("image_key='img': directories have no columns")
    assert refusal(photos, label_key="x").startswith("label_key='x': directories have no columns")


def test_a_name_with_a_version_is_refused(photos):
    with pytest.raises(UserError, match=r"dataset='folder:1\.0\.0': has no versions; its name is 'folder'"):
        open_source("folder:1.0.0", "train", photos)


def test_which_files_are_pictures(make_folder):
    root = make_folder(
        *("train/cat/B.PNG", "train/cat/a b.jpeg", "train/cat/deep/er/x.png", "train/dog/caf\u00e9.png"),
        *("train/dog/cafe\u0301.png", "train/dog/\u732b.WebP"),
        *("train/cat/._B.PNG", "train/cat/.ipynb_checkpoints/B.png", "train/__MACOSX/cat/B.png", "train/.git/x.png"),
        *("train/cat/Thumbs.db", "train/dog/desktop.ini", "train/.DS_Store", "train/dog/.hidden/x.png"),
        *("train/cat/notes.txt", "train/dog/sub/notes.TXT", "train/dog/README", "train/beside.jpg"),
        *("val/cat/x.png", "val/dog/x.png", "license.txt"),
    )
    assert listed(root) == [
        ("train/cat/B.PNG", "cat"),
        ("train/cat/a b.jpeg", "cat"),
        ("train/cat/deep/er/x.png", "cat"),
        ("train/dog/cafe\u0301.png", "dog"),
        ("train/dog/caf\u00e9.png", "dog"),
        ("train/dog/\u732b.WebP", "dog"),
    ]
    directory = (root / "train").resolve()
    assert open_source("folder", "train", root).notes == (
        f"{directory}: files left out, whose endings are no picture's ('.txt', ''): 3",
        f"{directory}: pictures left out, which are in no class's directory: 1",
    )


def test_links_are_followed_and_loops_end(photos, make_folder):
    elsewhere = make_folder("x/1.png", "x/2.png", root="elsewhere")
    cat = photos / "train" / "cat"
    (cat / "linked").symlink_to(elsewhere / "x")
    (cat / "file.png").symlink_to(elsewhere / "x" / "1.png")
    (cat / "loop").symlink_to(cat)
    (cat / "up").symlink_to(photos / "train")
    (cat / "self").symlink_to(cat / "self")
    (photos / "train" / "bird").symlink_to(elsewhere)
    assert [name for name, kind in listed(photos) if kind == "cat"] == [
        "train/cat/1.png",
        "train/cat/2.png",
        "train/cat/3.png",
        "train/cat/file.png",
        "train/cat/linked/1.png",
        "train/cat/linked/2.png",
    ]
    assert [name for name, kind in listed(photos) if kind == "bird"] == ["train/bird/x/1.png", "train/bird/x/2.png"]


def test_what_is_no_picture_is_named_when_it_is_read(photos):
    cat = photos / "train" / "cat"
    (cat / "0.png").write_bytes(b"no picture")
    (cat / "4.jpg").symlink_to(photos / "nowhere")
    os.mkfifo(cat / "5.png")
    source = open_source("folder", "train", photos)
    place = (cat / "0.png").resolve()
    with pytest.raises(UserError, match=rf"image 0 in {place} \(class 'cat'\): not a JPEG, PNG"):
        source[0]
    with pytest.raises(UserError, match=r"4\.jpg: No such file or directory"):
        source[4]
    with pytest.raises(UserError, match=r"5\.png: the record is damaged \(not a regular file\)"):
        source[5]
    with pytest.raises(IndexError):
        source.label(len(source))


def test_a_class_that_validation_lacks_is_said(photos):
    (photos / "val" / "dog" / "8.png").rename(photos / "val" / "cat" / "7.png")
    source = open_source("folder", "validation", photos)
    assert source.class_names == ("cat", "dog")
    assert source.notes == (f"{(photos / 'val').resolve()}: no pictures of the class 'dog', which training has",)


def test_a_class_that_training_lacks_is_refused(photos):
    (photos / "val" / "dog").rename(photos / "val" / "bird")
    assert "has the class 'bird', which the training images do not have" in refusal(photos, "validation")


def test_classes_may_be_called_train_or_have_a_directory_below(make_folder):
    root = make_folder(*[f"{kind}/{n}.png" for kind in ("bus", "train", "car/red") for n in range(5)])
    assert open_source("folder", "train", root).class_names == ("bus", "car", "train")


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["1.png", "2.png"], "has pictures, but no directories; expected is a directory with train/"),
        (["notes.txt"], "has no directories with pictures; expected is"),
        (["train.npz"], "has no directories with pictures; it has arrays: dataset=npz reads them"),
        (["train.parquet"], "parquet files: dataset=parquet reads them"),
        (["data/train-00000-of-00001.parquet"], "it has parquet files: dataset=parquet reads them"),
        ([".cat/1.png", ".dog/2.png", "__MACOSX/3.png", "._4.npz"], "has no directories with pictures; expected is"),
        (["cat/1.png"], "has one class, 'cat', and at least 2 are needed; expected is"),
        (["train/1.png", "val/cat/1.png"], "train has pictures, but no directories; expected is"),
        (["train/cat/1.png", "val/cat/1.png"], "train has one class, 'cat'"),
        (["training/cat/1.png", "training/dog/1.png", "val/cat/1.png"], "'training', which looks like a split"),
        (["cat/1.png", "dog/notes.txt"], "has no pictures of the class 'dog'; a picture's name ends in .jpg"),
        (["train/a/1.png", "train/b/1.png", "bus/1.png"], "train/ with directories in it, and beside it 'bus'"),
        (["x/train/a/1.png", "x/train/b/1.png", "x/val/a/1.png"], "x holds train/; perhaps you mean data_dir="),
        (["x/train/a/1.png", "x/test/b/1.png", "y/val/a/1.png"], "x holds train/; perhaps you mean data_dir="),
    ],
)
def test_other_layouts_are_refused(make_folder, names, line):
    root = make_folder(*names)
    found = refusal(root)
    assert line in found
    assert str(root) in found


def test_an_empty_folder_no_folder_and_a_file(tmp_path, photos):
    (tmp_path / "empty").mkdir()
    assert "has no directories with pictures; expected is" in refusal(tmp_path / "empty")
    assert "no such directory; expected is a directory with train/" in refusal(tmp_path / "nowhere")
    file = photos / "val" / "dog" / "8.png"
    assert f"is a file; name the directory that it lies in, '{file.parent}'; expected is" in refusal(file)
    for archive in (tmp_path / "photos.zip", tmp_path / "photos.tar.GZ"):
        archive.touch()
        assert "is an archive; unpack it, and name the directory; expected is" in refusal(archive)
    with pytest.raises(UserError, match="dataset='folder': needs data_dir; expected is"):
        open_source("folder", "train")
    with pytest.raises(UserError, match="needs data_dir"):
        dataset_metadata("folder")


def test_a_folder_that_may_not_be_read(photos, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # the superuser may read any folder
    assert refusal(photos).startswith(f"{photos.resolve()}: Permission denied; expected is")
