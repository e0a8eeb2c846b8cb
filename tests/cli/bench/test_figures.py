"""Medians, ratios and distances from a line."""

import pytest

from flax_resnets.cli.bench.figures import off_the_line, ratios, spread


def test_a_spread_is_the_median_between_the_quartiles():
    assert spread([4.0, 1.0, 3.0, 2.0, 100.0]) == (3.0, 2.0, 4.0)
    assert spread([7.0]) == (7.0, 7.0, 7.0)


def test_ratios_are_taken_round_by_round():
    # The machine is ten times as slow in the second round: the ratio of the medians would be 3.0.
    seconds = {"ours": [1.0, 10.0, 1.0], "theirs": [3.0, 20.0, 2.0], "others": [0.5, 5.0, 0.5]}
    assert ratios(seconds, "ours") == {"theirs": (2.0, 2.0, 2.5), "others": (0.5, 0.5, 0.5)}


def test_a_fixed_cost_is_on_the_line_and_a_bend_is_not():
    assert off_the_line([16, 32, 64], [5 + 2 * 16, 5 + 2 * 32, 5 + 2 * 64]) == pytest.approx([0, 0, 0], abs=1e-9)
    low, middle, high = off_the_line([1, 2, 4], [1.0, 2.5, 6.25])
    assert low < middle < high
    assert low < -0.15
    assert high > 0.15


def test_a_cost_that_grows_faster_than_the_work_is_off_even_where_it_is_straight():
    assert max(off_the_line([1, 2, 3], [1.0, 3.0, 5.0])) > 0.1
