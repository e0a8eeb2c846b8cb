"""The images that a step sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_resnets.data.batches import eval_batches, steps_per_epoch, train_batch, train_indices
from flax_resnets.errors import UserError

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40)).map(lambda pair: (max(pair), min(pair)))


@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 50))
def test_an_epoch_shows_no_image_twice_and_leaves_out_less_than_a_batch(sizes, seed, epoch):
    images, batch_size = sizes
    steps = steps_per_epoch(images, batch_size)
    seen = np.concatenate([train_indices(images, batch_size, seed, epoch * steps + i) for i in range(steps)])
    assert len(set(seen)) == len(seen) > images - batch_size
    assert seen.min() >= 0
    assert seen.max() < images


def test_images_must_fill_a_batch():
    assert steps_per_epoch(64, 64) == 1
    with pytest.raises(UserError, match="batch_size=64: must be at most the 63 training images"):
        steps_per_epoch(63, 64)


@given(sizes=SIZES, seed=st.integers(0, 2**32 - 1), steps=st.lists(st.integers(0, 200), min_size=2, max_size=5))
def test_a_step_is_the_same_whatever_was_asked_before(sizes, seed, steps):
    forward = [train_indices(*sizes, seed, step) for step in steps]
    backward = [train_indices(*sizes, seed, step) for step in reversed(steps)]
    for a, b in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(a, b)


def test_epochs_and_seeds_are_shuffled_apart():
    first = train_indices(1000, 100, 0, 0)
    assert (first != train_indices(1000, 100, 0, 10)).any()
    assert (first != train_indices(1000, 100, 1, 0)).any()


def test_the_shuffle_is_the_one_published_results_were_made_with():
    assert train_indices(10_000, 4, 0, 0).tolist() == [7126, 8214, 5011, 9212]


def test_a_batch_pairs_images_with_their_labels():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    batch = train_batch(images, np.arange(20, dtype=np.int32), 5, seed=0, step=3)
    np.testing.assert_array_equal(batch.images.ravel(), batch.labels)


@given(images=st.integers(1, 50), batch_size=st.integers(1, 60))
def test_evaluation_shows_every_image_once_in_batches_of_one_shape(images, batch_size):
    pictures = np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1)
    batches = list(eval_batches(pictures, np.arange(images, dtype=np.int32), batch_size))
    assert {batch.images.shape for batch in batches} == {(batch_size, 1, 1, 1)}
    labels = np.concatenate([batch.labels for batch in batches])
    assert labels[labels >= 0].tolist() == list(range(images))
    assert len(labels) - images < batch_size


@given(images=st.integers(8, 50), share=st.integers(1, 4), processes=st.integers(1, 3), step=st.integers(0, 9))
def test_the_shares_of_processes_are_the_batch(images, share, processes, step):
    pictures, labels = np.arange(images, dtype=np.uint8).reshape(-1, 1, 1, 1), np.arange(images, dtype=np.int32)
    size = min(share * processes, images)
    all_rows = np.array_split(np.arange(size), processes)
    shares = [train_batch(pictures, labels, size, 0, step, rows).labels for rows in all_rows]
    np.testing.assert_array_equal(np.concatenate(shares), train_batch(pictures, labels, size, 0, step).labels)
    shares = [[batch.labels for batch in eval_batches(pictures, labels, size, rows)] for rows in all_rows]
    for whole, *parts in zip(eval_batches(pictures, labels, size), *shares, strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), whole.labels)
