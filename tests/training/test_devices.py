"""Training on one device and on eight gives the same result; messages about the devices of this machine.

Each number of simulated devices needs its own process, which takes the steps of all cases.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from flax_resnets.training import devices
from flax_resnets.training.tpu import libtpu


def test_the_devices_in_words():
    assert re.fullmatch(r"1 CPU device of \d+ cores?", devices.devices_in_words())


@pytest.mark.parametrize(
    ("here", "installed", "platforms", "message"),
    [
        (None, False, None, None),
        ("nvidia", False, None, r'an NVIDIA GPU is here and not used: .* pip install -e "\.\[train,cuda\]"'),
        ("nvidia", True, None, "an NVIDIA GPU is here and not used: .* see what JAX_PLATFORMS=cuda says"),
        ("nvidia", False, "cpu", "an NVIDIA GPU is here and not used: JAX_PLATFORMS=cpu"),
        ("accel", False, None, r'a device that may be a TPU is here and not used: .* pip install -e "\.\[train,tpu\]"'),
    ],
)
def test_there_is_a_message_about_an_idle_accelerator(tmp_path, monkeypatch, here, installed, platforms, message):
    if here:
        (tmp_path / f"{here}0").touch()
    monkeypatch.setattr(devices, "_NVIDIA", (f"{tmp_path}/nvidia[0-9]*",))
    monkeypatch.setattr(libtpu, "_DEVICE_FILES", (f"{tmp_path}/accel[0-9]*",))
    monkeypatch.setattr(devices, "_installed", lambda name: installed)
    monkeypatch.setenv("JAX_PLATFORMS", platforms) if platforms else monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    said = devices.idle_accelerator()
    assert said == message or re.fullmatch(message, said)


# The processes: how many devices each has, and the cases that it takes: kind of batch normalisation, number of steps,
# parts of the weights, optimizer. The last two are for slow tests alone.
PROCESSES = [
    (1, [("global", 20, 1, "adamw"), ("ghost:4", 20, 1, "adamw"), ("device", 1, 1, "adamw")]),
    (
        8,
        [
            ("global", 20, 1, "adamw"),
            ("global", 20, 4, "adamw"),
            ("ghost:4", 20, 1, "adamw"),
            ("device", 20, 1, "adamw"),
        ],
    ),
    (1, [("global", 20, 1, "muon")]),
    (
        8,
        [
            ("ghost:4", 20, 4, "adamw"),
            ("device", 20, 2, "adamw"),
            ("global", 20, 1, "muon"),
            ("global", 20, 4, "muon"),
        ],
    ),
]


@pytest.fixture(scope="module")
def steps() -> Callable[..., dict]:
    """What the steps gave: `steps(8, "global", weight_shards=4)` is one of the cases."""

    @cache
    def of_process(number: int) -> list[dict]:
        devices, cases = PROCESSES[number]
        script = Path(__file__).with_name("steps_on_devices.py")
        command = [sys.executable, "-W", "error", str(script), str(devices), *map(json.dumps, cases)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=580)
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]

    def of(devices: int, batch_norm: str, count: int = 20, weight_shards: int = 1, optimizer: str = "adamw") -> dict:
        case = batch_norm, count, weight_shards, optimizer
        (number,) = (i for i, (on, cases) in enumerate(PROCESSES) if on == devices and case in cases)
        return of_process(number)[PROCESSES[number][1].index(case)]

    return of


def assert_same_training(one: dict, other: dict) -> None:
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-5)
    # A recomputed statistic is ten times the difference of two numbers, so its rounding is ten times as large.
    for kind, atol in (("statistics", 1e-5), ("recalibrated", 1e-4)):
        for a, b in zip(one[kind], other[kind], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)
    for a, b in zip(one["evaluation"], other["evaluation"], strict=True):  # losses, shares, and the confusion matrix
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_global_batch_norm_makes_eight_devices_one(steps):
    assert_same_training(steps(1, "global"), steps(8, "global"))


def test_device_batch_norm_is_a_ghost_on_every_device(steps):
    assert_same_training(steps(1, "ghost:4"), steps(8, "device"))
    assert_same_training(steps(1, "ghost:4"), steps(8, "ghost:4"))
    assert steps(1, "ghost:4")["losses"] != steps(1, "global")["losses"]


def test_device_batch_norm_meets_once_a_step(steps):
    assert steps(1, "device", 1)["all_reduces"] <= 1
    assert steps(8, "device")["all_reduces"] == 1


@pytest.mark.parametrize("batch_norm", ["global", pytest.param("ghost:4", marks=pytest.mark.slow)])
def test_split_weights_train_as_whole_ones_do(steps, batch_norm):
    whole, split = steps(8, batch_norm), steps(8, batch_norm, weight_shards=4)
    assert_same_training(whole, split)
    assert split["placed_as_before"]
    assert split["bytes_of_weights"] < 0.5 * whole["bytes_of_weights"]


@pytest.mark.slow
def test_split_weights_and_norms_of_each_device(steps):
    assert_same_training(steps(8, "device"), steps(8, "device", weight_shards=2))


@pytest.mark.slow
def test_muons_matrices_on_eight_devices_and_in_parts(steps):
    """Muon's products use whole kernels, also when kernels are split over devices."""
    one, eight = steps(1, "global", optimizer="muon"), steps(8, "global", optimizer="muon")
    split = steps(8, "global", weight_shards=4, optimizer="muon")
    assert_same_training(one, eight)
    assert_same_training(eight, split)
    assert split["placed_as_before"]
    assert one["losses"] != steps(1, "global")["losses"]
