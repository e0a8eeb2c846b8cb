"""StreamedImages: the same bits as from the cache, decoded ahead, by threads that end."""

import contextlib
import itertools
import os
import threading
import time

import numpy as np
import pytest

from flax_resnets.data.batches import steps_per_epoch
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError

BATCH = 96
ROWS = [None, np.arange(5), np.array([3, 40, 41, 95])]


@pytest.fixture
def source():
    return open_source("fashion_mnist_sample", "validation")


class Counting:
    """A source that records which images were read, and may have broken images."""

    def __init__(self, source, broken=()):
        self.source, self.broken, self.seen = source, broken, []
        self.channels, self.multilabel = source.channels, False

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self.seen.append(index)
        if index in self.broken:
            raise UserError(f"image {index}: broken")
        return self.source[index]


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("grain")]


def ended() -> bool:
    deadline = time.monotonic() + 60
    while decoding_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not decoding_threads()


def same(streamed, cached) -> int:
    """Checks that all batches are equal; returns their number."""
    pairs = list(zip(streamed, cached, strict=True))
    for one, other in pairs:
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    return len(pairs)


@pytest.mark.parametrize("rows", ROWS, ids=["all", "first", "scattered"])
@pytest.mark.parametrize(("size", "resize"), [(28, "squash"), (20, "crop")])
def test_the_batches_are_those_of_the_cache(source, size, resize, rows):
    streamed, cached = StreamedImages(source, size, resize), cached_images(source, size, resize)
    assert (len(streamed), streamed.channels) == (len(cached), cached.channels)
    end = steps_per_epoch(len(source), BATCH)
    steps = range(end - 2, end + 3)  # from one epoch into the next
    for sampler in ("shuffle", "balanced"):
        assert same(*(split.train_batches(BATCH, 7, steps, rows, sampler) for split in (streamed, cached))) == 5
    np.testing.assert_array_equal(streamed.labels, cached.labels)
    backwards = np.arange(len(source))[::-3]
    read = [np.concatenate(parts) for parts in zip(*streamed.read(backwards), strict=True)]
    assert same([read], [(cached.images[backwards], cached.labels[backwards])]) == 1
    assert same(*(split.eval_batches(BATCH, rows) for split in (streamed, cached))) == 11


def test_no_steps_are_no_batches(source):
    assert list(StreamedImages(source, 28).train_batches(BATCH, 0, range(3, 3))) == []
    assert ended()


def test_a_process_decodes_its_rows_alone_from_wherever_it_starts(source):
    counting = Counting(source)
    steps = range(10**6, 10**6 + 3)
    batches = list(StreamedImages(counting, 28).train_batches(BATCH, 0, steps, np.arange(10, 20)))
    labels = [source.label(index) for index in counting.seen]
    assert sorted(labels) == sorted(np.concatenate([batch.labels for batch in batches]).tolist())
    assert len(labels) == 30


def test_batches_are_decoded_before_they_are_asked_for_and_no_more_than_that(source):
    counting = Counting(source)
    with contextlib.closing(StreamedImages(counting, 28).train_batches(64, 0, range(10**6))) as batches:
        next(batches)
        deadline = time.monotonic() + 60
        while len(counting.seen) < 3 * 64 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        # Two batches, or two tasks for each core if that is more.
        assert 3 * 64 <= len(counting.seen) <= 64 + max(2 * 64, 16 * (os.cpu_count() or 1))


@pytest.mark.parametrize("batches_read", [1, 3])
def test_closed_at_any_place_its_threads_end(source, batches_read):
    with contextlib.closing(StreamedImages(source, 28).train_batches(BATCH, 0, range(100))) as batches:
        for _ in itertools.islice(batches, batches_read):
            pass
        assert decoding_threads()
    assert ended()


def test_a_broken_image_comes_in_its_place(source):
    streamed = StreamedImages(Counting(source, broken=[250]), 28)
    batches = streamed.eval_batches(100)
    assert [len(next(batches).labels) for _ in range(2)] == [100, 100]
    with pytest.raises(UserError, match="image 250: broken") as caught:
        next(batches)
    assert str(caught.value) == "image 250: broken"  # this line is shown; Grain's note is kept apart from it
    assert ended()
