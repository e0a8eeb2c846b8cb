"""The images that a step sees."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_resnets.data.batches import (
    balanced_indices,
    eval_batches,
    steps_per_epoch,
    train_batch,
    train_indices,
)
from flax_resnets.data.cache import CachedImages
from flax_resnets.data.labels import images_by_class
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


LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=60).map(lambda labels: np.array(labels, np.int32))


@given(labels=LABELS, batch_size=st.integers(1, 30), steps=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_balanced_draws_each_class_equally_often_and_all_its_images_before_any_again(labels, batch_size, steps, seed):
    by_class = images_by_class(labels)
    drawn = np.concatenate([balanced_indices(by_class, batch_size, seed, step) for step in range(steps)])
    of_classes = np.bincount(labels[drawn], minlength=7)[np.unique(labels)]
    assert np.ptp(of_classes) <= 1
    for images in by_class:
        seen = drawn[np.isin(drawn, images)]
        for start in range(0, len(seen), len(images)):
            a_pass = seen[start : start + len(images)]
            assert len(set(a_pass)) == len(a_pass)


def test_balanced_orders_are_new_in_each_turn_and_pass_and_for_each_seed():
    by_class = images_by_class(np.arange(40) % 4)
    first, second = (balanced_indices(by_class, 40, 0, step) for step in (0, 1))
    assert sorted(first) == sorted(second) == list(range(40))
    assert (first != second).any()
    assert len({tuple(turn % 4) for turn in first.reshape(10, 4)}) > 1, "classes come in changing order"
    assert (first != balanced_indices(by_class, 40, 1, 0)).any()


def test_the_balanced_order_is_the_one_that_runs_began_with():
    assert balanced_indices(images_by_class(np.arange(30) % 3), 6, seed=3, step=700).tolist() == [27, 22, 14, 8, 9, 16]


@given(labels=LABELS, steps=st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_a_balanced_step_depends_on_nothing_before_it(labels, steps):
    split = CachedImages(np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1), labels)
    whole = [balanced_indices(images_by_class(labels), 2, 5, step) for step in steps]
    for step, indices in zip(reversed(steps), reversed(whole), strict=True):
        (batch,) = split.train_batches(2, 5, range(step, step + 1), np.array([1]), "balanced")
        assert batch.images.ravel().tolist() == indices[1:].tolist()
        assert batch.labels.tolist() == labels[indices[1:]].tolist()
