"""Whether two accuracies really differ: over the images, paired, and over the seeds.

An interval over the images says what other images of the same kind would give these trained networks. An interval over
the seeds says what other seeds would give these images. Both are of 95 %.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from flax_resnets.inference.evaluation import Z


class Interval(NamedTuple):
    """A difference of two accuracies, with its 95 % interval.

    Attributes:
        difference: from -1 to 1, as `lower` and `upper` are.
        lower, upper: ends of the interval.
        p_value: how likely a difference as large as this is, or a larger one, if there is none; None if not computed.
    """

    difference: float
    lower: float
    upper: float
    p_value: float | None


def over_images(ours: np.ndarray, theirs: np.ndarray) -> Interval:
    """The difference of two accuracies on the same images.

    The interval is that of Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data": a normal interval of the images' differences, to which one image of either sign
    is added. For groups of several runs the same formula takes the groups' shares.

    Args:
        ours: whether each image is predicted right, bool `(N,)`; or the share of a group's runs that do, float `(N,)`.
        theirs: the same of the others, whose accuracy is subtracted.

    Returns:
        The difference; the p-value is McNemar's if both are bool, otherwise None.

    Example:
        >>> ours = np.array([True] * 90 + [False] * 10)
        >>> theirs = np.array([True] * 80 + [False] * 20)
        >>> print(*(f"{each:.3f}" for each in over_images(ours, theirs)))
        0.100 0.034 0.162 0.002
    """
    difference = ours.astype(np.float64) - theirs.astype(np.float64)
    added = np.append(difference, (1.0, -1.0))
    half = Z * float(added.std()) / math.sqrt(len(added))
    single = ours.dtype == bool and theirs.dtype == bool
    p_value = mcnemar(int((difference > 0).sum()), int((difference < 0).sum())) if single else None
    centre = float(added.mean())
    return Interval(float(difference.mean()), max(centre - half, -1.0), min(centre + half, 1.0), p_value)


def mcnemar(gained: int, lost: int) -> float:
    """The p-value of McNemar's test in its exact form, two-sided.

    Under the hypothesis of no difference, an image that only one of two networks predicts right is as likely the one's
    as the other's, so that their number is binomial (McNemar 1947, "Note on the sampling error of the difference
    between correlated proportions"). Dietterich 1998, "Approximate statistical tests for comparing supervised
    classification learning algorithms", section 3.1, recommends the test for two networks that were trained once.

    Args:
        gained: images that only the first network predicts right.
        lost: images that only the second does.

    Example:
        >>> mcnemar(1, 9), mcnemar(0, 0)
        (0.021484375, 1.0)
    """
    return min(1.0, 2 * float(special.bdtr(min(gained, lost), gained + lost, 0.5)))


def over_seeds(ours: Sequence[float], theirs: Sequence[float]) -> Interval | None:
    """The difference of the mean accuracies of two groups of runs, by Welch's t.

    Welch 1947, "The generalization of 'Student's' problem when several different population variances are involved".
    Unlike Student's, it does not take the two standard deviations for equal.

    Args:
        ours: the accuracy of each run of a group.
        theirs: the same of the other group, whose mean is subtracted.

    Returns:
        The difference; None if a group has one run alone, which tells nothing about other seeds.

    Example:
        >>> print(*(f"{each:.3f}" for each in over_seeds([0.90, 0.92, 0.91], [0.85, 0.88, 0.86])))
        0.047 0.015 0.078 0.016
    """
    if min(len(ours), len(theirs)) < 2:
        return None
    difference = float(np.mean(ours) - np.mean(theirs))
    first, second = (float(np.var(each, ddof=1)) / len(each) for each in (ours, theirs))
    error = math.sqrt(first + second)
    if error == 0:  # all runs of each group are equal
        return Interval(difference, difference, difference, float(difference == 0))
    freedom = (first + second) ** 2 / (first**2 / (len(ours) - 1) + second**2 / (len(theirs) - 1))
    half = float(special.stdtrit(freedom, 0.975)) * error
    p_value = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    return Interval(difference, difference - half, difference + half, p_value)
