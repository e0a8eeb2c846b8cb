"""The pictures of an evaluation are PNG files with the size and content that they should have."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.evaluation_figures import draw_confusion, draw_reliability, draw_worst


def made(classes: int, images: int, right: bool = False) -> Evaluation:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, images)
    logits = rng.normal(size=(images, classes)).astype(np.float32)
    logits[np.arange(images), labels] += 100 if right else 2
    # The signs would be a formula to matplotlib; \udcff is a byte of a directory's name that is not UTF-8.
    names = tuple(f"class $number_{i}$\udcff" for i in range(classes))
    return Evaluation("a set with $", names, logits, labels)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize("classes", [2, 10, 45, 300])
def test_confusion_matrix(classes):
    picture = pixels(draw_confusion(made(classes, 2000)))
    assert picture.shape[0] > 400
    assert picture.shape[1] < 2500
    dark = (picture[..., 2] > 80) & (picture[..., 0] < 60)  # the dark blue of the diagonal
    assert dark.sum() > 200


def test_of_many_classes_the_most_confused_are_shown():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 300, 3000)
    logits = 50 * np.eye(300, dtype=np.float32)[np.where(labels == 7, 250, labels)]
    picture = pixels(draw_confusion(Evaluation("x", tuple(map(str, range(300))), logits, labels)))
    assert picture.shape[1] < 1100, "only the two classes that are confused"


def test_worst_mistakes_show_the_images():
    asked = []

    def image(index: int) -> np.ndarray:
        asked.append(index)
        return np.full((8, 8, 3), (255, 0, 0), np.uint8)

    evaluation = dataclasses.replace(made(10, 200), image=image)
    picture = pixels(draw_worst(evaluation, number=7))
    assert asked == [mistake.index for mistake in evaluation.worst(7)]
    assert ((picture == (255, 0, 0)).all(-1)).sum() > 7 * 50 * 50


def test_below_each_worst_mistake_is_its_files_name():
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    unnamed = dataclasses.replace(made(10, 200), image=lambda _: red)
    named = dataclasses.replace(unnamed, image_name=lambda i: f"photos/$a$/{i}_{'long' * 9}\udcff.jpg")
    first, second = pixels(draw_worst(unnamed, number=1)), pixels(draw_worst(named, number=1))
    rows = np.flatnonzero((first != second).any((1, 2)))
    assert 0 < np.ptp(rows) < 40, "one line of the picture differs"
    assert rows[0] > np.flatnonzero((first == (255, 0, 0)).all(2).any(1))[-1]


def test_without_mistakes_there_is_a_picture_that_says_so():
    right = dataclasses.replace(made(3, 20, right=True), image=lambda _: pytest.fail("no image is needed"))
    assert pixels(draw_worst(right)).shape[0] > 100


def test_reliability_diagram():
    assert pixels(draw_reliability(made(10, 500))).shape == (600, 600, 3)
