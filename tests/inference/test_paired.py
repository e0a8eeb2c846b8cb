"""Intervals and tests of differences, against published figures and scipy."""

import numpy as np
import pytest
from scipy import stats

from flax_resnets.inference.paired import mcnemar, over_images, over_seeds


def answers(both: int, ours: int, theirs: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether two networks are right, for so many images of each kind."""
    return (
        np.array([True] * (both + ours) + [False] * (theirs + none)),
        np.array([True] * both + [False] * ours + [True] * theirs + [False] * none),
    )


def test_the_interval_is_that_of_another_implementation():
    """The example in the manual of R's package statpsych, `ci.prop.ps(.05, 12, 4, 26, 6)`."""
    found = over_images(*answers(both=6, ours=26, theirs=4, none=12))
    assert found.difference == pytest.approx(22 / 48)
    assert found.lower == pytest.approx(0.2548067, abs=1e-6)
    assert found.upper == pytest.approx(0.6251933, abs=1e-6)
    assert found.p_value == pytest.approx(stats.binomtest(4, 30).pvalue)


@pytest.mark.parametrize(("images", "ours", "theirs"), [(100, 0.1, 0.05), (3000, 0.03, 0.02)])
def test_the_interval_covers_the_true_difference(images, ours, theirs):
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        both, first, second, none = random.multinomial(images, [0.8, ours, theirs, 0.2 - ours - theirs])
        found = over_images(*answers(both, first, second, none))
        hits += found.lower <= ours - theirs <= found.upper
    assert 0.92 <= hits / 500 <= 0.98


def test_equal_networks_do_not_differ():
    ours, _ = answers(5, 5, 0, 0)
    found = over_images(ours, ours)
    assert (found.difference, found.p_value) == (0, 1)
    assert found.lower < 0 < found.upper


def test_groups_have_no_p_value_over_images():
    found = over_images(np.array([1.0, 0.5, 0.0]), np.array([True, False, False]))
    assert found.difference == pytest.approx(0.5 / 3)
    assert found.p_value is None


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (1, 0), (3, 9), (400, 300)])
def test_mcnemar_is_the_binomial_test(gained, lost):
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


def test_seeds_are_compared_by_welch():
    ours, theirs = [0.90, 0.92, 0.91], [0.85, 0.88]
    found = over_seeds(ours, theirs)
    theirs_ = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = theirs_.confidence_interval()
    assert found == pytest.approx((0.045, interval.low, interval.high, theirs_.pvalue))


def test_one_seed_says_nothing_of_seeds():
    assert over_seeds([0.9], [0.8, 0.7]) is None
    assert over_seeds([0.9, 0.9], [0.8, 0.8]) == pytest.approx((0.1, 0.1, 0.1, 0.0))
