"""open_source: opens any image-classification dataset of TFDS, and names each mistake in one line."""

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets.data.source import open_source
from flax_resnets.data.tfds.source import _fingerprints
from flax_resnets.errors import UserError

TRAIN = "my_images-train.array_record-00000-of-00001"


def damage(path: Path, position: int, patch: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        file.write(patch)


def rewrite(data_dir: Path, name: str, replacements: dict[str, str]) -> None:
    path = data_dir / "my_images" / "1.0.0" / name
    text = path.read_text()
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def replace_images(directory: Path, split: str, encode) -> None:
    """Rewrites the split's records: they stay valid, but have other bytes in place of the images."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled
    from tensorflow_datasets.proto import tf_example_pb2

    path = str(directory / f"my_images-{split}.array_record-00000-of-00001")
    records = array_record_module.ArrayRecordReader(path).read_all()
    writer = array_record_module.ArrayRecordWriter(path, "group_size:1")
    for index, record in enumerate(records):
        example = tf_example_pb2.Example.FromString(record)  # pyright: ignore[reportAttributeAccessIssue]  # generated
        image = example.features.feature["image"].bytes_list.value
        image[0] = encode(index, image[0])
        writer.write(example.SerializeToString())
    writer.close()


def test_a_prepared_set_is_read_by_index(prepared):
    source = open_source("my_images", "train", prepared)
    assert (len(source), source.num_classes, source.channels) == (6000, 10, 1)
    assert source.image_shape == (28, 28, 1)
    assert source.class_names[-1] == "Ankle boot"
    assert source.encoded(0).startswith(b"\x89PNG")
    image, label = source[0]
    assert (image.shape, image.dtype) == ((28, 28, 1), np.uint8)
    assert (source.label(0), label) == (label, label)
    np.testing.assert_array_equal(source.image(0), image)
    assert "6000 images of 10 classes" in repr(source)


def test_validation_is_the_test_split_where_there_is_no_other(prepared):
    assert open_source("my_images", "validation", prepared).split == "test"
    rewrite(prepared, "dataset_info.json", {'"test"': '"validation"'})
    directory = prepared / "my_images" / "1.0.0"
    (directory / "my_images-test.array_record-00000-of-00001").rename(
        directory / "my_images-validation.array_record-00000-of-00001"
    )
    assert open_source("my_images", "validation", prepared).split == "validation"


def test_an_index_outside_is_an_index_error(prepared):
    source = open_source("my_images", "validation", prepared)
    for index in (-1, len(source)):
        with pytest.raises(IndexError):
            source.image(index)


def test_the_fingerprint_changes_with_the_content_and_only_then(prepared):
    first = open_source("my_images", "train", prepared).fingerprint
    assert open_source("my_images", "validation", prepared).fingerprint != first
    path = prepared / "my_images" / "1.0.0" / TRAIN
    os.utime(path, (1, 1))
    assert open_source("my_images", "train", prepared).fingerprint == first
    damage(path, path.stat().st_size // 2, bytes(16))
    os.utime(path, (1, 1))
    assert open_source("my_images", "train", prepared).fingerprint != first


def test_a_read_only_data_dir_works_when_the_set_is_prepared(prepared):
    entries = [prepared, *prepared.rglob("*")]
    for path in entries:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert open_source("my_images", "train", prepared).image(0).any()
    finally:
        for path in entries:
            path.chmod(0o755)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("cifar1O", "did you mean 'cifar10'"),
        ("foldr", "did you mean 'folder'"),
        ("fashion_mnist_sampel", "did you mean 'fashion_mnist_sample'"),
        ("imagenette/160px-v3", "did you mean 'imagenette/160px-v2'"),
        ("cifar10:1.0.0", "only: 3.0.2"),
        ("fashion mnist", "must be a TFDS name .* did you mean 'fashion_mnist'"),
        ("fashion-mnist", "did you mean 'fashion_mnist'"),
        ("mnist_fashion", "did you mean 'fashion_mnist'"),
        ("cifar-10", r"did you mean 'cifar10'\?"),
        ("cifar", "did you mean 'cifar10' or 'cifar100'"),
        ("imagenet", r"did you mean 'imagenet2012'\?"),
        ("cats-vs-dogs", "did you mean 'cats_vs_dogs'"),
        ("flowers", "did you mean 'tf_flowers' or 'oxford_flowers102'"),
        ("Imagenette", r"did you mean 'imagenette'\?"),
        ("Imagenette/160px-v2", "did you mean 'imagenette'"),
        ("Fashion-MNIST-sample", "did you mean 'fashion_mnist_sample'"),
        ("../my_images", "must be a TFDS name"),
        ("", "must be a TFDS name"),
        ("imdb_reviews", "must have the features 'image' and 'label'"),
        ("voc", "must have the features 'image' and 'label'"),
    ],
)
def test_unsuitable_dataset(dataset, message, data_dir):
    with pytest.raises(UserError, match=message) as error:
        open_source(dataset, "train", data_dir)
    assert repr(dataset) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(data_dir.iterdir())


def image(shape=(None, None, 3), **options):
    import tensorflow_datasets as tfds

    return tfds.features.Image(shape=shape, **options)


def classes(count=3):
    import tensorflow_datasets as tfds

    return tfds.features.ClassLabel(num_classes=count)


def tensor(dtype, shape=()):
    import tensorflow_datasets as tfds

    return tfds.features.Tensor(shape=shape, dtype=dtype)


def text():
    import tensorflow_datasets as tfds

    return tfds.features.Text()


def sequence(feature):
    import tensorflow_datasets as tfds

    return tfds.features.Sequence(feature)


NO_IMAGE = "'image' is missing, must be an Image of uint8 with 1 or 3 channels"
NO_LABEL = "'label' is missing, must be a ClassLabel with at least 2 classes, or a Sequence of it"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (lambda: {"image": tensor(np.uint8, (28, 28, 1))}, "'image' is Tensor of uint8, shape (28, 28, 1), must be an"),
        (lambda: {"image": text()}, "'image' is Text, must be an Image"),
        (lambda: {"image": sequence(image())}, "'image' is Sequence of Image of uint8 with 3 channels, must be"),
        (lambda: {"image": {"encoded": text()}}, "'image' is FeaturesDict of 'encoded', must be"),
        (lambda: {"image": image((9, 9, 1), dtype=np.uint16)}, "'image' is Image of uint16 with 1 channel, must be"),
        (lambda: {"image": image((9, 9, 4))}, "'image' is Image of uint8 with 4 channels, must be"),
        (lambda: {"image": image((9, 9, None))}, "'image' is Image of uint8 with any number of channels, must be"),
        (
            lambda: {"label": tensor(np.int64)},
            "'label' is Tensor of int64, must be a ClassLabel with at least 2 classes",
        ),
        (lambda: {"label": tensor(np.float32, (10,))}, "'label' is Tensor of float32, shape (10,), must be"),
        (lambda: {"label": text()}, "'label' is Text, must be"),
        (lambda: {"label": sequence(text())}, "'label' is Sequence of Text, must be"),
        (lambda: {"label": classes(1)}, "'label' is ClassLabel with 1 class, must be"),
        (lambda: {"label": classes(0)}, "'label' is ClassLabel with no classes, must be"),
        (lambda: {"image": text(), "label": text()}, "Image of uint8 with 1 or 3 channels; 'label' is Text, must be"),
        (
            lambda: {"label": None, "fine_label": classes(), "coarse_label": classes(), "id": text()},
            f"{NO_LABEL} (there is 'coarse_label', 'fine_label')",
        ),
        (lambda: {"label": None, "objects": sequence({"label": classes()})}, f"{NO_LABEL} (there is 'objects/label')"),
        (lambda: {"image": None, "photo": image()}, f"{NO_IMAGE} (there is 'photo')"),
        (lambda: {"image": None, "label": None, "data": {"image": image()}}, f"{NO_IMAGE} (there is 'data/image')"),
        (lambda: {"image": None}, f"{NO_IMAGE} (there is 'label')"),
        (lambda: {"label": None, **{f"{each}_name": text() for each in range(40)}}, "'12_name', '13_name', ...)"),
    ],
)
def test_features_of_another_kind_are_named_with_what_they_are_and_what_is_needed(
    features, message, make_set, data_dir
):
    changed = {"image": image(), "label": classes(), **features()}
    make_set("my_images", {name: each for name, each in changed.items() if each is not None}, {"train": []})
    with pytest.raises(UserError) as error:
        open_source("my_images", "train", data_dir)
    assert message in str(error.value)
    assert len(str(error.value)) < 600


def test_classes_that_are_not_counted(make_set, data_dir):
    directory = make_set("my_images", {"image": image(), "label": classes()}, {"train": []})
    features = directory / "features.json"
    features.write_text(features.read_text().replace('"numClasses": "3"', ""))
    with pytest.raises(UserError, match="'label' is ClassLabel with no classes, must be"):
        open_source("my_images", "train", data_dir)


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow describes videos")
def test_features_that_tfds_has_with_tensorflow_alone(prepared):
    path = prepared / "my_images" / "1.0.0" / "features.json"
    content = json.loads(path.read_text())
    content["featuresDict"]["features"]["image"] = {
        "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
        "video": {"shape": {"dimensions": ["-1", "28", "28", "1"]}, "dtype": "uint8"},
    }
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"must have the features .* only with TensorFlow; 'image' is Video$"):
        open_source("my_images", "train", prepared)


def test_another_version_than_there_is(prepared):
    with pytest.raises(UserError, match=r"'my_images:2.0.0': .* data_dir='.*' holds its 1\.0\.0"):
        open_source("my_images:2.0.0", "train", prepared)


def test_a_split_without_images(make_set, data_dir):
    make_set("my_images", {"image": image(), "label": classes()}, {"train": []})
    with pytest.raises(UserError, match=r"'my_images' in .*1\.0\.0: its split 'train' has no images"):
        open_source("my_images", "train", data_dir)


@pytest.mark.parametrize("dataset", ["fashion_mnist_sample", "my_images"])
def test_a_data_dir_that_does_not_exist(dataset, tmp_path):
    with pytest.raises(UserError, match=r"data_dir='.*nowhere': no such directory"):
        open_source(dataset, "train", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_an_unknown_split(prepared):
    with pytest.raises(UserError, match="split='test': must be 'train', 'validation' or 'all'"):
        open_source("my_images", "test", prepared)  # pyright: ignore[reportArgumentType]
    rewrite(prepared, "dataset_info.json", {'"test"': '"extra"'})
    with pytest.raises(UserError, match="has no validation split, only"):
        open_source("my_images", "validation", prepared)


def test_records_of_another_format(prepared):
    rewrite(prepared, "dataset_info.json", {'"array_record"': '"riegeli"'})
    with pytest.raises(
        UserError,
        match=r"prepared as riegeli, which cannot be read by index; .*prepare\(Builder\(data_dir=ANOTHER\)\)",
    ):
        open_source("my_images", "train", prepared)


@pytest.mark.parametrize("kept", [0, 10, 65536, 1_900_544, 3_801_087])
def test_a_truncated_record_file(kept, prepared):
    os.truncate(prepared / "my_images" / "1.0.0" / TRAIN, kept)
    with pytest.raises(UserError, match=f"{TRAIN}: damaged or cut short, 0 of its 6000 records"):
        open_source("my_images", "train", prepared)


def test_a_missing_record_file(prepared):
    (prepared / "my_images" / "1.0.0" / TRAIN).unlink()
    with pytest.raises(UserError, match=f"{TRAIN}: No such file"):
        open_source("my_images", "train", prepared)


def test_a_damaged_index_at_the_end_of_a_record_file(prepared):
    path = prepared / "my_images" / "1.0.0" / TRAIN
    damage(path, path.stat().st_size - 65536, bytes(64))
    with pytest.raises(UserError, match="damaged or cut short"):
        open_source("my_images", "train", prepared)


def test_damaged_metadata(prepared):
    (prepared / "my_images" / "1.0.0" / "features.json").write_text("{")
    with pytest.raises(UserError, match="dataset='my_images'"):
        open_source("my_images", "train", prepared)


def test_a_missing_description_of_the_features(tmp_path):
    """TFDS opens a dataset that it has code for without this file, but the fingerprint needs the file."""
    with pytest.raises(UserError, match=r"features\.json: No such file .*; delete its directory"):
        _fingerprints([], tmp_path)


def test_a_damaged_record_is_named_and_the_others_are_read(prepared):
    path = prepared / "my_images" / "1.0.0" / TRAIN
    damage(path, path.stat().st_size // 2, bytes(16))
    source = open_source("my_images", "train", prepared)
    messages = {}
    for index in range(len(source)):
        try:
            source.label(index)
        except UserError as error:
            messages[index] = str(error)
    [(index, message)] = messages.items()
    assert f"dataset 'my_images', split 'train', image {index} in" in message
    assert "the record is damaged" in message


def test_a_damaged_image_is_named_with_its_class(prepared):
    replace_images(prepared / "my_images" / "1.0.0", "test", lambda i, png: png[:100] if i == 7 else png)
    source = open_source("my_images", "validation", prepared)
    assert source.image(6).any()
    name = source.class_names[source.label(7)]
    with pytest.raises(UserError, match=rf"split 'test', image 7 in .* \(class '{name}'\): not a readable image"):
        source.image(7)


@pytest.mark.parametrize("key", ["file_name", "image/filename", "filename", "image_path", "id", "image/id"])
def test_a_damaged_image_is_named_by_its_place_in_the_files_and_its_own_name(key, make_set, data_dir):
    png = encoded_png()
    example = {"image": png, "label": 1, "label_name": "bird"}
    files = [[{**example, key: f"{number}-{row}.png"} for row in range(3)] for number in range(2)]
    files[1][1]["image"] = png[:-30]
    for each in (*files[0], *files[1]):
        each["image"] = io.BytesIO(each["image"])
    features = {"image": image(), "label": classes(), "label_name": text(), key: text()}
    directory = make_set("my_images", features, {"train": files})
    source = open_source("my_images", "train", data_dir)
    assert source.image(3).shape == (9, 9, 3)
    with pytest.raises(UserError) as error:
        source.image(4)
    path = directory / "my_images-train.array_record-00001-of-00002"
    where = f"dataset 'my_images', split 'train', image 4 in {path.resolve()}, record 1, {key} '1-1.png' (class '1'): "
    assert str(error.value).startswith(where)


def encoded_png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_image_of_another_shape_than_the_dataset_promises(prepared):
    rewrite(prepared, "features.json", {'"28"': '"32"'})
    with pytest.raises(UserError, match=r"image 0 .*its shape is \(28, 28, 1\), the dataset's is \(32, 32, 1\)"):
        open_source("my_images", "train", prepared).image(0)


def test_a_label_without_a_class(prepared):
    rewrite(prepared, "features.json", {'"numClasses": "10"': '"numClasses": "2"'})
    (prepared / "my_images" / "1.0.0" / "label.labels.txt").write_text("yes\nno\n")
    source = open_source("my_images", "train", prepared)
    with pytest.raises(UserError, match=r"label \d is not in range\(2\)"):
        [source.label(index) for index in range(100)]


def test_nothing_but_the_answer_is_printed(prepared):
    code = (
        "import sys; from flax_resnets.data.source import open_source;"
        "assert 'tensorflow_datasets' not in sys.modules;"
        f"open_source('my_images', 'train', {str(prepared)!r}).image(0); assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_module_that_a_datasets_files_name_is_not_imported(prepared, tmp_path, monkeypatch):
    (tmp_path / "not_to_be_imported.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    (path,) = prepared.rglob("features.json")
    path.write_text(path.read_text().replace("tensorflow_datasets.core.features.image_feature", "not_to_be_imported"))
    with pytest.raises(UserError, match=r"features\.json names 'not_to_be_imported\.Image'"):
        open_source("my_images", "train", prepared)


OWN = [
    ("cat/1.JPG", "pictures", "folder"),
    ("train/cat/1.JPG", "pictures", "folder"),
    ("mnist.npz", "arrays", "npz"),
    ("data/train-00000-of-00001.parquet", "parquet files", "parquet"),
    ("train/0000.parquet", "parquet files", "parquet"),
    ("images.csv", "a list of pictures", "folder"),
]


@pytest.mark.parametrize(
    ("dataset", "file", "what", "kind"),
    [("fashion_mnist_sample", *own) for own in OWN]
    # A file of arrays may well lie among TFDS's datasets.
    + [("imagenette/160px-v2", *own) for own in OWN if own[2] == "folder"],
)
def test_nothing_is_prepared_among_a_users_data(tmp_path, file, what, kind, dataset):
    """Who forgets `dataset=folder` is told so, in place of a download into the pictures, or a run on the sample."""
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(b"")
    message = rf"data_dir=.*: holds {what}, such as {file}, and not '{dataset}'; to .* write dataset={kind}$"
    with pytest.raises(UserError, match=message):
        open_source(dataset, "train", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / file]


def test_the_sample_needs_no_directory_and_takes_any(tmp_path):
    for file in (".git/1.png", "._a.npz", "downloads/1.png", "fashion_mnist/3.0.1/features.json", "notes.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    assert len(open_source("fashion_mnist_sample", "validation", tmp_path)) == 1000


@pytest.mark.parametrize("path", ["arrays", "arrays/mnist.npz"])
def test_the_path_of_arrays_in_place_of_a_datasets_name(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    Path("arrays").mkdir()
    Path("arrays/mnist.npz").write_bytes(b"")
    with pytest.raises(UserError, match=r"; for the arrays in it write dataset=npz, data_dir=arrays$"):
        open_source(path, "train")


@pytest.mark.parametrize("name", ["my_holidays", "./my_holidays"])
def test_a_folders_path_in_place_of_a_datasets_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("my_holidays").mkdir()
    with pytest.raises(UserError, match=f"; for the pictures in it write dataset=folder, data_dir={name}$"):
        open_source(name, "train")
