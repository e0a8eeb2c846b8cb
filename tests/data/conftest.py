"""Datasets to test with: copies of the bundled sample that may be damaged, and small ones made here."""

import shutil
from pathlib import Path

import pytest

import flax_resnets.data


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch) -> Path:
    """Keeps every test's image caches to itself."""
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """An empty directory to prepare datasets in."""
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def prepared(data_dir) -> Path:
    """A `data_dir` in which `my_images` lies prepared: the bundled sample under another name."""
    original = Path(flax_resnets.data.__file__).parent / "sample" / "fashion_mnist_sample" / "1.0.0"
    copy = data_dir / "my_images" / "1.0.0"
    copy.mkdir(parents=True)
    for path in original.iterdir():
        shutil.copyfile(path, copy / path.name.replace("fashion_mnist_sample", "my_images"))
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace("fashion_mnist_sample", "my_images"))
    return data_dir
