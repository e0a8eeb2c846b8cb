"""The scripts in benchmarks/ still work with the trainer that they patch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--config", "configs/quickstart.py", "--config.batch_size=32"]

pytestmark = pytest.mark.slow


def run(tmp_path, script, *arguments):
    path = tmp_path / "figures.jsonl"
    command = [sys.executable, "-m", f"benchmarks.speed.{script}", "--json", path, *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_overhead_accounts_for_every_step_and_epoch(tmp_path):
    (row,) = run(tmp_path, "overhead", "--images", "128", "--", *SMALL, "--config.epochs=3")
    assert row["steps"] == 3 * 128 // 32 - 1
    assert 0 < row["share_outside_steps"] < 1
    assert len(row["memory_mib"]) == 3
    assert row["memory_last_against_second"] > 0.5


def test_startup_has_every_phase_and_compiles_when_cold(tmp_path):
    cold, warm = run(tmp_path, "startup", "--rounds", "1", "--", *SMALL)
    assert (cold["compile_cache"], warm["compile_cache"]) == ("cold", "warm")
    assert all(phase["seconds"] > 0 for row in (cold, warm) for phase in row["phases"].values())
    assert cold["phases"]["first step"]["compiled"] > warm["phases"]["first step"]["compiled"] > 0


def test_first_weights_come_before_a_plain_networks(tmp_path):
    (row,) = run(tmp_path, "first_weights", "--models=resnet18", "--rounds=1")
    assert row["cpu_seconds_ratio"]["plain linen"][0] > 1


def test_the_input_pipeline_delivers(tmp_path):
    options = ["--dataset=fashion_mnist_sample", "--store_size=28", "--size=24", "--rounds=2", "--turn=0.1"]
    rows = run(tmp_path, "input_pipeline", *options)
    delivered, cropped, *_ = [row["images_per_second_and_core"] for row in rows]
    assert delivered > cropped > 0


def test_muon_is_compared_with_optaxs(tmp_path):
    (row,) = run(tmp_path, "muon", "--models", "resnet20_cifar", "--rounds", "2")
    assert row["largest_difference"] < 1e-2
    assert min(row["ratio"]) > 0


def test_loading_takes_time_and_memory(tmp_path):
    (row,) = run(tmp_path, "load", "--models", "resnet18", "--rounds", "2")
    assert row["first_seconds"][0] > row["again_seconds"][0] > 0
    assert 1 < row["memory"][0] < 2


def test_activations_are_compared_with_relu(tmp_path):
    small = ["--models", "resnet18d", "--batch-size", "2", "--image-size", "32", "--rounds", "1"]
    (row,) = run(tmp_path, "activations", *small)
    assert set(row["ratios"]) == {"mish", "jax.nn.mish"}
    assert row["temp_bytes"]["relu"] < row["temp_bytes"]["mish"] < row["temp_bytes"]["jax.nn.mish"]


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("activations", "--models nosuch", "model='nosuch': no such model"),
        ("muon", "--models resnet18 nosuch", "model='nosuch': no such model"),
        ("input_pipeline", "--dataset nosuch", "dataset='nosuch': TFDS has no such dataset"),
        ("startup", "-- --config configs/nosuch.py", "--config=configs/nosuch.py: No such file"),
        ("overhead", "-- --config configs/nosuch.py", "--config=configs/nosuch.py: No such file"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(script, arguments, words):
    command = [sys.executable, "-m", f"benchmarks.speed.{script}", *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
