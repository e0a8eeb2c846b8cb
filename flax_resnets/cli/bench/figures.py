"""Statistics of measurements: medians, quartiles, ratios, and distances from a straight line."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Spread(NamedTuple):
    """A median and its quartiles."""

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
    """The speed of one contender relative to each of the others: 2.0 means twice as fast.

    The ratio is computed for each round, from turns that directly follow each other, and the median is taken over the
    rounds. A machine that is slow for a while then slows both.

    Args:
        seconds: for each contender, a value for each round.
        ours: the contender to compare with the others.

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
    """The distance of each measurement from the straight line through all of them, as a share of the line's value.

    The line `a + b * work` has the smallest sum of squared relative distances. The fixed cost of a step, a, is at least
    0: otherwise a cost that grows faster than the work would fit a line with a negative a.

    Args:
        work: amount of work, such as images or pixels; at least two different values.
        seconds: the time of each.

    Example:
        >>> [round(abs(share), 6) for share in off_the_line([1, 2, 4], [3.0, 5.0, 9.0])]
        [0.0, 0.0, 0.0]
    """
    x, y = np.asarray(work, float), np.asarray(seconds, float)
    terms = np.stack([np.ones_like(x), x], axis=1) / y[:, None]  # line / y should be 1
    (fixed, slope), *_ = np.linalg.lstsq(terms, np.ones_like(y))
    if fixed < 0:
        fixed, slope = 0.0, terms[:, 1].sum() / (terms[:, 1] ** 2).sum()
    return [float(share) for share in y / (fixed + slope * x) - 1]
