"""Figures of images with any number of classes, against their definitions."""

from fractions import Fraction

import numpy as np
import pytest

from flax_resnets.training.multilabel import average_precisions, f1_scores, multilabel_figures


def by_definition(scores: np.ndarray, positive: np.ndarray) -> Fraction:
    """The sum of (R_n - R_(n-1)) P_n over all thresholds, from the highest."""
    precision, before = Fraction(0), Fraction(0)
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = scores >= threshold
        hits = int((chosen & (positive > 0)).sum())
        recall = Fraction(hits, int(positive.sum()))
        precision += (recall - before) * Fraction(hits, int(chosen.sum()))
        before = recall
    return precision


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_by_its_definition(ties):
    random = np.random.default_rng(int(ties))
    scores = random.normal(size=(200, 5)).astype(np.float32)
    if ties:
        scores = scores.round(1)
    labels = (random.random((200, 5)) < (0.5, 0.1, 0.02, 0.9, 0.3)).astype(np.int8)
    wanted = [float(by_definition(*pair)) for pair in zip(scores.T, labels.T, strict=True)]
    assert average_precisions(scores, labels).tolist() == pytest.approx(wanted, abs=1e-14)


def test_the_example_of_scikit_learns_documentation():
    """`average_precision_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])` is 0.83."""
    scores, labels = np.array([[0.1], [0.4], [0.35], [0.8]]), np.array([[0], [0], [1], [1]])
    assert average_precisions(scores, labels).tolist() == pytest.approx([5 / 6])


def test_the_order_of_the_images_does_not_matter():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 4, (60, 3)).astype(np.float32), random.integers(0, 2, (60, 3), np.int8)
    order = random.permutation(60)
    assert multilabel_figures(scores, labels) == multilabel_figures(scores[order], labels[order])


def test_a_class_without_images_counts_in_no_mean():
    logits = np.array([[2.0, -1.0, 5.0], [1.0, 3.0, 5.0], [-2.0, -3.0, 5.0]], np.float32)
    labels = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]], np.int8)
    assert multilabel_figures(logits, labels)[1:] == multilabel_figures(logits[:, :2], labels[:, :2])[1:]
    assert multilabel_figures(logits, labels).accuracy == 3 / 9
    assert f1_scores(logits, labels).tolist() == [0.5, 2 / 3, 0.0]


def test_no_labels_at_all():
    figures = multilabel_figures(np.array([[1.0, -1.0]], np.float32), np.zeros((1, 2), np.int8))
    assert figures == (0.5, 0.0, 0.0)


def test_not_a_number_is_the_lowest_score():
    scores = np.array([[np.nan], [1.0], [-1e30]], np.float32)
    assert average_precisions(scores, np.array([[1], [0], [0]], np.int8)).tolist() == [1 / 3]
