"""Predictions, logits and features: exactly those of the run's evaluation."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from flax_resnets import Classifier, load_classifier
from flax_resnets.data.batches import Batch
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.inference.images import each_image
from flax_resnets.inference.preprocess import Settings
from flax_resnets.training.network import make_model
from flax_resnets.training.placement import make_mesh, to_devices
from flax_resnets.training.step import make_eval_step


@pytest.fixture(scope="module")
def classifier(trained) -> Classifier:
    return load_classifier(trained)


def changed(classifier: Classifier, **settings) -> Classifier:
    settings = dataclasses.replace(classifier.settings, **settings)
    return Classifier(classifier.model, classifier.variables, settings, classifier.class_names)


def test_logits_are_those_of_the_evaluation_step_bit_for_bit(classifier, config, files, validation, monkeypatch):
    """The evaluation step itself, in which only the loss is replaced: by the logit of the image's label."""
    monkeypatch.setattr(
        optax,
        "softmax_cross_entropy_with_integer_labels",
        lambda logits, labels: jax.numpy.take_along_axis(logits, labels[:, None], axis=1)[:, 0],
    )
    mesh = make_mesh(devices=jax.devices()[:1])
    eval_step = make_eval_step(make_model(config, 10), config, mesh)
    size = config.eval_batch_size
    images = np.stack([validation.image(index) for index in range(size)])
    logits = classifier.logits(files, batch_size=size)
    assert logits.shape == (1000, 10)
    assert logits.dtype == np.float32
    for row, label in [(row, label) for row in (0, 1, 7, 100, 248, 249) for label in range(10)]:
        labels = np.full(size, -1, np.int32)
        labels[row] = label
        batch = to_devices(Batch(images, labels), mesh)
        sums = eval_step(classifier.variables["params"], classifier.variables["batch_stats"], batch)
        assert float(sums.loss) == logits[row, label]


def test_an_image_has_the_same_bits_beside_any_others(classifier, files):
    several = classifier.logits(files[:300], batch_size=128)
    np.testing.assert_array_equal(classifier.logits(files[20:24], batch_size=128), several[20:24])
    np.testing.assert_array_equal(classifier.logits(files[299], batch_size=128), several[299:])


def test_the_number_in_a_step_changes_no_more_than_rounding(classifier, files):
    several = classifier.logits(files[:70])
    for size in (1, 3, 64):
        np.testing.assert_allclose(classifier.logits(files[:70], batch_size=size), several, atol=1e-4)


def test_predictions_are_the_most_probable_classes(classifier, files):
    logits = classifier.logits(files[:20], batch_size=16).astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    predictions = classifier.predict(files[:20], top_k=3, batch_size=16)
    for row, of_image in zip(probabilities, predictions, strict=True):
        assert [each.index for each in of_image] == np.argsort(-row)[:3].tolist()
        assert [each.class_name for each in of_image] == [classifier.class_names[each.index] for each in of_image]
        np.testing.assert_allclose([each.probability for each in of_image], np.sort(row)[::-1][:3], rtol=1e-6)


def test_more_classes_than_there_are_gives_all(classifier, files):
    (of_image,) = classifier.predict(files[0], top_k=99)
    assert sorted(each.index for each in of_image) == list(range(10))
    assert sum(each.probability for each in of_image) == pytest.approx(1)
    assert len(classifier.predict(files[0])[0]) == 5


def test_a_prediction_reads_well(classifier, files):
    ((name, index, probability),) = classifier.predict(files[0], top_k=1)[0:1][0]
    assert str(classifier.predict(files[0], top_k=1)[0][0]) == f"{name} {100 * probability:.1f} %"
    assert repr(classifier.predict(files[0], top_k=1)) == f"[[Prediction({name!r}, {index}, {probability:.4g})]]"


def test_of_equal_logits_the_first_class_comes_first(classifier):
    zeros = jax.tree.map(jax.numpy.zeros_like, classifier.variables)
    equal = Classifier(classifier.model, zeros, classifier.settings, classifier.class_names)
    (of_image,) = equal.predict(np.zeros((28, 28), np.uint8), top_k=10)
    assert [each.index for each in of_image] == list(range(10))


def test_each_class_by_itself_where_the_loss_treats_them_so(classifier, files):
    (of_image,) = changed(classifier, loss="bce").predict(files[0], top_k=10)
    logits = classifier.logits(files[0])[0].astype(np.float64)
    for each in of_image:
        assert each.probability == pytest.approx(1 / (1 + np.exp(-logits[each.index])), rel=1e-6)


def test_a_test_time_flip_is_applied_as_it_was_in_the_evaluation(classifier, files, validation):
    mirrored = np.stack([validation.image(index)[:, ::-1] for index in range(8)])
    without = changed(classifier, eval_flip=False)
    mean = (without.logits(files[:8]) + without.logits(mirrored)) / 2
    np.testing.assert_allclose(classifier.logits(files[:8]), mean, atol=1e-5)
    assert np.abs(without.logits(files[:8]) - mean).max() > 1e-3


def test_features_give_the_logits(classifier, files):
    features = classifier.embed(files[:8])
    head = classifier.variables["params"]["head"]
    assert features.dtype == np.float32
    assert features.shape == (8, head["kernel"].shape[0])
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"], classifier.logits(files[:8]), atol=1e-4)


def test_a_network_without_classes_has_features_alone(classifier, files):
    model = classifier.model.clone(num_classes=0)
    headless = Classifier(model, classifier.variables, classifier.settings, (), source="headless")
    np.testing.assert_array_equal(headless.embed(files[:2]), classifier.embed(files[:2]))
    with pytest.raises(UserError, match="headless: has no classes"):
        headless.predict(files[0])


def test_identifiers_of_wordnet_are_shown_as_words(classifier, files):
    names = ["n01440764", *(f"class {number}" for number in range(1, 10))]
    named = Classifier(classifier.model, classifier.variables, classifier.settings, names)
    shown = {each.index: each.class_name for each in named.predict(files[0], top_k=10)[0]}
    assert (shown[0], shown[1]) == ("tench", "class 1")
    assert named.class_names[0] == "n01440764"


def test_the_first_image_that_cannot_be_read_is_named(classifier, files, tmp_path):
    (tmp_path / "broken.png").write_bytes(files[0].read_bytes()[:100])
    with pytest.raises(UserError, match=r"broken\.png: not a readable image"):
        classifier.predict([files[0], tmp_path / "broken.png", "missing.png"])


def test_a_stream_goes_on_after_an_image_that_cannot_be_read(classifier, files, tmp_path):
    mixed = [files[0], "missing.png", *files[1:5], b"no image", files[5]]
    results = list(classifier.each_prediction(each_image(mixed), 1, batch_size=4))
    assert [isinstance(result, UserError) for _, result in results] == [False, True, *[False] * 4, True, False]
    assert [item.name for item, _ in results][:2] == [str(files[0]), "missing.png"]
    whole = classifier.predict(files[:6], 1, batch_size=4)
    assert [result for _, result in results if not isinstance(result, UserError)] == whole


def test_a_stream_reads_no_further_ahead_than_a_few_steps(classifier, files):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield files[0]

    results = classifier.each_prediction(each_image(endless()), 1, batch_size=8)
    for _ in range(40):
        next(results)
    results.close()
    assert len(taken) < 40 + 8 * 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.predict(np.zeros((28, 28), np.uint8), top_k=0), "top_k=0: must be a whole number from 1 to"),
        (lambda c: c.predict(np.zeros((28, 28), np.uint8), top_k=1.5), "top_k=1.5: must be"),
        (lambda c: c.logits(np.zeros((28, 28), np.uint8), batch_size=0), "batch_size=0: must be a whole number"),
        (lambda c: c.logits(np.zeros((28, 28), np.uint8), batch_size="a"), "batch_size=a: must be a whole number"),
        (lambda c: c.logits([], batch_size=10**9), "batch_size=1000000000: must be a whole number from 1 to 65536"),
        (lambda c: c.embed([], batch_size=10**30), "batch_size=10{30}: must be a whole number from 1 to 65536"),
        (lambda c: c.logits([], batch_size=10**5000), "batch_size=.*: must be a whole number from 1 to 65536"),
        (lambda c: Classifier(c.model, c.variables, c.settings, ["a"]), "has 1 names, the network has 10 outputs"),
    ],
)
def test_mistakes(classifier, call, message):
    with pytest.raises(UserError, match=message):
        call(classifier)


def test_no_images_give_no_results(classifier):
    assert classifier.predict([]) == classifier.explain([]) == []
    assert classifier.logits([]).shape == (0, 10)
    assert classifier.embed([]).shape == (0, classifier.num_features)
    assert classifier.logits([]).dtype == classifier.embed([]).dtype == np.float32
    assert classifier.preprocess([]).shape == (0, 16, 16, 1)


def test_numbers_of_numpy_are_numbers(classifier, files):
    wanted = classifier.predict(files[:3], 2, batch_size=2)
    assert classifier.predict(files[:3], np.int64(2), batch_size=np.int32(2)) == wanted


def test_logits_that_are_not_finite_are_an_error(classifier, files):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, classifier.variables)
    nan = Classifier(classifier.model, broken, classifier.settings, classifier.class_names, source="nan")
    with pytest.raises(UserError, match=r"0000\.png: nan gives logits that are not finite"):
        nan.predict(files[0])


def of_a_resnet(**settings) -> Classifier:
    settings = Settings(
        **{"model": "resnet20_cifar", "dataset": "fashion_mnist_sample", "image_size": 20, "store_size": 28}
        | {"channels": 1, "mean": (0.286,), "std": (0.353,), "eval_batch_size": 250}
        | settings
    )
    model = make_model(settings, 10)
    variables = model.init(jax.random.key(0), np.zeros((1, 20, 20, 1)))
    names = open_source("fashion_mnist_sample", "validation").class_names
    return Classifier(model, variables, settings, names, words={"Bag": "bag"}, step=7)


def test_at_another_size_it_computes_what_a_run_with_these_fields_does(files):
    classifier = of_a_resnet()
    for fields in ({"image_size": 24}, {"crop_pct": 6 / 7}, {"image_size": 16, "crop_pct": 0.75}):
        changed, expected = classifier.at_size(**fields), of_a_resnet(**fields)
        np.testing.assert_array_equal(changed.logits(files[:8]), expected.logits(files[:8]))
        assert not np.allclose(changed.logits(files[:8]), classifier.logits(files[:8]), atol=1e-3)
        assert (changed.words, changed.step, changed.source) == (classifier.words, 7, classifier.source)


def test_what_is_saved_and_measured_at_another_size_says_so(tmp_path, files):
    changed = of_a_resnet().at_size(24, crop_pct=0.9)
    evaluation = changed.evaluate()
    assert (evaluation.image_size, evaluation.crop_pct) == (24, 0.9)
    assert np.array_equal(evaluation.predicted, changed.logits(files, batch_size=250).argmax(1))
    changed.save(tmp_path / "saved")
    again = load_classifier(tmp_path / "saved")
    assert again.settings == dataclasses.replace(changed.settings, data_dir=None)
    np.testing.assert_array_equal(again.logits(files[:8]), changed.logits(files[:8]))


@pytest.mark.parametrize("size", [14, 28, 200])
def test_a_network_of_one_size_alone_says_so(classifier, size):
    message = (
        f"image_size={size}: .*, step .* was trained at 16 px and takes no images of this size: it has a weight for"
    )
    with pytest.raises(UserError, match=message):
        classifier.at_size(size)
    assert classifier.at_size(crop_pct=1.0).settings.crop_pct == 1.0


def test_images_too_small_for_the_network_are_refused():
    settings = Settings(model="alexnet", dataset="", image_size=224, channels=1, mean=(0.3,), std=(0.3,))
    model = make_model(settings, 2)
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 1), np.float32))
    alexnet = Classifier(model, jax.tree.map(lambda leaf: np.zeros(leaf.shape), variables), settings, ["cat", "dog"])
    with pytest.raises(UserError, match="image_size=8: ") as error:
        alexnet.at_size(8)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
