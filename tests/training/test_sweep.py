"""The runs of a sweep: combinations, draws, names."""

import json

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.recipes import load_config
from flax_resnets.training.sweep import axis, points

QUICKSTART = load_config("quickstart")


def test_values_with_commas_and_options_of_the_network():
    found = points(QUICKSTART, [axis("momentum=0.9,0.9;0.95,0.85"), axis("model_options.width=4,8")])
    assert [each.name for each in found][:2] == [
        "model_options.width=4-momentum=0.9,0.9",
        "model_options.width=4-momentum=0.95,0.85",
    ]
    assert found[-1].config.momentum == (0.95, 0.85)
    assert found[-1].settings == {"momentum": [0.95, 0.85], "model_options.width": 8}
    assert found[0].config.model_options == {**QUICKSTART.model_options, "width": 4}


def test_draws_depend_on_their_seed_alone_and_more_begin_with_the_same():
    axes = [axis("learning_rate=log:1e-3:1e-1"), axis("mixup=0,0.2"), axis("seed=0,1")]
    drawn = points(QUICKSTART, axes, 5)
    assert len(drawn) == 10
    assert [each.config.seed for each in drawn] == [0, 1] * 5
    assert points(QUICKSTART, axes, 8)[:10] == drawn
    assert points(QUICKSTART, axes, 5, seed=1) != drawn
    rates = [each.config.learning_rate for each in drawn[::2]]
    assert len(set(rates)) == 5
    assert all(1e-3 <= rate <= 1e-1 and float(f"{rate:.3g}") == rate for rate in rates)


def test_the_logarithm_of_a_drawn_value_is_even():
    rates = [each.config.learning_rate for each in points(QUICKSTART, [axis("learning_rate=log:1e-3:1e-1")], 200)]
    assert 70 < sum(rate < 1e-2 for rate in rates) < 130
    shares = [each.config.mixup for each in points(QUICKSTART, [axis("mixup=lin:0:1")], 200)]
    assert 70 < sum(share < 0.5 for share in shares) < 130


def test_settings_of_a_grid_are_drawn_once_each():
    axes = [axis("learning_rate=1e-3,1e-2,1e-1"), axis("mixup=0,0.2")]
    names = [each.name for each in points(QUICKSTART, axes, 5)]
    assert len(set(names)) == 5
    assert names[:3] == [each.name for each in points(QUICKSTART, axes, 3)]
    assert set(names) < {each.name for each in points(QUICKSTART, axes)}
    with pytest.raises(UserError, match=r"combinations; at most 1,000"):
        points(QUICKSTART, axes, 10**9)
    with pytest.raises(UserError, match="--random=50: only 3 settings are there; draw fewer, or widen a range"):
        points(QUICKSTART, [axis("learning_rate=lin:0.1:0.102")], 50)


def test_names_are_short():
    found = points(QUICKSTART, [axis(f"class_weights={','.join(['1'] * 200)};{','.join(['2'] * 200)}")])
    assert len({each.name for each in found}) == 2
    assert all(len(each.name) < 100 for each in found)
    assert json.dumps(found[0].settings).count("1.0") == 200


def test_fields_in_another_order_are_the_same_runs():
    axes = [axis("mixup=0,0.2"), axis("seed=0,1"), axis("learning_rate=1e-3,1e-2")]
    assert points(QUICKSTART, axes) == points(QUICKSTART, axes[::-1])
    drawn = [*axes[:2], axis("learning_rate=log:1e-3:1e-1")]
    assert points(QUICKSTART, drawn, 3) == points(QUICKSTART, drawn[::-1], 3)
