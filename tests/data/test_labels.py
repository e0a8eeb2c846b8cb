"""The two forms of labels: one class for each image, or any number of classes."""

import numpy as np
import pytest

from flax_resnets.data.batches import Batch, balanced_indices, eval_batches
from flax_resnets.data.labels import images_by_class, in_words, is_real, multi_hot, renumbered, strata, targets
from flax_resnets.data.shares import share_of

LABELS = multi_hot([[0], [0, 2], [], [2], [0, 1, 2], []], 4)


@pytest.mark.parametrize("number", [-1, 4])
def test_a_number_that_is_no_class(number):
    with pytest.raises(ValueError, match=rf"label {number} is not in range\(4\)"):
        multi_hot([[0], [number]], 4)


def test_an_image_is_among_those_of_each_of_its_classes():
    assert [images.tolist() for images in images_by_class(LABELS)] == [[0, 1, 4], [4], [1, 3, 4]]


def test_balanced_draws_each_class_equally_often_and_never_an_image_without_a_class():
    by_class = images_by_class(LABELS)
    drawn = np.concatenate([balanced_indices(by_class, 6, seed=0, step=step) for step in range(50)])
    assert set(drawn) == {0, 1, 3, 4}
    # Image 4, the only one of class 1, is drawn for it in every third draw, and in its turn for the two others.
    assert np.bincount(drawn)[4] == pytest.approx(100 + 2 * 100 / 3, abs=2)


def test_padding_is_told_from_an_image_without_a_class():
    batches = list(eval_batches(np.zeros((6, 2, 2, 1), np.uint8), LABELS, 4))
    assert [is_real(batch.labels).tolist() for batch in batches] == [[True] * 4, [True, True, False, False]]
    assert batches[1].labels.dtype == np.int8
    assert isinstance(batches[0], Batch)


def test_a_share_is_taken_of_the_images_of_the_rarest_classes():
    random = np.random.default_rng(0)
    labels = (random.random((400, 3)) < (0.6, 0.3, 0.03)).astype(np.int8)
    assert set(strata(labels)) == {0, 1, 2, 3}
    train, _ = share_of(labels, 0.25, seed=0, part="train", name="all")
    valid, _ = share_of(labels, 0.25, seed=0, part="validation", name="all")
    assert sorted([*train, *valid]) == list(range(400))
    rare = labels[:, 2].sum()
    assert labels[valid, 2].sum() == np.floor(rare * 0.25 + 0.5)
    without = (labels.sum(1) == 0).sum()
    assert (labels[valid].sum(1) == 0).sum() == np.floor(without * 0.25 + 0.5)


def test_classes_of_another_set_are_found_in_both_forms():
    numbers = np.array([2, 0, 4, 3])
    ours = renumbered(np.concatenate([LABELS, np.full((1, 4), -1, np.int8)]), numbers, 5)
    assert [np.flatnonzero(row > 0).tolist() for row in ours] == [[2], [2, 4], [], [4], [0, 2, 4], [], []]
    assert is_real(ours).tolist() == [True] * 6 + [False]


def test_targets_are_float32_in_both_forms():
    assert targets(np.array([1, 0]), 2).tolist() == [[0, 1], [1, 0]]  # pyright: ignore[reportArgumentType]
    many = targets(LABELS, 4)  # pyright: ignore[reportArgumentType]
    assert many.dtype == np.float32
    assert np.array_equal(many, LABELS)


def test_names_of_classes():
    names = ["cat", "dog", "owl", "ant"]
    assert [in_words(label, names) for label in LABELS[:3]] == ["cat", "cat, owl", "no label"]
