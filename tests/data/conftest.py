"""Datasets for tests: copies of the bundled sample, which tests may damage, and small datasets made here."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flax_resnets.data


@pytest.fixture(autouse=True)
def cache_dir(tmp_path, monkeypatch) -> Path:
    """Gives each test its own directory for image caches."""
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
    """A `data_dir` in which `my_images` is prepared: the bundled sample under another name."""
    original = Path(flax_resnets.data.__file__).parent / "sample" / "fashion_mnist_sample" / "1.0.0"
    copy = data_dir / "my_images" / "1.0.0"
    copy.mkdir(parents=True)
    for path in original.iterdir():
        shutil.copyfile(path, copy / path.name.replace("fashion_mnist_sample", "my_images"))
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace("fashion_mnist_sample", "my_images"))
    return data_dir


@pytest.fixture
def make_set(data_dir) -> Callable[..., Path]:
    """A function that writes a dataset in TFDS's layout for which TFDS has no code, and returns its directory."""

    def make(name: str, features: dict[str, Any], splits: dict[str, list[list[dict[str, Any]]]]) -> Path:
        """`splits` has, for each split, a list of record files, each a list of examples."""
        import tensorflow_datasets as tfds
        from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled
        from tensorflow_datasets.core.example_serializer import ExampleSerializer

        directory = data_dir / name / "1.0.0"
        directory.mkdir(parents=True)
        connector = tfds.features.FeaturesDict(features)
        (directory / "features.json").write_text(json.dumps(connector.to_json()))
        connector.save_metadata(directory)
        serializer = ExampleSerializer(connector.get_serialized_info())
        infos = []
        for split, files in splits.items():
            for number, examples in enumerate(files):
                path = directory / f"{name}-{split}.array_record-{number:05}-of-{len(files):05}"
                writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
                for example in examples:
                    writer.write(serializer.serialize_example(connector.encode_example(example)))
                writer.close()
            infos.append(
                {
                    "name": split,
                    "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                    "shardLengths": [str(len(examples)) for examples in files],
                    "numBytes": "1000",
                }
            )
        info = {"name": name, "version": "1.0.0", "fileFormat": "array_record", "splits": infos}
        (directory / "dataset_info.json").write_text(json.dumps(info))
        return directory

    return make
