"""What `data.json` holds, in this version and in earlier ones."""

import dataclasses
import json

import pytest

from flax_resnets import storage
from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.errors import UserError

# As the first version wrote it.
EARLIER = """{
  "dataset": "pets",
  "version": "1.0.0",
  "fingerprint": "00",
  "counts": {"train": 1280, "validation": 30},
  "splits": {"train": "train", "validation": "test"},
  "channels": 1,
  "class_names": ["cat", "dog", "cow", "ape"]
}"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "data.json").write_text(EARLIER)
    return tmp_path / "data.json"


@pytest.fixture
def earlier(path) -> Identity:
    identity = read_identity(path)
    assert identity is not None
    return identity


def test_an_earlier_record_is_read_and_written_alike(path, earlier):
    assert (earlier.mean, earlier.std, earlier.class_counts, earlier.in_both) == (None, None, None, None)
    assert json.loads(earlier.to_json()) == json.loads(EARLIER)
    assert earlier.remarks() == []


def test_numbers_are_kept_to_the_bit_and_make_no_difference(path, earlier):
    numbers = {"mean": (0.1 + 0.2,), "std": (1 / 3,), "in_both": 2}
    counts = {"train": (80, 1200, 0, 0), "validation": (10, 20, 0, 0)}
    full = dataclasses.replace(earlier, **numbers, class_counts=counts)
    path.write_text(full.to_json())
    assert read_identity(path) == full
    assert earlier.difference(full) is None
    assert full.in_words(28).endswith("4 classes, pixels of mean 0.300 and std 0.333")
    assert earlier.in_words(28).endswith("4 classes")


def test_the_images_that_are_used_are_counted_without_broken_ones(earlier):
    assert earlier.in_words(28).startswith("pets 1.0.0: 1,280 training and 30 validation images,")
    counts = {"train": (80, 1199, 0, 0), "validation": (10, 20, 0, 0)}
    known = dataclasses.replace(earlier, class_counts=counts)
    assert known.in_words(28).startswith("pets 1.0.0: 1,279 training and 30 validation images,")
    several = dataclasses.replace(known, multilabel=True)  # whose classes' sum is another number
    assert several.in_words(28).startswith("pets 1.0.0: 1,280 training and 30 validation images,")


def test_remarks_tell_what_may_spoil_a_run(earlier):
    counts = {"train": (80, 1200, 0, 300), "validation": (0, 29, 0, 0)}
    assert dataclasses.replace(earlier, class_counts=counts, in_both=12).remarks() == [
        "no training images of class 'cow'",
        "unbalanced: largest class 'dog' 1,200, smallest 'cat' 80 (15 to 1); "
        "class_weights=balanced or sampler=balanced evens it out",
        "no validation images of class 'cat', 'cow', 'ape'",
        "12 of the 29 validation images are training images too, pixel by pixel; on them the accuracy says nothing "
        "about new images",
    ]
    even = {"train": (100, 300, 300, 300), "validation": (1, 1, 1, 90)}
    assert dataclasses.replace(earlier, class_counts=even, in_both=0).remarks() == []


@pytest.mark.parametrize(
    "change",
    [
        {"mean": 0.5},
        {"mean": [0.5]},  # without std
        {"mean": [0.5, 0.5], "std": [0.5, 0.5]},  # of one channel
        {"mean": [1], "std": [0.5]},
        {"mean": [0.5], "std": [0.0]},
        {"mean": [float("nan")], "std": [0.5]},
        {"mean": "a", "std": "b"},
        {"in_both": "3"},
        {"class_counts": []},
        {"class_counts": {"train": [1, 2, 3, 4]}},
        {"class_counts": {"train": [1, 2, 3, 4], "validation": [1, 2, 3]}},
        {"class_counts": {"train": [1, 2, 3, -4], "validation": [1, 2, 3, 4]}},
        {"class_counts": {"train": [1, 2, 3, 4], "validation": None}},
        {"class_names": None},
    ],
)
def test_numbers_that_are_none_are_refused_in_a_line(path, change):
    path.write_text(json.dumps(json.loads(EARLIER) | change))
    with pytest.raises(UserError, match=r"data\.json: is no record of a run's data"):
        read_identity(path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied; whoever reads the run must be allowed to"),
        (OSError(5, "Input/output error"), "Input/output error"),
        (storage.BucketError(5, "the bucket does not answer"), "the bucket does not answer"),
    ],
)
def test_a_record_that_cannot_be_read_is_a_record(path, monkeypatch, error, said):
    def read(path):
        raise error

    monkeypatch.setattr(storage, "read", read)
    with pytest.raises(UserError, match=rf"data\.json: {said}$"):
        read_identity(path)
