"""Topologies' names, and the roofline."""

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.tpu.chips import CHIPS, parse_topology, roofline


@pytest.mark.parametrize(
    ("name", "devices"),
    [("v5e:1x1", 1), ("v5e:4x4", 16), ("v6e:8x8", 64), ("v4:2x2x1", 4), ("v4:4x4x8", 128), ("v5p:16x16x24", 6144)],
)
def test_topologies_there_are(name, devices):
    topology = parse_topology(name)
    assert topology.devices == devices
    assert topology.chip is CHIPS[name.partition(":")[0]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "--topology=: must be v4, v5e, v5p, v6e and a shape, such as v5e:4x4 or v5p:2x2x1"),
        ("v5litepod-16", "must be v4, v5e, v5p, v6e and a shape"),
        ("v6:8x8", "did you mean v6e:8x8?"),
        ("v5e", "v5e comes as 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        ("v5e-4x4", "did you mean v5e:4x4?"),
        ("v5e:4x2", "--topology=v5e:4x2: v5e comes as 1x1, "),
        ("v5e:0x0", "v5e comes as 1x1"),
        ("v5e:32x32", "v5e comes as 1x1"),
        ("v5e:2x2x1", "did you mean v5e:2x2?"),
        ("v4:2x2", "did you mean v4:2x2x1?"),
        ("v4:3x3x3", "v4 comes as 2x2x1, "),
        ("v4:16x16x24", "or sides that are multiples of 4, up to 4096 chips"),
    ],
)
def test_topologies_there_are_not(name, message):
    with pytest.raises(UserError) as error:
        parse_topology(name)
    assert message in str(error.value)


def test_the_roofline_takes_the_longer_of_the_two():
    # A plain ResNet-50 step on a v5e: moving its bytes takes 101 ms, its arithmetic 31.
    estimate = roofline(6.17e12, 82.6e9, CHIPS["v5e"])
    assert estimate["bound"] == "memory"
    assert estimate["step_seconds"] == estimate["memory_seconds"] == pytest.approx(0.101, abs=5e-4)
    assert estimate["compute_seconds"] == pytest.approx(0.031, abs=5e-4)
    assert roofline(1e12, 1e9, CHIPS["v5e"])["bound"] == "compute"
