"""Heat maps: equal to a computation by hand, in the right place, and complete."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets import BasicBlock, Classifier, ResNet, create_model, fold_batch_norm
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.inference.explain import Explanation, _grad_cam, class_number, stages
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.registry import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"
LENET = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.4,))
SMALL = Settings(model="two stages", dataset="", image_size=32, channels=3, mean=(0.0,), std=(1.0,))


def made(model, settings: Settings, **variables) -> Classifier:
    images = np.zeros((1, settings.image_size, settings.image_size, settings.channels), np.float32)
    variables = variables or jax.jit(model.init)(jax.random.key(0), images)
    return Classifier(model, variables, settings, [f"class {number}" for number in range(model.num_classes)])


def changed(classifier: Classifier, **settings) -> Classifier:
    settings = dataclasses.replace(classifier.settings, **settings)
    return Classifier(classifier.model, classifier.variables, settings, classifier.class_names)


@pytest.fixture(scope="module")
def lenet() -> Classifier:
    classifier = made(create_model("lenet", num_classes=10), LENET)
    # Larger weights than the initial ones, so that the sigmoids are not close to linear.
    classifier.variables = jax.tree.map(lambda leaf: 3 * leaf, classifier.variables)
    return classifier


@pytest.fixture(scope="module")
def small() -> Classifier:
    """A ResNet of two stages for colour images of 32 pixels."""
    return made(ResNet((1, 1), BasicBlock, 10, 8, stem="small"), SMALL)


@pytest.fixture(scope="module")
def photos() -> np.ndarray:
    """Five pictures, uint8 `(5, 32, 32, 3)`."""
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)


# LeNet by hand, in float64.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def convolved(x, layer):
    """`(H, W, C)` by a 5x5 kernel without padding."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (5, 5), axis=(0, 1))
    return np.einsum("hwcij,ijcf->hwf", windows, layer["kernel"]) + layer["bias"]


def pooled(x):
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def enlarged(heat, size):
    """Bilinear, with the middles of the corner pixels where they are in the picture."""
    sides = len(heat)
    at = (np.arange(size) + 0.5) * sides / size - 0.5
    along = np.array([np.interp(at, np.arange(sides), column) for column in heat.T])
    return np.array([np.interp(at, np.arange(sides), row) for row in along.T])


def grad_cam_by_hand(picture, params, number):
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    x = np.pad((picture / 255 - 0.3) / 0.4, 2)[..., None]
    x = pooled(sigmoid(convolved(x, params["conv1"])))
    maps = pooled(sigmoid(convolved(x, params["conv2"])))  # pool2, (5, 5, 16)
    dense1 = sigmoid(maps.ravel() @ params["dense1"]["kernel"] + params["dense1"]["bias"])
    dense2 = sigmoid(dense1 @ params["dense2"]["kernel"] + params["dense2"]["bias"])
    gradient = params["head"]["kernel"][:, number]
    gradient = params["dense2"]["kernel"] @ (gradient * dense2 * (1 - dense2))
    gradient = params["dense1"]["kernel"] @ (gradient * dense1 * (1 - dense1))
    weights = gradient.reshape(maps.shape).mean((0, 1))
    heat = enlarged(np.maximum(maps @ weights, 0), 28)
    return heat / heat.max()


def test_grad_cam_is_that_of_a_computation_by_hand(lenet):
    picture = np.random.default_rng(1).integers(0, 256, (28, 28)).astype(np.uint8)
    compared = 0
    for number in range(10):
        (explanation,) = lenet.explain(picture, number)
        if explanation.heat.max() > 0:
            by_hand = grad_cam_by_hand(picture, lenet.variables["params"], number)
            np.testing.assert_allclose(explanation.heat, by_hand, atol=2e-4)
            compared += 1
    assert compared >= 3
    assert explanation.stage == "pool2"


def test_the_heat_is_where_the_object_is(small):
    """The picture is black, which is 0 for the network, and nothing has a bias: all maps are 0 far from the object."""
    pictures, quarters = np.zeros((4, 32, 32, 3), np.uint8), np.zeros((4, 32, 32), bool)
    for number, (row, column) in enumerate([(0, 0), (0, 16), (16, 0), (16, 16)]):
        pictures[number, row + 7 : row + 9, column + 7 : column + 9] = [[[250, 90, 60], [70, 200, 120]]]
        quarters[number, row : row + 16, column : column + 16] = True
    warm = 0
    for number in range(10):
        for one, quarter in zip(small.explain(pictures, number), quarters, strict=True):
            warm += one.heat.max() > 0
            assert one.heat[quarter].sum() >= 0.95 * one.heat.sum()
    assert warm >= 10
    for one, quarter in zip(small.explain(pictures, method="integrated_gradients", steps=4), quarters, strict=True):
        assert (one.attributions[~quarter] == 0).all()
        assert (one.attributions[quarter] != 0).any()


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients"])
def test_pictures_are_explained_beside_others_as_by_themselves(small, photos, method):
    together = small.explain(photos, method=method, steps=4, batch_size=4)
    assert len(together) == 5
    for photo, one in zip(photos, together, strict=True):
        (alone,) = small.explain(photo, method=method, steps=4, batch_size=4)
        np.testing.assert_array_equal(alone, one)
        assert (alone.index, alone.probability) == (one.index, one.probability)
    np.testing.assert_allclose(small.explain(photo, method=method, steps=4)[0], one, atol=1e-3)


@pytest.mark.parametrize("eval_flip", [False, True])
def test_attributions_sum_to_the_difference_of_logits(lenet, eval_flip):
    classifier = changed(lenet, eval_flip=eval_flip)
    picture = np.random.default_rng(3).integers(0, 256, (28, 28)).astype(np.uint8)
    logits = classifier.logits([picture, np.zeros_like(picture)])
    for number in (0, 7):
        (explanation,) = classifier.explain(picture, number, method="integrated_gradients", steps=100)
        assert explanation.attributions.shape == (28, 28, 1)
        assert explanation.attributions.sum() == pytest.approx(logits[0, number] - logits[1, number], abs=1e-3)


def test_the_class_and_its_probability_are_those_of_predict(small, photos):
    for photo, explanation in zip(photos, small.explain(photos), strict=True):
        ((best, *_, last),) = small.predict(photo, top_k=10, batch_size=8)
        assert (explanation.class_name, explanation.index) == best[:2]
        assert explanation.probability == pytest.approx(best.probability, rel=1e-5)
        (other,) = small.explain(photo, last.class_name)
        assert (other.index, other.probability) == (last.index, pytest.approx(last.probability, rel=1e-5))


def test_what_an_explanation_holds(small, photos):
    (explanation,) = small.explain(photos[0])
    assert (explanation.heat.shape, explanation.heat.dtype) == ((32, 32), np.float32)
    assert explanation.heat.min() >= 0
    assert explanation.heat.max() == 1
    np.testing.assert_array_equal(explanation.picture, photos[0])
    np.testing.assert_array_equal(np.asarray(explanation), explanation.heat)
    assert (explanation.method, explanation.stage, explanation.attributions) == ("grad_cam", "stage2", None)
    name, index, probability = explanation.class_name, explanation.index, explanation.probability
    assert repr(explanation) == f"Explanation({name!r}, {index}, {probability:.4g}, 32 x 32, grad_cam at stage2)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        explanation.heat = photos[0]


def test_the_heat_of_integrated_gradients_has_both_signs(small, photos):
    (explanation,) = small.explain(photos[0], method="integrated_gradients", steps=4)
    summed = explanation.attributions.sum(-1)
    assert explanation.heat.min() < 0 < explanation.heat.max()
    assert (np.sign(explanation.heat) == np.sign(summed)).all()
    assert (np.abs(explanation.heat) == 1).mean() == pytest.approx(0.01, abs=0.002)


def test_the_overlay_shows_picture_and_heat():
    picture = np.full((2, 2, 1), 100, np.uint8)
    heat = np.array([[0, 1], [0.5, 0]], np.float32)
    overlay = Explanation(heat, "cat", 0, 0.5, picture, "grad_cam", "stage4").overlay()
    assert (overlay.dtype, overlay.shape) == (np.uint8, (2, 2, 3))
    assert overlay[0, 0].tolist() == overlay[1, 1].tolist() == [100, 100, 100]
    assert overlay[0, 1, 0] > overlay[0, 1, 2]  # red
    signed = Explanation(2 * heat - 1, "cat", 0, 0.5, picture, "integrated_gradients").overlay(1.0)
    assert signed[0].tolist() == [[0, 0, 255], [255, 0, 0]]
    assert signed[1, 0].tolist() == [100, 100, 100]
    with pytest.raises(UserError, match="strength=2: must be from 0 to 1"):
        Explanation(heat, "cat", 0, 0.5, picture, "grad_cam").overlay(2)


def test_no_evidence_is_no_heat(small):
    zeros = Classifier(small.model, jax.tree.map(jnp.zeros_like, small.variables), SMALL, small.class_names)
    for method in ("grad_cam", "integrated_gradients"):
        (explanation,) = zeros.explain(np.zeros((32, 32, 3), np.uint8), method=method, steps=2)
        assert (explanation.heat == 0).all()


def test_a_mirror_image_has_the_mirrored_heat_with_a_test_time_flip(small, photos):
    flipping = changed(small, eval_flip=True)
    (one,), (mirrored,) = flipping.explain(photos[0], 3), flipping.explain(photos[0, :, ::-1], 3)
    np.testing.assert_allclose(one.heat[:, ::-1], mirrored.heat, atol=1e-3)
    assert np.abs(small.explain(photos[0, :, ::-1], 3)[0].heat[:, ::-1] - mirrored.heat).max() > 1e-3


def test_half_precision_and_folded_norms_give_the_same_heat(small, photos):
    (heat,) = small.explain(photos[0], 3)
    half = Classifier(small.model.clone(dtype=jnp.bfloat16), small.variables, SMALL, small.class_names)
    np.testing.assert_array_equal(half.explain(photos[0], 3)[0], heat)
    folded = Classifier(*fold_batch_norm(small.model, small.variables), SMALL, small.class_names)
    np.testing.assert_allclose(folded.explain(photos[0], 3)[0], heat, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("resnet18", "stage4"),
        ("fcn", "stage5"),
        ("lenet_bn", "pool2"),
        ("alexnet", "pool3"),
        ("vgg11_quarter", "block5"),
        ("nin", "head_block"),
        *(
            pytest.param(name, last, marks=pytest.mark.slow)
            for name, last in [
                ("resnet50d", "stage4"),
                ("resnetv2_18", "stage4"),
                ("seresnet18", "stage4"),
                ("resnet20_cifar", "stage3"),
                ("resblock_net", "stage5"),
                ("googlenet", "block4"),
                ("densenet", "block4"),
            ]
        ),
    ],
)
def test_stages_of_the_networks(name, last):
    """Nothing is computed: the program's shapes are enough to know that it can be."""
    entry = MODELS[name]
    settings = Settings(
        model=name, dataset="", image_size=entry.input_size, channels=entry.channels, mean=(0.5,), std=(0.5,)
    )
    shape = (1, entry.input_size, entry.input_size, entry.channels)
    classifier = made(create_model(name, num_classes=4), settings, params={})
    variables = jax.eval_shape(classifier.model.init, jax.random.key(0), np.zeros(shape, np.float32))
    classifier.variables = variables
    assert list(stages(classifier))[-1] == last
    stored, classes = jax.ShapeDtypeStruct(shape, np.uint8), jax.ShapeDtypeStruct((1,), np.int32)
    heat, pictures = jax.eval_shape(lambda *given: _grad_cam(classifier, last, *given), variables, stored, classes)
    assert (heat.shape, pictures.shape) == (shape[:3], shape)


def test_classes_by_name_words_and_number(small):
    names = ["n01440764", "n02102040", *(f"bird {number}" for number in range(8))]
    classifier = Classifier(small.model, small.variables, SMALL, names)
    assert [class_number(classifier, each) for each in ("tench", "n01440764", "bird 7", 3, np.int64(4))] == [
        0, 0, 9, 3, 4
    ]  # fmt: skip
    twice = Classifier(small.model, small.variables, SMALL, names, words={"bird 0": "crane", "bird 1": "crane"})
    with pytest.raises(UserError, match=r"'crane': 2 classes have these words: 'bird 0' \(2\), 'bird 1' \(3\)"):
        class_number(twice, "crane")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_name": "class 99"}, "class_name='class 99': no such class; there are class 0, class 1, "),
        ({"class_name": 10}, "class_name=10: must be a class's name, or a number up to 9"),
        ({"class_name": True}, "class_name=True: must be a class's name, or a number up to 9"),
        ({"class_name": 1.5}, "class_name=1.5: must be a class's name or number, or None"),
        ({"stage": "stage4"}, "stage='stage4': two stages has the stages stem, stage1, stage2"),
        ({"method": "lime"}, "method='lime': must be grad_cam or integrated_gradients"),
        ({"steps": 0}, "steps=0: must be a whole number from 1 to"),
        ({"batch_size": 0.5}, "batch_size=0.5: must be a whole number from 1 to 65536"),
        ({"images": "missing.png"}, "missing.png: no such file"),
    ],
)
def test_mistakes(small, photos, arguments, message):
    with pytest.raises(UserError) as error:
        small.explain(**{"images": photos, **arguments})
    assert str(error.value).startswith(message)
    assert len(str(error.value)) < 600


def test_of_many_classes_the_nearest_are_suggested(small):
    names = [f"bird number {number}" for number in range(1000)]
    model = small.model.clone(num_classes=1000)
    params = {**small.variables["params"], "head": {"kernel": np.zeros((16, 1000)), "bias": np.zeros(1000)}}
    many = Classifier(model, {**small.variables, "params": params}, SMALL, names)
    with pytest.raises(UserError, match="did you mean bird number 77"):
        class_number(many, "Bird number 77x")
    with pytest.raises(UserError, match="no such class; there are 1,000"):
        class_number(many, "zzz")


def test_a_network_without_classes_or_places_says_so(small, photos):
    headless = Classifier(small.model.clone(num_classes=0), small.variables, SMALL, ())
    with pytest.raises(UserError, match="has no classes, because num_classes=0"):
        headless.explain(photos)
    with pytest.raises(UserError, match="stage=stage2: has one position at 2 px and tells no place; take stage1"):
        changed(small, image_size=2).explain(photos, stage="stage2")


def test_the_python_of_its_page_runs(lenet, tmp_path, monkeypatch):
    """In place of the quickstart's run stands a network that was not trained."""
    settings = dataclasses.replace(LENET, dataset="fashion_mnist_sample")
    names = open_source("fashion_mnist_sample", "validation").class_names
    Classifier(lenet.model, lenet.variables, settings, names).save(tmp_path / "runs/quickstart")
    monkeypatch.chdir(tmp_path)
    page: dict = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(block.replace('stage="stage2"', 'stage="pool1"'), page)  # this network is LeNet
    assert [each.stage for each in page["stage2"]] == ["pool1"] * 6
    assert {each.class_name for each in page["shoe"]} == {"Sneaker"}
    assert (tmp_path / "filters.png").read_bytes()[1:4] == b"PNG"


def test_no_images_have_no_explanations(small):
    assert small.explain([]) == []


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_what_is_explained_is_what_predict_says(small, resize):
    """Also where the stored image is a part of a larger one, as with timm's weights: it is cropped once."""
    classifier = changed(small, shorter_side=40, interpolation="bicubic", resize=resize)
    picture = np.random.default_rng(4).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    ((predicted, *_),) = classifier.predict(picture, batch_size=1)
    (explanation,) = classifier.explain(picture, batch_size=1)
    assert (explanation.index, explanation.probability) == predicted[1:]
    seen = np.asarray(classifier.preprocess(picture))[0]
    np.testing.assert_array_equal(explanation.picture, np.round(255 * seen))
