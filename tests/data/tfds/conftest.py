"""Datasets made from small archives by TFDS's own builders, and datasets as tfrecord."""

from collections.abc import Callable
from pathlib import Path

import pytest
from small_archives import BUILDERS


@pytest.fixture
def archives_of(website, data_dir, monkeypatch) -> Callable[[str], None]:
    """A function that offers the small archives of a dataset to TFDS's builder of that name."""

    def offer(dataset: str) -> None:
        archives = {each.__name__: each for each in BUILDERS}
        archives[dataset](*website, data_dir, monkeypatch)

    return offer


@pytest.fixture
def as_tfrecord() -> Callable[[Path], None]:
    """A function that turns a prepared dataset into one that TFDS has prepared as tfrecord."""

    def convert(directory: Path) -> None:
        from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled
        from tensorboardX.record_writer import RecordWriter

        for path in directory.glob("*.array_record-*"):
            writer = RecordWriter(str(path).replace(".array_record-", ".tfrecord-"))
            for record in array_record_module.ArrayRecordReader(str(path)).read_all():
                writer.write(record)
            writer.close()
        info = directory / "dataset_info.json"
        info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))

    return convert
