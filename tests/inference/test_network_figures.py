"""Pictures of filters and activations."""

import io

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnets import Classifier, create_model
from flax_resnets.errors import UserError
from flax_resnets.inference.network_figures import draw_activations, draw_filters, first_filters
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.activations import LayerStatistics
from flax_resnets.models.registry import MODELS
from flax_resnets.training.activations import ActivationRow


def made(name: str) -> Classifier:
    entry = MODELS[name]
    settings = Settings(model=name, dataset="", image_size=32, channels=entry.channels, mean=(0.5,), std=(0.5,))
    model = create_model(name, 2)
    images = np.zeros((1, 32, 32, entry.channels), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), shapes)
    return Classifier(model, variables, settings, ["cat", "dog"])


@pytest.mark.parametrize(
    ("name", "path", "shape"),
    [
        ("resnet18", "stem_conv", (64, 7, 7, 3)),
        ("resnet18d", "stem_conv1", (32, 3, 3, 3)),
        ("lenet", "conv1", (6, 5, 5, 1)),
        ("densenet", "stem_conv", (64, 7, 7, 1)),
        ("resblock_net", "stage1_block1/conv1", (16, 3, 3, 3)),
    ],
)
def test_the_first_filters_are_those_that_see_the_image(name, path, shape):
    classifier = made(name)
    filters = first_filters(classifier)
    assert filters.shape == shape
    kernel = classifier.variables["params"]
    for part in path.split("/"):
        kernel = kernel[part]
    np.testing.assert_array_equal(filters[1], kernel["kernel"][..., 1])


def test_the_picture_shows_each_filter():
    """A filter with one weight above 0 has one white pixel, and one below 0 a black one; the rest is grey."""
    classifier = made("lenet")
    kernel = np.zeros((5, 5, 1, 6), np.float32)
    kernel[2, 2] = [3, -0.1, 3, 3, 3, 3]
    classifier.variables["params"]["conv1"]["kernel"] = kernel
    picture = np.asarray(Image.open(io.BytesIO(draw_filters(classifier))).convert("L"))
    assert (picture == 0).sum() > 50
    assert {0, 128, 255} <= set(np.unique(picture)) | {127 + 1}


def test_activations_are_drawn():
    rows = [
        ActivationRow(step, {name: LayerStatistics(0.1 * step, 1.0, 0.5) for name in ("stem", "head")})
        for step in range(3)
    ]
    assert Image.open(io.BytesIO(draw_activations(rows))).size[0] > 800
    with pytest.raises(UserError, match="activations: there are no rows"):
        draw_activations([])
