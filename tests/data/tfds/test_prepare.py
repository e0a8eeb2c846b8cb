"""prepare: TFDS's own builders and downloader work without TensorFlow, with a web server on this machine."""

import concurrent.futures
import contextlib
import gzip
import importlib.util
import io
import json
import os
import shutil
import struct
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from flax_resnets import cli
from flax_resnets.data.decode import decode
from flax_resnets.data.source import open_source
from flax_resnets.data.tfds.patches import NeedsTensorFlow, tensorflow_stand_in
from flax_resnets.data.tfds.prepare import _entries, _leaving_no_rubbish, prepare
from flax_resnets.errors import UserError

without_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="with TensorFlow there is no stand-in"
)
SYNSETS = ["n01440764", "n02102040", "n03888257"]


def pictures(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


@pytest.fixture
def imagenette(website, monkeypatch) -> list[bytes]:
    """Puts an archive like Imagenette's on the website; returns the JPEGs of its training images."""
    from tensorflow_datasets.datasets.imagenette import imagenette_dataset_builder

    directory, address = website
    jpegs = [simplejpeg.encode_jpeg(picture) for picture in pictures(9, 20, 30, 3)]
    with tarfile.open(directory / "imagenette2-160.tgz", "w:gz") as archive:
        for number, jpeg in enumerate(jpegs):
            for part in ("train", "val") if number < 3 else ("train",):
                name = f"imagenette2-160/{part}/{SYNSETS[number % 3]}/{part}_{number}.JPEG"
                member = tarfile.TarInfo(name)
                member.size = len(jpeg)
                archive.addfile(member, io.BytesIO(jpeg))
    monkeypatch.setattr(imagenette_dataset_builder, "_URL_PREFIX", address)
    return jpegs


@pytest.fixture
def fashion_mnist(website, monkeypatch) -> np.ndarray:
    """Puts files like Fashion-MNIST's on the website; returns its training images, whose labels are 0, 1, 2, ..."""
    from tensorflow_datasets.image_classification import mnist

    directory, address = website
    images = pictures(10, 28, 28)
    for name, count in {"train": 10, "t10k": 4}.items():
        head = struct.pack(">4i", 2051, count, 28, 28)
        (directory / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + images[:count].tobytes()))
        labels = struct.pack(">2i", 2049, count) + bytes(range(count))
        (directory / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", 10)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", 4)
    monkeypatch.setattr(mnist.FashionMNIST, "URL", address)
    return images


def test_imagenette_is_downloaded_and_prepared_by_opening_it(imagenette, data_dir):
    train = open_source("imagenette/160px-v2", "train", data_dir)
    assert (len(train), train.num_classes, train.split) == (9, 10, "train")
    assert sorted(train.encoded(index) for index in range(9)) == sorted(imagenette)
    for index in range(9):
        number = imagenette.index(train.encoded(index))
        assert train.class_names[train.label(index)] == SYNSETS[number % 3]
        np.testing.assert_array_equal(train.image(index), decode(imagenette[number], 3))
    assert open_source("imagenette/160px-v2", "validation", data_dir).split == "validation"


def test_fashion_mnist_is_downloaded_and_prepared_by_opening_it(fashion_mnist, data_dir):
    train = open_source("fashion_mnist", "train", data_dir)
    assert len(train) == 10
    for image, label in (train[index] for index in range(10)):
        np.testing.assert_array_equal(image[..., 0], fashion_mnist[label])
    assert len(open_source("fashion_mnist", "validation", data_dir)) == 4


def test_it_is_laid_out_as_tfds_lays_out_its_datasets(fashion_mnist, data_dir):
    open_source("fashion_mnist", "train", data_dir)
    directory = data_dir / "fashion_mnist" / "3.0.1"
    assert sorted(path.name for path in directory.iterdir()) == [
        "dataset_info.json",
        "fashion_mnist-test.array_record-00000-of-00001",
        "fashion_mnist-train.array_record-00000-of-00001",
        "features.json",
        "label.labels.txt",
    ]
    info = json.loads((directory / "dataset_info.json").read_text())
    assert (info["name"], info["version"], info["fileFormat"]) == ("fashion_mnist", "3.0.1", "array_record")
    assert info["moduleName"] == "tensorflow_datasets.image_classification.mnist"
    assert [(split["name"], split["shardLengths"]) for split in info["splits"]] == [("train", ["10"]), ("test", ["4"])]
    sample = open_source("fashion_mnist_sample", "train").directory
    assert (directory / "features.json").read_text() == (sample / "features.json").read_text()


def test_one_prepared_in_another_format_is_prepared_again_as_its_refusal_says(fashion_mnist, data_dir, tmp_path):
    directory = open_source("fashion_mnist", "train", data_dir).directory
    info = directory / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"riegeli"'))
    with pytest.raises(UserError, match="with data_dir=ANOTHER, an existing directory, it is prepared there"):
        open_source("fashion_mnist", "train", data_dir)
    (tmp_path / "another").mkdir()
    assert len(open_source("fashion_mnist", "train", tmp_path / "another")) == 10


def test_a_builder_of_ones_own_writes_records_that_can_be_read(data_dir):
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder):
        __module__ = "flax_resnets.photos"  # on Python 3.11 TFDS defines no builder outside a package
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = None

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(8, 8, 3)),
                "label": tfds.features.ClassLabel(names=["cat", "dog"]),
            }
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number, picture in enumerate(pictures(6, 8, 8, 3)):
                yield number, {"image": picture, "label": number % 2}

    prepare(Photos(data_dir=data_dir))
    source = open_source("photos", "train", data_dir)
    assert sorted(source.image(index).tobytes() for index in range(6)) == sorted(
        picture.tobytes() for picture in pictures(6, 8, 8, 3)
    )


def test_the_command_prepares_beforehand(fashion_mnist, data_dir, capsys):
    for done in ("is prepared", "was prepared already"):
        assert cli.main(["prepare", "fashion_mnist", f"--data_dir={data_dir}"]) == 0
        lines = capsys.readouterr().out.splitlines()[-3:]
        assert lines[0] == f"fashion_mnist/3.0.1: {done}, as array_record in {data_dir}/fashion_mnist/3.0.1"
        assert lines[1:] == ["  train: 10 examples", "  test: 4 examples"]


def test_the_command_prints_json_alone(fashion_mnist, data_dir, capsys):
    assert cli.main(["prepare", "fashion_mnist", f"--data_dir={data_dir}", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["splits"] == {"train": 10, "test": 4}
    assert "downloading and preparing it" in err


def test_once_prepared_it_is_not_downloaded_again(fashion_mnist, website, data_dir):
    first = open_source("fashion_mnist", "train", data_dir)
    for path in website[0].iterdir():
        path.unlink()
    assert open_source("fashion_mnist", "train", data_dir).fingerprint == first.fingerprint


def test_a_file_that_is_gone_from_its_server(fashion_mnist, website, data_dir):
    (website[0] / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"fashion_mnist.* is not prepared in data_dir=.*HTTP code: 404"):
        open_source("fashion_mnist", "train", data_dir)
    assert not (data_dir / "fashion_mnist").exists()
    assert not list(data_dir.rglob("*tmp*"))


def test_a_server_out_of_reach(data_dir, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    monkeypatch.setattr(mnist.FashionMNIST, "URL", "http://127.0.0.1:9/")
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/\S+ cannot be reached"):
        open_source("fashion_mnist", "train", data_dir)
    assert not list(data_dir.iterdir())


def test_an_archive_that_is_cut_short(imagenette, website, data_dir):
    archive = website[0] / "imagenette2-160.tgz"
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(UserError, match="preparing it failed: Error while extracting"):
        open_source("imagenette/160px-v2", "train", data_dir)
    assert not (data_dir / "imagenette").exists()
    assert not list((data_dir / "downloads").glob("extracted/*"))


def test_threads_that_write_on_after_a_failure_leave_nothing_either(tmp_path):
    def write_on():
        for number in range(20):
            path = tmp_path / "downloads" / "extracted" / "incomplete.1_archive" / f"{number}.jpg"
            with contextlib.suppress(OSError):  # its directory may be removed between the two lines
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
            time.sleep(0.01)

    writer = threading.Thread(target=write_on)

    def fail():
        with _leaving_no_rubbish(tmp_path, "imagenette"):
            writer.start()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    writer.join()
    assert not list(tmp_path.iterdir())


def test_entries_that_come_and_go_while_they_are_listed(tmp_path):
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            for number in range(20):
                (tmp_path / "downloads" / f"{number}.tmp.1" / "deep").mkdir(parents=True)
            for number in range(20):
                shutil.rmtree(tmp_path / "downloads" / f"{number}.tmp.1")

    (tmp_path / "downloads" / "whole").mkdir(parents=True)
    with concurrent.futures.ThreadPoolExecutor() as threads:
        threads.submit(come_and_go)
        try:
            for _ in range(300):
                assert tmp_path / "downloads" / "whole" in _entries(tmp_path, "imagenette")
        finally:
            stop.set()


def test_ctrl_c_leaves_nothing_half_made(fashion_mnist, data_dir, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(mnist, "_extract_mnist_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_source("fashion_mnist", "train", data_dir)
    assert not (data_dir / "fashion_mnist").exists()


def test_a_file_in_the_datasets_place(fashion_mnist, data_dir):
    (data_dir / "fashion_mnist").touch()
    with pytest.raises(UserError, match="fashion_mnist"):
        open_source("fashion_mnist", "train", data_dir)


@pytest.fixture
def unwritable(data_dir):
    """A directory that this process may not write to."""
    if os.getuid() == 0:  # permissions do not apply to root
        yield Path("/sys")
        return
    data_dir.chmod(0o555)
    yield data_dir
    data_dir.chmod(0o755)


def test_a_data_dir_that_cannot_be_written(unwritable):
    with pytest.raises(UserError, match=rf"is not prepared in data_dir='{unwritable}', and cannot be: .* writable"):
        open_source("fashion_mnist", "train", unwritable)
    assert not (unwritable / "fashion_mnist").exists()


def test_only_one_of_two_threads_prepares(fashion_mnist, data_dir, monkeypatch):
    import tensorflow_datasets as tfds

    calls = []
    original = tfds.core.DatasetBuilder.download_and_prepare

    def counted(*args, **kwargs):
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", counted)
    builders = [tfds.builder("fashion_mnist", data_dir=data_dir) for _ in range(2)]
    threads = [threading.Thread(target=prepare, args=[builder]) for builder in builders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1


@without_tensorflow
def test_the_stand_in_is_gone_afterwards(fashion_mnist, data_dir):
    from tensorflow_datasets.core import shuffle

    before = shuffle.tf
    with tensorflow_stand_in():
        assert shuffle.tf is not before
        assert shuffle.tf.io.gfile.exists(str(data_dir))
    assert shuffle.tf is before
    assert "tensorflow" not in sys.modules


@without_tensorflow
def test_what_the_stand_in_lacks_is_said_by_name(fashion_mnist, data_dir, monkeypatch):
    from tensorflow_datasets.image_classification import mnist

    with tensorflow_stand_in(), pytest.raises(NeedsTensorFlow, match="'zeros'"):
        mnist.tf.zeros([1])
    monkeypatch.setattr(mnist, "_extract_mnist_images", lambda *args: mnist.tf.zeros([1]))
    with pytest.raises(UserError, match="its builder uses TensorFlow's 'zeros'; install tensorflow"):
        open_source("fashion_mnist", "train", data_dir)


@without_tensorflow
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_its_png_is_lossless(channels):
    from tensorflow_datasets.core.features import image_feature

    pixels = pictures(1, 5, 7, channels)[0]
    with tensorflow_stand_in():
        png = image_feature.tf.image.encode_png(pixels).numpy()
        np.testing.assert_array_equal(image_feature.tf.image.decode_image(png), pixels)
    np.testing.assert_array_equal(decode(png, 1 if channels == 1 else 3), pixels[..., :3])


@without_tensorflow
@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 4), ("P", 3), ("RGB", 3), ("RGBA", 4), ("CMYK", 3)]
)
def test_it_decodes_images_of_any_mode(mode, channels):
    from tensorflow_datasets.core.utils import image_utils

    buffer = io.BytesIO()
    Image.fromarray(pictures(1, 5, 7, 3)[0]).convert(mode).save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    with tensorflow_stand_in():
        assert image_utils.decode_image(buffer.getvalue()).shape == (5, 7, channels)
        assert image_utils.tf.image.decode_png(buffer.getvalue(), channels=3).shape == (5, 7, 3)


def test_a_large_dataset_that_is_sorted_on_disk(imagenette, data_dir, monkeypatch):
    from tensorflow_datasets.core import shuffle

    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1)
    train = open_source("imagenette/160px-v2", "train", data_dir)
    assert sorted(train.encoded(index) for index in range(9)) == sorted(imagenette)
    assert not list(Path(train.directory).glob("*bucket*"))
