"""The learning-rate range test: a short run at a rising rate, and the two rates that its losses suggest.

Smith 2015, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186, section 3.3; smoothing, the end
and the suggestions are those of fastai's `lr_find` (fastai/callback/schedule.py, `AvgSmoothLoss`).
"""

import contextlib
import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn

from flax_resnets.data.batches import Split, steps_per_epoch
from flax_resnets.training.build import initial_state
from flax_resnets.training.config import Config
from flax_resnets.training.in_flight import each_computed
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.out_of_memory import out_of_memory
from flax_resnets.training.placement import make_mesh, to_devices
from flax_resnets.training.step import StepOutput, make_train_step

# fastai's numbers: the average's decay, how far above its lowest value it ends the search, and what the suggestions
# leave aside: a share of the steps at the beginning, where the average has seen little, and points at the end.
_BETA = 0.98
_DIVERGED = 4.0
_SKIPPED_SHARE = 10
_SKIPPED_LAST = 5


class RangeTest(NamedTuple):
    """A finished search; a point for each step, in order.

    Attributes:
        rates: learning rates, rising.
        losses: of each step's batch, all finite.
        smoothed: their exponential average up to each step.
        stopped: what ended it: `end`, every step was taken; `diverged`, the average rose above four times its lowest
            value; `not finite`, a loss or gradient was not, and that step is not among the points.
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
) -> RangeTest:
    """Takes the run's first steps at rates that grow exponentially from `start` to `end`.

    Weights, batches, augmentation, loss and optimizer are those of the run from step 0 on, its image size that of the
    first epoch. Momentum stays where the run's schedule has it at the peak, which is the rate looked for.

    Args:
        model: the network, as `make_model` gives it.
        config: the run.
        train: training split.
        start: learning rate of the first step, above 0.
        end: of the last, above `start`.
        steps: at least 2.
        progress: is told how many steps are done.

    Raises:
        UserError: the network does not take such images, or there are fewer of them than a batch, or the device's
            memory does not hold what they need.
    """
    steps_per_epoch(len(train), config.batch_size)  # raises where the images do not fill one batch
    size = config.size_in_epoch(0)
    config = dataclasses.replace(config, ema_decay=None)  # nothing looks at the weights' average
    mesh = make_mesh(config.weight_shards)
    optimizer = make_optimizer(
        config,
        optax.exponential_decay(start, steps - 1, end / start),
        optax.constant_schedule(config.momentum[1] if config.schedule == "one_cycle" else config.momentum[0]),
    )
    new_state, _ = initial_state(model, optimizer, config, mesh, train.channels)
    train_step = make_train_step(
        model, optimizer, config, mesh, image_size=size, mix_until=0 if config.mix_off_epoch == 0 else None
    )

    def outputs() -> Iterator[StepOutput]:
        with out_of_memory(f"model={config.model}", "a smaller one, or a larger weight_shards, needs less"):
            state = jax.block_until_ready(new_state())
        with contextlib.closing(train.train_batches(config.batch_size, config.seed, range(steps))) as batches:
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
    """Learning rate and loss of each step; not-a-number for one that was skipped."""
    for output in outputs:
        skipped, loss = int(output.skipped_in_a_row), float(output.loss)
        # float16 skips steps until its loss scale has come down to what the gradients bear, at any rate.
        scaling = config.precision == "float16" and math.isfinite(loss) and skipped < config.max_skipped_steps
        if not (skipped and scaling):
            yield float(output.learning_rate), math.nan if skipped else loss


def range_test(points: Iterable[tuple[float, float]]) -> RangeTest:
    """Takes points of learning rate and loss until the loss diverges or is not finite, or there are no more.

    The average is fastai's, corrected for its start: after k losses, the sum of 0.98^(k-i) loss_i over i, divided by
    that of 0.98^(k-i).

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
        if smoothed[-1] > _DIVERGED * best:
            stopped = "diverged"
            break
    return RangeTest(tuple(rates), tuple(losses), tuple(smoothed), stopped)


def suggest(test: RangeTest, steps: int) -> Suggestions | None:
    """Both suggestions from the smoothed losses, without the first tenth of the steps and the last five points.

    Args:
        test: the search.
        steps: that it would have had without divergence.

    Returns:
        None where too few points are left, or the average nowhere falls.
    """
    rates, losses = (np.array(each[steps // _SKIPPED_SHARE : -_SKIPPED_LAST]) for each in (test.rates, test.smoothed))
    if len(losses) < 2 or not (np.diff(losses) < 0).any():
        return None
    return Suggestions(steepest(rates, losses), valley(rates, losses))


def steepest(rates: np.ndarray, losses: np.ndarray) -> float:
    """The rate from which to the next the loss falls fastest, over the logarithm of the rate (fastai's `steep`).

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

    The descent is the longest strictly falling subsequence of the losses: points in between may rise. Of several the
    one that ends first. With its last point at index e and L points in it, the suggestion is the rate at index
    e - L + L // 3 + L // 6, as if its points were neighbours: where some lie between, nearer to its end than half way.

    Args:
        rates: `(N,)`, rising; N at least 1.
        losses: `(N,)`.

    Example:
        >>> valley(np.geomspace(1e-6, 1, 7), np.array([2.4, 2.3, 2.0, 1.5, 1.2, 1.1, 3.0])).__round__(9)
        0.0001
    """
    lengths = np.ones(len(losses), np.int64)  # of the longest that ends at each point
    for i in range(1, len(losses)):
        lengths[i] += lengths[:i].max(initial=0, where=losses[:i] > losses[i])
    last = int(lengths.argmax())
    length = int(lengths[last])
    return float(rates[max(0, last - length + length // 3 + length // 6)])


def draw(test: RangeTest, suggestions: Suggestions | None, title: str) -> bytes:
    """Losses against the logarithm of the rate, with the suggestions marked, as a PNG."""
    # By hand, not through pyplot, whose global figure and choice of window would be the importing program's too.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(test.rates, test.losses, ".", color="0.7", label="loss of a batch")
    axes.plot(test.rates, test.smoothed, color="C0", label="smoothed")
    for name, rate, color in zip(Suggestions._fields, suggestions or (), ("C1", "C2"), strict=False):
        axes.axvline(rate, color=color, linestyle="--", linewidth=1)
        axes.plot(rate, np.interp(rate, test.rates, test.smoothed), "o", color=color, label=f"{name} {short(rate)}")
    axes.set_xscale("log")
    if test.smoothed:
        # What comes after the lowest is seen to rise, no matter how far: whole, it would flatten the rest to a line.
        lowest = int(np.argmin(test.smoothed))
        low, high = min(test.losses), max(test.losses[: lowest + 1])
        margin = 0.1 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss (nats)")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    return picture.getvalue()


def short(rate: float) -> str:
    """A rate with two digits.

    Example:
        >>> short(0.00209)
        '2.1e-3'
    """
    digits, exponent = f"{rate:.1e}".split("e")
    return f"{digits}e{int(exponent)}"
