"""What rounds of measurement come to: medians, spread, ratios, and how straight a line is."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A median between its quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The median and quartiles of some values.

    Example:
        >>> spread([5.0, 1.0, 2.0, 4.0, 3.0])
        Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def ratios(seconds: Mapping[str, Sequence[float]], ours: str) -> dict[str, Spread]:
    """How many times as fast as each of the others one contender is.

    The ratio is taken round by round, of turns that followed each other, and only then its median: a machine that is
    slow for a while is so for both.

    Args:
        seconds: by contender, a value for each round.
        ours: the contender the ratios are of.

    Example:
        >>> ratios({"ours": [1.0, 2.0, 1.0], "theirs": [2.0, 4.0, 3.0]}, "ours")["theirs"].median
        2.0
    """
    return {
        name: spread([theirs / mine for theirs, mine in zip(values, seconds[ours], strict=True)])
        for name, values in seconds.items()
        if name != ours
    }


def off_the_line(work: Sequence[float], seconds: Sequence[float]) -> list[float]:
    """How far each measurement lies off the straight line through all, as a share of the line's own value.

    The line `a + b * work` is the one with the smallest relative squares. What a step costs however small it is, a, is
    not below 0: a cost that grows faster than the work must not pass for a line that starts there.

    Args:
        work: such as images, or pixels; at least two different values.
        seconds: what each took.

    Example:
        >>> [round(abs(share), 6) for share in off_the_line([1, 2, 4], [3.0, 5.0, 9.0])]
        [0.0, 0.0, 0.0]
    """
    x, y = np.asarray(work, float), np.asarray(seconds, float)
    terms = np.stack([np.ones_like(x), x], axis=1) / y[:, None]  # of line / y, which should be 1
    (fixed, slope), *_ = np.linalg.lstsq(terms, np.ones_like(y))
    if fixed < 0:
        fixed, slope = 0.0, terms[:, 1].sum() / (terms[:, 1] ** 2).sum()
    return [float(share) for share in y / (fixed + slope * x) - 1]
