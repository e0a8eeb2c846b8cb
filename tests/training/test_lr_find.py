"""The learning-rate search and its suggestions, compared with their definitions."""

import dataclasses
import io
import itertools
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flax_resnets import BasicBlock, ResNet, create_model
from flax_resnets.data.batches import train_batch
from flax_resnets.errors import UserError
from flax_resnets.training import lr_find as finder
from flax_resnets.training.compilation import quick_to_compile
from flax_resnets.training.lr_find import RangeTest, Suggestions, draw, lr_find, range_test, steepest, suggest, valley
from flax_resnets.training.placement import make_mesh
from flax_resnets.training.step import StepOutput

QUICKLY = quick_to_compile(make_mesh())


@pytest.fixture(scope="module")
def model() -> ResNet:
    return ResNet((1, 1), BasicBlock, 4, 8, stem="small")


@pytest.fixture(scope="module")
def found(model, config, data) -> RangeTest:
    return lr_find(model, dataclasses.replace(config, flip=False), data, start=1e-6, end=1.0, steps=30)


def test_the_rate_rises_exponentially_over_the_steps(found):
    assert found.stopped == "end"
    np.testing.assert_allclose(found.rates, np.geomspace(1e-6, 1.0, 30), rtol=1e-5)
    assert len(found.losses) == len(found.smoothed) == 30


def test_the_loss_falls_where_the_network_learns(found):
    assert min(found.losses) < 0.5 * found.losses[0]
    suggestions = suggest(found, 30)
    assert suggestions is not None
    assert all(1e-5 < rate < 1.0 for rate in suggestions)


def test_the_first_loss_is_the_runs_own(found, model, config, data):
    batch = train_batch(data.images, data.labels, config.batch_size, config.seed, step=0)
    images = (batch.images / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    init = jax.jit(lambda: model.init(jax.random.key(config.seed), images, train=False), compiler_options=QUICKLY)
    variables = init()
    logits, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
    logits = np.float64(logits)
    entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), batch.labels]
    np.testing.assert_allclose(found.losses[0], entropy.mean(), rtol=1e-4)


def test_a_rate_that_is_too_high_ends_the_search(model, config, data):
    done = []
    high = dataclasses.replace(config, optimizer="sgd", clip_norm=None)
    test = lr_find(model, high, data, start=1e-3, end=1e30, steps=40, progress=done.append)
    assert test.stopped in ("diverged", "not finite")
    assert len(test.rates) < 20
    assert done == list(range(1, len(done) + 1))
    assert len(test.rates) <= len(done) <= len(test.rates) + 1
    assert all(map(math.isfinite, test.losses))


@pytest.mark.parametrize(("schedule", "momentum"), [("one_cycle", 0.8), ("constant", 0.9)])
def test_momentum_is_what_the_schedule_has_at_the_peak(model, config, data, monkeypatch, schedule, momentum):
    class Made(Exception):
        pass

    def make_optimizer(config, learning_rate, momentum, *_):
        raise Made(float(momentum(0)))

    monkeypatch.setattr(finder, "make_optimizer", make_optimizer)
    with pytest.raises(Made, match=str(momentum)):
        lr_find(model, dataclasses.replace(config, schedule=schedule, momentum=(0.9, 0.8)), data)


def test_a_batch_larger_than_the_split_is_named(model, config, data):
    with pytest.raises(UserError, match="batch_size=512: must be at most the 203 training images"):
        lr_find(model, dataclasses.replace(config, batch_size=512), data)


def test_images_the_network_does_not_take_are_named(config, data):
    with pytest.raises(UserError, match=r"on images of \(12, 12, 1\): .*too small"):
        lr_find(create_model("alexnet", num_classes=4), config, data)


def test_a_network_of_one_size_does_not_search_on_growing_images(config, data):
    growing = dataclasses.replace(config, model="lenet", progressive=((1, 16),))
    with pytest.raises(UserError, match="'lenet' has other parameters for images of 16 px than of 12"):
        lr_find(create_model("lenet", num_classes=4), growing, data)


def output(loss: float, skipped: int = 0) -> StepOutput:
    return StepOutput(np.float32(loss), np.float32(0.1), np.float32(0.9), np.int32(skipped))


def test_a_skipped_step_is_no_loss(config):
    *before, last = finder._points([output(2.0), output(1.5), output(1.0, skipped=1)], config)
    assert [loss for _, loss in before] == [2.0, 1.5]
    assert math.isnan(last[1])


def test_float16s_scale_may_come_down_first(config):
    half = dataclasses.replace(config, precision="float16", max_skipped_steps=3)
    steps = [output(2.0, skipped=1), output(2.0, skipped=2), output(1.5)]
    assert [loss for _, loss in finder._points(steps, half)] == [1.5]
    (point,) = finder._points([*steps[:2], output(2.0, skipped=3)], half)
    assert math.isnan(point[1])
    (point,) = finder._points([output(math.inf, skipped=1)], half)
    assert math.isnan(point[1])


losses = st.lists(st.floats(1.0, 3.9), min_size=1, max_size=30)


@given(losses)
@settings(max_examples=50)
def test_smoothing_is_a_weighted_mean_of_the_past(losses):
    test = range_test(enumerate(losses, start=1))
    assert test.stopped == "end"
    for k in range(1, len(losses) + 1):
        weights = 0.98 ** np.arange(k)[::-1]
        assert test.smoothed[k - 1] == pytest.approx(np.average(losses[:k], weights=weights))


def test_the_search_ends_when_the_average_is_four_times_its_lowest():
    rates = iter(range(100))
    losses = [1.0] * 10 + [10.0] * 90
    test = range_test((rate, losses[rate]) for rate in rates)
    assert test.stopped == "diverged"
    assert test.smoothed[-2] <= 4.0 < test.smoothed[-1]
    assert test.rates == tuple(range(len(test.rates)))
    assert next(rates) == len(test.rates)  # no further point was read


def test_a_loss_below_zero_is_no_divergence():
    assert range_test([(1, -1.0), (2, -2.0), (3, -3.0)]).stopped == "end"
    assert range_test([(1, -1.0), *((rate, 100.0) for rate in range(2, 50))]).stopped == "diverged"


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_search_and_is_left_out(loss):
    test = range_test([(1.0, 2.0), (2.0, loss), (3.0, 1.0)])
    assert (test.rates, test.losses, test.stopped) == ((1.0,), (2.0,), "not finite")


def half_way_down(losses: list[float]) -> int:
    """fastai's valley, found among all subsequences."""
    falling = [
        chosen
        for length in range(1, len(losses) + 1)
        for chosen in itertools.combinations(range(len(losses)), length)
        if all(losses[a] > losses[b] for a, b in itertools.pairwise(chosen))
    ]
    longest = max(map(len, falling))
    end = min(chosen[-1] for chosen in falling if len(chosen) == longest)
    start = end - longest
    return max(0, start + int(longest / 3) + int(longest / 3 / 2))


@given(st.lists(st.integers(0, 9).map(float), min_size=1, max_size=9))
@settings(max_examples=100)
def test_valley_is_half_way_down_the_longest_descent(losses):
    rates = np.geomspace(1e-4, 1.0, len(losses))
    assert valley(rates, np.array(losses)) == rates[half_way_down(losses)]


@given(st.lists(st.floats(0, 9), min_size=2, max_size=20))
@settings(max_examples=50)
def test_steepest_is_where_the_loss_falls_fastest(losses):
    rates = np.geomspace(1e-4, 1.0, len(losses))
    slopes = [(b - a) / math.log(s / r) for a, b, r, s in zip(losses, losses[1:], rates, rates[1:], strict=False)]
    assert slopes[list(rates).index(steepest(rates, np.array(losses)))] == pytest.approx(min(slopes))


def bowl(steps: int) -> RangeTest:
    """Flat, then a slope that is steepest at 1e-2, then rising."""
    rates = np.geomspace(1e-6, 10, steps)
    losses = 1 + 1.3 / (1 + (rates / 1e-2) ** 2) + np.maximum(0, rates - 1) ** 2
    return RangeTest(tuple(rates), tuple(losses), tuple(losses), "diverged")


def test_suggestions_for_a_bowl():
    suggestions = suggest(bowl(100), 100)
    assert suggestions is not None
    assert suggestions.steepest == pytest.approx(1e-2, rel=0.2)  # the rates are 18 % apart
    assert 1e-4 < suggestions.valley < 1e-2


def test_what_is_left_aside_suggests_nothing():
    # The loss falls only in the first tenth and the last five points.
    smoothed = (*np.linspace(3, 2, 10), *np.full(85, 2.0), *np.linspace(1.9, 1, 5))
    assert suggest(RangeTest(tuple(range(1, 101)), smoothed, smoothed, "end"), 100) is None


@pytest.mark.parametrize("points", [0, 1, 10, 16])
def test_too_few_points_suggest_nothing(points):
    assert suggest(RangeTest(*(each[:points] for each in bowl(100)[:3]), "diverged"), 100) is None


@pytest.mark.parametrize(("test", "suggestions"), [(bowl(50), Suggestions(1e-2, 1e-3)), (range_test([]), None)])
def test_the_picture(test, suggestions):
    picture = Image.open(io.BytesIO(draw(test, suggestions, "a recipe")))
    assert picture.format == "PNG"
    assert picture.size == (800, 500)
    colors = {color for _, color in picture.convert("RGB").getcolors(2**20)}
    assert ((0xFF, 0x7F, 0x0E) in colors) == (suggestions is not None)  # C1 is the color of a suggestion
