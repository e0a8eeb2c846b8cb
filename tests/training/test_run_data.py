"""A run resumes with the data that it began with, wherever the files are, and refuses other data."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from flax_resnets.data.cache import CachedImages
from flax_resnets.data.identity import read_identity
from flax_resnets.data.source import open_source
from flax_resnets.data.tfds import SAMPLE_DIR
from flax_resnets.errors import UserError
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.recipes import load_config
from flax_resnets.training.run_data import described, open_data, record_data
from flax_resnets.training.workdir import check_workdir, opened

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.py"
TRAIN = "my_images-train.array_record-00000-of-00001"
TEST = "my_images-test.array_record-00000-of-00001"


def add_version(data_dir: Path, version: str = "1.0.0") -> Path:
    """Copies the bundled sample as `my_images`, prepared in this version."""
    original = SAMPLE_DIR / "fashion_mnist_sample" / "1.0.0"
    copy = data_dir / "my_images" / version
    copy.mkdir(parents=True)
    for path in original.iterdir():
        shutil.copyfile(path, copy / path.name.replace("fashion_mnist_sample", "my_images"))
    info = (copy / "dataset_info.json").read_text()
    info = info.replace("fashion_mnist_sample", "my_images").replace('"version": "1.0.0"', f'"version": "{version}"')
    (copy / "dataset_info.json").write_text(info)
    return copy


def change_a_byte(path: Path) -> None:
    """Changes a byte, but neither the file's size nor its time."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(times.st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def on(data_dir: Path, dataset: str = "my_images") -> Config:
    return load_config(QUICKSTART, {"dataset": dataset, "data_dir": str(data_dir)})


def start(workdir: Path, config: Config, step: int = 0) -> list[str]:
    """Starts a run up to its next step; returns its messages."""
    said: list[str] = []
    check_workdir(config, workdir)
    _, _, found = open_data(config, workdir, said.append)
    with opened(config, workdir):
        record_data(found, workdir, step, said.append)
    return said


@pytest.fixture
def data_dir(tmp_path) -> Path:
    add_version(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def workdir(tmp_path, data_dir) -> Path:
    """The workdir of a run that began with this data."""
    assert start(tmp_path / "run", on(data_dir)) == []
    return tmp_path / "run"


def listing(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in workdir.iterdir()}


def refused(workdir: Path, config: Config) -> str:
    before = listing(workdir)
    with pytest.raises(UserError) as caught:
        start(workdir, config)
    assert listing(workdir) == before
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_the_record_says_what_the_data_is(workdir):
    recorded = read_identity(workdir / "data.json")
    assert recorded is not None
    assert (recorded.dataset, recorded.version, recorded.channels) == ("my_images", "1.0.0", 1)
    assert recorded.counts == {"train": 6000, "validation": 1000}
    assert recorded.splits == {"train": "train", "validation": "test"}
    assert recorded.class_names[:2] == ("T-shirt/top", "Trouser")
    assert len(recorded.fingerprint) == 64


def test_the_same_data_elsewhere_and_touched_goes_on(workdir, data_dir, tmp_path):
    moved = tmp_path / "elsewhere"
    data_dir.rename(moved)
    for path in moved.rglob("*"):
        os.utime(path, (1, 1))
    before = (workdir / "data.json").read_bytes()
    assert start(workdir, on(moved)) == []
    assert (workdir / "data.json").read_bytes() == before


@pytest.mark.parametrize("name", [TRAIN, TEST])
def test_a_changed_byte_is_other_data(workdir, data_dir, name):
    change_a_byte(data_dir / "my_images" / "1.0.0" / name)
    line = refused(workdir, on(data_dir))
    assert f"its run trains on my_images 1.0.0, but data_dir={data_dir} has other images or labels" in line
    assert "pick another workdir" in line


def test_other_counts_are_other_data(workdir, data_dir):
    directory = data_dir / "my_images" / "1.0.0"
    shutil.copyfile(directory / TEST, directory / TRAIN)
    info = (directory / "dataset_info.json").read_text()
    (directory / "dataset_info.json").write_text(info.replace('"6000"', '"1000"'))
    assert "has 1000 train images, not 6000" in refused(workdir, on(data_dir))


def test_other_classes_are_other_data(workdir, data_dir):
    names = data_dir / "my_images" / "1.0.0" / "label.labels.txt"
    text = names.read_text()
    names.write_text(text.replace("Dress", "Gown"))
    assert "has 'Gown' as class 3, not 'Dress'" in refused(workdir, on(data_dir))


def test_beside_a_newer_version_it_goes_on_with_its_own(workdir, data_dir):
    change_a_byte(add_version(data_dir, "1.1.0") / TRAIN)
    assert open_source("my_images", "train", data_dir).version == "1.1.0"
    (line,) = start(workdir, on(data_dir))
    assert line.endswith("going on with my_images 1.0.0, as it began; 1.1.0 is there too")


def test_without_its_version_it_names_it(workdir, data_dir):
    add_version(data_dir, "1.1.0")
    shutil.rmtree(data_dir / "my_images" / "1.0.0")
    line = refused(workdir, on(data_dir))
    assert f"trains on my_images 1.0.0, but data_dir={data_dir} has version 1.1.0" in line
    assert "dataset=my_images:1.0.0" in line


def test_its_version_may_be_named_or_not(workdir, data_dir):
    add_version(data_dir, "1.1.0")
    assert start(workdir, on(data_dir, "my_images:1.0.0")) == []
    assert len(start(workdir, on(data_dir))) == 1
    line = refused(workdir, on(data_dir, "my_images:1.1.0"))
    assert "holds another run, with dataset=my_images:1.0.0 (now my_images:1.1.0)" in line
    assert "dataset=my_images:1.0.0 (now cifar10)" in refused(workdir, on(data_dir, "cifar10"))


def test_a_run_from_before_there_was_a_record_gets_one(workdir, data_dir):
    record = (workdir / "data.json").read_bytes()
    (workdir / "data.json").unlink()
    (line,) = start(workdir, on(data_dir), step=7)
    assert "had no record of its data; taken to be my_images 1.0.0, 6,000 train and 1,000 validation images" in line
    assert (workdir / "data.json").read_bytes() == record
    assert start(workdir, on(data_dir)) == []


def test_a_run_of_the_sample_may_name_its_version(tmp_path):
    config = load_config(QUICKSTART)
    start(tmp_path / "run", config)
    assert start(tmp_path / "run", load_config(QUICKSTART, {"dataset": "fashion_mnist_sample:1.0.0"})) == []


def split_of(labels: list[int], first: int = 0) -> CachedImages:
    """Images of one pixel whose values count up from `first`, in red."""
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    images[:, 0, 0, 0] = first + np.arange(len(labels))
    return CachedImages(images, np.array(labels, np.int32))


def test_what_the_images_tell_is_told_once(workdir, data_dir):
    _, _, found = open_data(on(data_dir), workdir, print)
    train, validation = split_of([0, 1, 1, 9]), split_of([0, 0, 9], first=3)
    told = described(found, on(data_dir), train, validation, Display())
    assert told.class_counts == {"train": (1, 2, *[0] * 7, 1), "validation": (2, *[0] * 8, 1)}
    assert told.in_both == 1
    assert told.mean is None, "the recipe has its own"
    assert described(told, on(data_dir), validation, train, Display()) == told


def test_images_of_one_class_teach_nothing(workdir, data_dir):
    _, _, found = open_data(on(data_dir), workdir, print)
    with pytest.raises(UserError, match="dataset=my_images: all training images are of class 'Dress', so there is"):
        described(found, on(data_dir), split_of([3, 3]), split_of([0, 1]), Display())


def test_a_run_goes_on_from_a_record_of_an_earlier_version(workdir, data_dir):
    recorded = read_identity(workdir / "data.json")
    assert recorded is not None
    assert "class_counts" not in recorded.to_json()
    _, _, found = open_data(on(data_dir), workdir, print)
    assert found == recorded
