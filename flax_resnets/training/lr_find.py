"""The learning-rate range test: a short run at a rising learning rate, and two rates suggested by its losses.

Smith 2015, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3. The smoothing, the
stopping rule and the suggestions are those of fastai's `lr_find` (fastai/callback/schedule.py, `AvgSmoothLoss`).
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple, cast

import jax
import numpy as np
import optax
from flax import linen as nn

from flax_resnets.data.batches import Split, steps_per_epoch
from flax_resnets.figures import new_figure, png
from flax_resnets.training.build import initial_state
from flax_resnets.training.completion import completed
from flax_resnets.training.config import Config
from flax_resnets.training.finetune import plan_of
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.out_of_memory import out_of_memory
from flax_resnets.training.placement import make_mesh, to_devices
from flax_resnets.training.step import StepOutput, make_train_step

# fastai's numbers: the decay of the average; how many times its lowest value it may reach before the search ends; and
# what the suggestions ignore: a tenth of the steps at the start, where the average has seen few losses, and the last 5.
_BETA = 0.98
_DIVERGED = 4.0
_SKIPPED_SHARE = 10
_SKIPPED_LAST = 5


class RangeTest(NamedTuple):
    """A finished search, with one point for each step.

    Attributes:
        rates: learning rates, rising.
        losses: loss of each step's batch, all finite.
        smoothed: moving average of the losses up to each step.
        stopped: why the search ended. `end`: all steps were taken. `diverged`: the average rose above four times its
            lowest value. `not finite`: a loss or gradient was not finite; the points end before that step.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    stopped: Literal["end", "diverged", "not finite"]


class Suggestions(NamedTuple):
    """Learning rates to try; see `steepest` and `valley`."""

    steepest: float
    valley: float


def lr_find(
    model: nn.Module,
    config: Config,
    train: Split,
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    progress: Callable[[int], None] = lambda done: None,
    pretrained: Callable[[], Mapping[str, Any]] | None = None,
) -> RangeTest:
    """Takes the first steps of a run at learning rates that rise exponentially from `start` to `end`.

    Weights, batches, augmentation, loss and optimizer are those of the run from step 0 on; the image size is that of
    its first epoch. The momentum is constant: the value that the run's schedule has at the peak, since the search looks
    for the peak.

    Args:
        model: the network, as `make_model` returns it.
        config: the run.
        train: training split.
        start: learning rate of the first step, above 0.
        end: learning rate of the last step, above `start`.
        steps: at least 2.
        progress: is called with the number of steps done.
        pretrained: gives the weights to begin with, see `create_state`; None for random ones.

    Raises:
        UserError: the network does not take images of this shape, there are fewer images than a batch has, or the
            device's memory is too small.
    """
    steps_per_epoch(len(train), config.batch_size)  # raises if the images do not fill one batch
    size = config.size_in_epoch(0)
    config = dataclasses.replace(config, ema_decay=None)  # nothing here uses the average
    config = completed(config, train, cast(Any, model).num_classes)
    mesh = make_mesh(config.weight_shards)
    plan = plan_of(config, model, (config.image_size, config.image_size, train.channels))
    optimizer = make_optimizer(
        config,
        optax.exponential_decay(start, steps - 1, end / start),
        optax.constant_schedule(config.momentum[1] if config.schedule == "one_cycle" else config.momentum[0]),
        plan.groups,
        plan.waiting,
    )
    new_state, _ = initial_state(model, optimizer, config, mesh, train.channels, plan.frozen)
    train_step = make_train_step(
        *(model, optimizer, config, mesh),
        image_size=size,
        mix_until=0 if config.mix_off_epoch == 0 else None,
        frozen=plan.frozen,
        waiting=plan.waiting,
        norms_rest=plan.norms_rest,
    )

    def outputs() -> Iterator[StepOutput]:
        with out_of_memory(f"model={config.model}", "a smaller one, or a larger weight_shards, needs less"):
            state = jax.block_until_ready(new_state(pretrained() if pretrained else None))
        order = config.batch_size, config.seed, range(steps), None, config.sampler
        with contextlib.closing(train.train_batches(*order)) as batches:
            for batch in batches:
                state, output = train_step(state, to_devices(batch, mesh))
                yield output

    def told() -> Iterator[StepOutput]:
        for done, output in enumerate(each_computed(outputs()), start=1):
            progress(done)
            yield jax.device_get(output)

    with out_of_memory(f"batch_size={config.batch_size}", "a smaller one, or a larger accumulate, needs less"):
        return range_test(_points(told(), config))


def _points(outputs: Iterable[StepOutput], config: Config) -> Iterator[tuple[float, float]]:
    """Learning rate and loss of each step; the loss of a skipped step is not-a-number."""
    for output in outputs:
        skipped, loss = int(output.skipped_in_a_row), float(output.loss)
        # With float16, steps are skipped at any learning rate until the loss scale has come down to a usable value.
        scaling = config.precision == "float16" and math.isfinite(loss) and skipped < config.max_skipped_steps
        if not (skipped and scaling):
            yield float(output.learning_rate), math.nan if skipped else loss


def range_test(points: Iterable[tuple[float, float]]) -> RangeTest:
    """Reads points of learning rate and loss until the loss diverges, is not finite, or the points end.

    The average is fastai's, corrected for its start: after k losses it is the sum over i of 0.98^(k-i) loss_i, divided
    by the sum of 0.98^(k-i).

    Example:
        >>> range_test([(0.1, 2.0), (0.2, 1.0), (0.4, 3.0)]).stopped
        'end'
        >>> range_test([(0.1, 2.0), (0.2, float("inf")), (0.4, 1.0)])
        RangeTest(rates=(0.1,), losses=(2.0,), smoothed=(2.0,), stopped='not finite')
    """
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    stopped: Literal["end", "diverged", "not finite"] = "end"
    average, best = 0.0, math.inf
    for rate, loss in points:
        if not math.isfinite(loss):
            stopped = "not finite"
            break
        average = _BETA * average + (1 - _BETA) * loss
        rates.append(rate)
        losses.append(loss)
        smoothed.append(average / (1 - _BETA ** len(rates)))
        best = min(best, smoothed[-1])
        if smoothed[-1] - best > (_DIVERGED - 1) * abs(best):  # a recipe's own loss may be below 0
            stopped = "diverged"
            break
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed), stopped)


def suggest(test: RangeTest, steps: int) -> Suggestions | None:
    """Both suggestions, from the smoothed losses without the first tenth of the steps and the last five points.

    Args:
        test: the search.
        steps: number of steps that the search would have taken without divergence.

    Returns:
        None if too few points are left, or if the average never falls.
    """
    rates, losses = (np.array(each[steps // _SKIPPED_SHARE : -_SKIPPED_LAST]) for each in (test.rates, test.smoothed))
    if len(losses) < 2 or not (np.diff(losses) < 0).any():
        return None
    return Suggestions(steepest(rates, losses), valley(rates, losses))


def steepest(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate at which the loss falls fastest to the next point, by the logarithm of the rate (fastai's `steep`).

    Args:
        rates: `(N,)`, rising; N at least 2.
        losses: `(N,)`.

    Example:
        >>> steepest(np.array([1e-3, 1e-2, 1e-1, 1.0]), np.array([2.3, 2.2, 1.2, 1.1]))
        0.01
    """
    return float(rates[np.argmin(np.diff(losses) / np.diff(np.log(rates)))])


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate half way down the longest descent (fastai's `valley`).

    The descent is the longest strictly falling subsequence of the losses; points in between may rise. Of several, the
    one that ends first counts. Let e be the index of its last point, and L the number of its points. The suggestion is
    the rate at index `e - L + L // 3 + L // 6`, as if the points were neighbours. If other points lie between them, the
    suggestion is nearer to the end of the descent than half way.

    Args:
        rates: `(N,)`, rising; N at least 1.
        losses: `(N,)`.

    Example:
        >>> valley(np.geomspace(1e-6, 1, 7), np.array([2.4, 2.3, 2.0, 1.5, 1.2, 1.1, 3.0])).__round__(9)
        0.0001
    """
    lengths = np.ones(len(losses), np.int64)  # of the longest falling subsequence that ends at each point
    for i in range(1, len(losses)):
        lengths[i] += lengths[:i].max(initial=0, where=losses[:i] > losses[i])
    last = int(lengths.argmax())
    length = int(lengths[last])
    return float(rates[max(0, last - length + length // 3 + length // 6)])


def draw(test: RangeTest, suggestions: Suggestions | None, title: str) -> bytes:
    """Draws losses against the logarithm of the learning rate, with the suggestions marked; returns a PNG."""
    figure = new_figure(8, 5)
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, ".", color="0.7", label="loss of a batch")
    axes.plot(test.rates, test.smoothed, color="C0", label="smoothed")
    for name, rate, color in zip(Suggestions._fields, suggestions or (), ("C1", "C2"), strict=False):
        axes.axvline(rate, color=color, linestyle="--", linewidth=1)
        axes.plot(rate, np.interp(rate, test.rates, test.smoothed), "o", color=color, label=f"{name} {short(rate)}")
    axes.set_xscale("log")
    if test.smoothed:
        # The axis ends a little above the losses before the lowest average. The whole rise would flatten the curve.
        lowest = int(np.argmin(test.smoothed))
        low, high = min(test.losses), max(test.losses[: lowest + 1])
        margin = 0.1 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss (nats)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="best")  # without a warning if finding it takes a second
    return png(figure)


def short(rate: float) -> str:
    """A rate with two digits, as text.

    Example:
        >>> short(0.00209)
        '2.1e-3'
    """
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"
