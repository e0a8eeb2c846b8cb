"""Datasets prepared as tfrecord, TFDS's default, are read like those prepared as array_record."""

import io
import os
import resource
import shutil
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.data.tfds import tfrecord
from flax_resnets.data.tfds.tfrecord import TfRecords
from flax_resnets.errors import UserError
from flax_resnets.training import run
from flax_resnets.training.config import Config

HEAD, TAIL = 12, 4  # bytes of a record before and after its data


@pytest.fixture
def both(make_set, data_dir, as_tfrecord, tmp_path) -> tuple[Path, Path]:
    """Two `data_dir`s that hold `my_images`, with two files of training images: as array_record and as tfrecord."""
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(names=["cat", "dog"])}
    images = [{"image": io.BytesIO(png(number)), "label": number % 2} for number in range(40)]
    make_set("my_images", features, {"train": [images[:20], images[20:32]], "test": [images[32:]]})
    shutil.copytree(data_dir, tmp_path / "tfrecord")
    as_tfrecord(tmp_path / "tfrecord" / "my_images" / "1.0.0")
    for path in (tmp_path / "tfrecord").rglob("*.array_record-*"):
        path.unlink()
    return data_dir, tmp_path / "tfrecord"


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def written(tmp_path) -> Path:
    """A file of 50 records of 0 to 49 bytes, which tensorboardX wrote."""
    from tensorboardX.record_writer import RecordWriter

    path = tmp_path / "records.tfrecord-00000-of-00001"
    writer = RecordWriter(str(path))
    for number in range(50):
        writer.write(bytes([number]) * number)
    writer.close()
    return path


def test_it_reads_the_same_images_labels_and_names(both):
    for split in ("train", "validation"):
        ours, theirs = (open_source("my_images", split, each) for each in both)
        assert (len(ours), ours.class_names, ours.split) == (len(theirs), theirs.class_names, theirs.split)
        for index in range(len(ours)):
            assert ours.read(index) == theirs.read(index)


def test_a_file_that_another_library_reads(tmp_path):
    """Grain's package has a TFRecord file for its own tests, and reads such files from end to end."""
    from grain.experimental import TFRecordIterDataset

    path = Path(str(files("grain"))) / "_src" / "python" / "testdata" / "morris_sequence_first_5.tfrecord"
    expected = list(TFRecordIterDataset(str(path)))
    records = TfRecords([path], [len(expected)])
    assert [records.read(0, number) for number in range(len(expected))] == expected
    assert len(expected) == 5


@pytest.mark.parametrize("stream", [False, True])
def test_a_step_sees_the_same_images(both, stream):
    def batches(data_dir: Path) -> list[bytes]:
        source = open_source("my_images", "train", data_dir)
        split = StreamedImages(source, 8) if stream else cached_images(source, 8)
        return [array.tobytes() for batch in split.train_batches(8, 0, range(6)) for array in batch]

    assert batches(both[0]) == batches(both[1])


@pytest.mark.slow
def test_a_run_ends_in_the_same_bits(both, tmp_path):
    digests = []
    for number, data_dir in enumerate(both):
        config = Config(
            model="fcn", dataset="my_images", data_dir=str(data_dir), image_size=8, mean=(0.3,), std=(0.3,),
            batch_size=16, epochs=1, learning_rate=1e-3,
        )  # fmt: skip
        digests.append(run(config, tmp_path / f"run-{number}").digest)
    assert digests[0] == digests[1]


def test_the_fingerprint_is_that_of_the_files_so_it_differs_between_the_formats(both):
    ours, theirs = (open_source("my_images", "train", each) for each in both)
    assert ours.fingerprint != theirs.fingerprint


def test_threads_share_the_files(written):
    records = TfRecords([written, written], [50, 50])
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(lambda number: records.read(number % 2, number % 50), range(2000)))
    assert read == [bytes([number % 50]) * (number % 50) for number in range(2000)]


def test_the_index_is_made_once(written, monkeypatch):
    TfRecords([written], [50])
    monkeypatch.setattr(tfrecord, "_found", lambda file: pytest.fail("made again"))
    assert TfRecords([written], [50]).read(0, 49) == bytes([49]) * 49


def test_a_long_search_is_said_on_stderr_unless_it_is_to_be_quiet(both, monkeypatch, capsys, cache_dir):
    monkeypatch.setattr(tfrecord, "_LARGE", 0)
    for quiet in ("0", "1"):
        monkeypatch.setenv("FLAX_RESNETS_QUIET", quiet)
        open_source("my_images", "train", both[1])
        found = capsys.readouterr()
        assert ("looking for the records in 2 files" in found.err) == (quiet == "0")
        assert found.out == ""
        shutil.rmtree(cache_dir)


def test_the_index_is_made_by_one_of_two_that_need_it(written, monkeypatch):
    made, original = [], tfrecord._found
    monkeypatch.setattr(tfrecord, "_found", lambda file: made.append(file) or original(file))
    threads = [threading.Thread(target=TfRecords, args=[[written], [50]]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array"])
def test_a_damaged_index_is_made_again(written, content, cache_dir):
    TfRecords([written], [50])
    (index,) = (cache_dir / "tfrecord-offsets").iterdir()
    whole = index.read_bytes()
    index.write_bytes(content)
    assert TfRecords([written], [50]).read(0, 7) == bytes([7]) * 7
    assert index.read_bytes() == whole


def test_what_a_killed_process_left_is_removed(written, cache_dir):
    (cache_dir / "tfrecord-offsets").mkdir(parents=True)
    (cache_dir / "tfrecord-offsets" / "tmp123").touch()
    TfRecords([written], [50])
    assert [path.suffix for path in (cache_dir / "tfrecord-offsets").iterdir()] == [".npy"]


def test_a_file_that_has_changed_is_indexed_anew(written, cache_dir):
    from tensorboardX.record_writer import RecordWriter

    layout = TfRecords([written], [50]).layout
    writer = RecordWriter(str(written))
    for number in range(50):
        writer.write(bytes([number]) * (49 - number))
    writer.close()
    os.utime(written, (1, 1))
    records = TfRecords([written], [50])
    assert records.read(0, 0) == bytes(49)
    assert records.layout != layout
    assert len(list((cache_dir / "tfrecord-offsets").iterdir())) == 1


def test_without_a_place_for_the_index_it_stays_in_memory(written, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match="index of tfrecord files not kept.*FLAX_RESNETS_CACHE"):
        records = TfRecords([written], [50])
    assert records.read(0, 7) == bytes([7]) * 7


def test_a_file_that_is_written_over_while_it_is_open(written):
    records = TfRecords([written], [50])
    content = bytearray(written.read_bytes())
    content[:8] = struct.pack("<Q", 3)
    written.write_bytes(content[:200])
    for number in (0, 49):
        with pytest.raises(ValueError, match=r"at byte .* there is no record of"):
            records.read(0, number)


@pytest.mark.parametrize("kept", [0, 1, HEAD, HEAD + TAIL, 500, -TAIL, -1])
def test_a_file_that_is_cut_short(written, kept):
    os.truncate(written, kept if kept >= 0 else written.stat().st_size + kept)
    with pytest.raises(UserError, match=r"record file .*records\.tfrecord-.*: damaged or cut short, \d+ of its 50"):
        TfRecords([written], [50])


@pytest.mark.parametrize("record", [0, 20, 49])
@pytest.mark.parametrize("byte", range(HEAD))
def test_a_damaged_length(written, record, byte):
    content = bytearray(written.read_bytes())
    content[sum(HEAD + TAIL + each for each in range(record)) + byte] ^= 0x10
    written.write_bytes(content)
    with pytest.raises(UserError, match=rf"damaged or cut short, {record} of its 50 .*at byte \d+ there is no"):
        TfRecords([written], [50])


@pytest.mark.parametrize(("more", "examples"), [(b"", 49), (b"", 51), (b"\0", 50), (bytes(40), 50)])
def test_a_file_with_more_or_less_than_the_metadata_says(written, more, examples, cache_dir):
    written.write_bytes(written.read_bytes() + more)
    with pytest.raises(UserError, match=f"damaged or cut short, 50 of its {examples} records"):
        TfRecords([written], [examples])
    assert list((cache_dir / "tfrecord-offsets").iterdir()) == []


def test_a_missing_file(both):
    path = both[1] / "my_images" / "1.0.0" / "my_images-train.tfrecord-00001-of-00002"
    path.unlink()
    with pytest.raises(UserError, match=rf"record file {path}: No such file"):
        open_source("my_images", "train", both[1])


def test_a_damaged_record_is_named_and_the_others_are_read(both):
    (path,) = both[1].rglob("*-test.tfrecord-*")
    content = bytearray(path.read_bytes())
    content[HEAD : HEAD + 40] = bytes(40)
    path.write_bytes(content)
    source = open_source("my_images", "validation", both[1])
    with pytest.raises(UserError, match=rf"split 'test', image 0 in {path}, record 0: the record is damaged"):
        source.image(0)
    assert source.image(1).any()


def test_more_files_than_a_process_may_open(make_set, data_dir, as_tfrecord):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(8, 8, 1)), "label": tfds.features.ClassLabel(num_classes=2)}
    examples = [[{"image": io.BytesIO(png(number)), "label": 0}] for number in range(60)]
    as_tfrecord(make_set("many_files", features, {"train": examples}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 30, hard))
    try:
        source = open_source("many_files", "train", data_dir)
        assert [source.encoded(index) for index in range(60)] == [png(number) for number in range(60)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
