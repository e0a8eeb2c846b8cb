"""Evaluation: figures from logits, compared with computations by hand."""

import json
import math

import numpy as np
import optax
import pytest

from flax_resnets.errors import UserError
from flax_resnets.inference.evaluation import Evaluation, wilson

NAMES = ("cat", "dog", "owl")


def evaluation(predicted: list[int], labels: list[int], names: tuple[str, ...] = NAMES, scale: float = 2.0):
    logits = scale * np.eye(len(names), dtype=np.float32)[predicted]
    return Evaluation("some images", names, logits, np.array(labels))


@pytest.fixture(scope="module")
def random() -> Evaluation:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 7)).astype(np.float32)
    return Evaluation("random", tuple("abcdefg"), logits, rng.integers(0, 7, 500))


def test_accuracy_and_confusion():
    result = evaluation(predicted=[0, 0, 1, 2, 1], labels=[0, 1, 1, 2, 2])
    assert result.accuracy == 3 / 5
    assert result.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert result.top5_accuracy == 1.0


def test_figures_of_each_class():
    result = evaluation(predicted=[0, 0, 1, 1, 1], labels=[0, 1, 1, 1, 0])
    cat, dog, owl = result.per_class
    assert cat == ("cat", 2, 1 / 2, 1 / 2, 1 / 2)
    assert dog == ("dog", 3, 2 / 3, 2 / 3, pytest.approx(2 / 3))
    assert owl == ("owl", 0, 0.0, 0.0, 0.0)
    # A class without images does not count.
    assert result.balanced_accuracy == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert result.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_loss_is_that_of_training(random):
    losses = optax.softmax_cross_entropy_with_integer_labels(random.logits, random.labels)
    np.testing.assert_array_equal(random.losses, losses)
    assert random.loss == np.asarray(losses, np.float64).mean()


def test_top5_by_sorting(random):
    first_five = np.argsort(-random.logits, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(random.first_five, first_five)
    assert random.top5_accuracy == np.mean([label in row for label, row in zip(random.labels, first_five, strict=True)])


def test_of_equal_logits_the_first_class_is_predicted():
    assert Evaluation("x", NAMES, np.zeros((1, 3), np.float32), np.array([1])).predicted.tolist() == [0]


def test_calibration_error_by_hand():
    # Two images with confidence 0.9, one of them right; two with 0.6, both right.
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]], np.float32))
    result = Evaluation("x", ("a", "b"), logits, np.array([0, 1, 0, 1]))
    assert result.calibration_error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4, abs=1e-6)
    assert sum(each.images for each in result.reliability) == 4


def test_certain_predictions_are_in_the_last_bin():
    result = evaluation([0, 1], [0, 0], scale=1000.0)
    assert [each.images for each in result.reliability][-1] == 2
    assert result.calibration_error == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("hits", "trials", "lower", "upper"),  # statsmodels.stats.proportion.proportion_confint(method="wilson")
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (900, 1000, 0.87983, 0.91709)],
)
def test_wilson_interval(hits, trials, lower, upper):
    assert wilson(hits, trials) == (pytest.approx(lower, abs=1e-4), pytest.approx(upper, abs=1e-4))


def test_worst_mistakes_come_first():
    logits = np.array([[5, 0, 0], [0, 3, 0], [9, 0, 0], [0, 0, 1]], np.float32)
    result = Evaluation("x", NAMES, logits, np.array([1, 0, 1, 2]), image_name=lambda index: f"{index}.png")
    worst, second, third = result.worst()[0], result.worst()[1], result.worst()[2]
    assert [each.index for each in (worst, second, third)] == [2, 0, 1]
    assert (worst.image_name, worst.class_name, worst.predicted) == ("2.png", "dog", "cat")
    assert worst.loss == pytest.approx(9, abs=1e-3)
    assert len(result.worst(1)) == 1


def test_most_frequent_mistakes():
    result = evaluation(predicted=[1, 1, 0, 2], labels=[0, 0, 2, 2])
    assert result.most_confused() == (("cat", "dog", 2), ("owl", "cat", 1))


def test_as_dict_can_be_json(random):
    assert json.loads(json.dumps(random.as_dict()))["accuracy"] == random.accuracy
    nowhere = Evaluation("x", NAMES, np.full((1, 3), np.nan, np.float32), np.array([0]))
    assert nowhere.as_dict()["loss"] is None
    assert math.isnan(nowhere.loss)
    json.dumps(nowhere.as_dict(), allow_nan=False)


def test_no_images_is_an_error():
    with pytest.raises(UserError, match="some images: has no images to evaluate"):
        evaluation([], [])


def test_best_have_the_lowest_losses(random):
    best = random.best(7)
    assert [each.index for each in best] == np.argsort(random.losses, kind="stable")[:7].tolist()
    assert best[0].loss == random.losses.min()


def test_probably_mislabelled_are_those_of_which_the_network_is_surer_than_usual():
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],  # cats: 0.8 on average
            [0.7, 0.2, 0.1],
            [0.1, 0.6, 0.3],  # a dog: 0.6 on average
            [0.85, 0.1, 0.05],  # labelled dog, surer a cat than cats usually are
            [0.75, 0.2, 0.05],  # labelled owl, and less sure a cat
            [0.95, 0.0, 0.05],  # labelled owl, and surest a cat
        ],
        np.float32,
    )
    result = Evaluation("x", NAMES, np.log(probabilities + 1e-9), np.array([0, 0, 1, 1, 2, 2]))
    suspects = result.likely_mislabelled()
    assert [each.index for each in suspects] == [5, 3]
    assert (suspects[0].class_name, suspects[0].predicted) == ("owl", "cat")
    assert suspects[0].probability == pytest.approx(0.95, abs=1e-4)
    assert [each.index for each in result.worst()] == [4, 5, 3]
    assert [each.index for each in result.likely_mislabelled(1)] == [5]


def test_a_class_without_images_makes_no_image_suspect():
    assert evaluation(predicted=[2, 0, 1], labels=[0, 0, 1]).likely_mislabelled() == ()
