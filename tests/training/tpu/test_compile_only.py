"""The step compiled for TPUs that are not attached; needs libtpu where noted."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.recipes import load_config
from flax_resnets.training.tpu.chips import CHIPS
from flax_resnets.training.tpu.compile_only import compile_only, in_words

ROOT = Path(__file__).parents[3]

ON_EIGHT_DEVICES = """
import json
import jax
import jax.numpy as jnp
from flax_resnets.training.tpu.compile_only import figures
from flax_resnets.training.placement import batch_sharding, make_mesh, replicated

jax.config.update("jax_num_cpu_devices", 8)
mesh = make_mesh()
step = jax.jit(
    lambda w, x: w - 0.1 * jax.grad(lambda w: jnp.square(x @ w).sum())(w),
    in_shardings=(replicated(mesh), batch_sharding(mesh)),
    out_shardings=replicated(mesh),
    donate_argnums=0,
)
compiled = step.lower(jax.ShapeDtypeStruct((64, 32), "float32"), jax.ShapeDtypeStruct((1024, 64), "float32")).compile()
print(json.dumps(figures(compiled)))
"""


def test_figures_are_those_of_one_device():
    output = subprocess.run([sys.executable, "-W", "error", "-c", ON_EIGHT_DEVICES], cwd=ROOT, capture_output=True)
    assert output.returncode == 0, output.stderr.decode()
    result = json.loads(output.stdout)
    weight, share = 4 * 64 * 32, 4 * 64 * 1024 // 8
    assert result["argument_bytes"] == weight + share
    # One matrix product forward and one backward; the rest is elementwise, on far smaller arrays.
    products = 2 * 2 * (1024 // 8) * 64 * 32
    assert products <= result["flops"] < 1.1 * products
    assert result["bytes_accessed"] > share
    assert result["memory_bytes"] >= result["argument_bytes"] + result["temp_bytes"]
    assert result["memory_bytes"] < 2 * weight + share + result["temp_bytes"] + 2**20  # the weight is donated
    assert result["all_reduces"] == 1


@pytest.fixture
def quickstart():
    return load_config(ROOT / "configs" / "quickstart.py", {"batch_size": "64"})


def test_without_libtpu_it_says_what_to_install(monkeypatch, quickstart):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delenv("TPU_LIBRARY_PATH", raising=False)
    with pytest.raises(UserError, match=r'needs libtpu, the TPU compiler; .*pip install -e ".\[train,tpu\]"'):
        compile_only(quickstart, "v5e:2x2")


def test_a_batch_that_the_chips_do_not_divide(quickstart):
    with pytest.raises(UserError, match="batch_size=66: must be a multiple of the 4 devices"):
        compile_only(dataclasses.replace(quickstart, batch_size=66), "v5e:2x2")


def test_what_people_are_told():
    known = {"topology": "v5e:2x2", "batch_size": 64, "chip_memory_bytes": CHIPS["v5e"].memory_bytes}
    estimate = {"compute_seconds": 0.01, "memory_seconds": 0.02, "step_seconds": 0.02, "bound": "memory"}
    assert in_words({**known, "memory_bytes": 2**30, "fits": True, "estimate": estimate}) == (
        "fits, needs 1.00 of the 15.75 GiB that a v5e has for it; at its published rates a step would take 20.0 ms, "
        "bound by memory (an estimate)"
    )
    assert in_words({**known, "memory_bytes": 2**35, "fits": False}) == (
        "batch_size=64: does not fit, needs 32.00 of the 15.75 GiB that a v5e has for it; lower it, or take more chips"
    )


# The tests below need libtpu and a separate process: libtpu stays loaded, and JAX is told to leave accelerators alone.


def compile_small(tmp_path: Path, *arguments: str, recipe: str = "rn50_imagenet") -> subprocess.CompletedProcess:
    """A network that compiles in seconds, in a home directory without data."""
    pytest.importorskip("libtpu")
    command = [
        *(sys.executable, "-W", "error", str(ROOT / "train.py")),
        *("--config", str(ROOT / "configs" / f"{recipe}.py"), "--compile_only"),
        *("--config.model=resnet20_cifar", "--config.model_options.width=4", "--config.image_size=16"),
        *("--config.store_size=20", "--config.batch_size=64", *arguments),
    ]
    environment = {**os.environ, "HOME": str(tmp_path), "FLAX_RESNETS_CACHE": str(tmp_path / "cache")}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("topology", ["v5e:4x4", "v6e:8x8", "v4:2x2x1", "v5p:2x2x1"])
def test_one_line_of_json_and_nothing_left_behind(tmp_path, topology):
    result = compile_small(tmp_path, "--topology", topology)
    assert result.returncode == 0, result.stderr
    row = json.loads(result.stdout)
    shape = topology.partition(":")[2]
    assert row["devices"] == eval(shape.replace("x", "*"))
    contract = {"flops", "bytes_accessed", "temp_bytes", "argument_bytes", "all_reduces", "devices", "compile_seconds"}
    assert contract <= row.keys()
    assert all(row[name] > 0 for name in contract)
    images_here = 64 // row["devices"] * 20 * 20 * 3
    assert row["argument_bytes"] > images_here
    assert row["fits"] is True
    assert result.stderr.count("\n") == 1, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_long_recipe_compiles_at_the_size_it_trains_at(tmp_path):
    sizes = "--config.progressive=(600,8),", "--config.image_size=64", "--config.store_size=10"
    result = compile_small(tmp_path, "--topology=v5e:2x2", *sizes, recipe="rn50_imagenet_long")
    assert result.returncode == 0, result.stderr
    assert 0 < json.loads(result.stdout)["flops"] < 1e8  # 2e7; 64 px would take 1.2e9


def test_per_device_batch_norm_meets_once(tmp_path):
    result = compile_small(tmp_path, "--topology=v5e:2x2", "--config.batch_norm=device")
    assert json.loads(result.stdout)["all_reduces"] <= 4


def test_a_step_that_does_not_fit(tmp_path):
    result = compile_small(tmp_path, "--topology=v5e:2x2", f"--config.batch_size={2**23}")
    assert result.returncode == 2
    row = json.loads(result.stdout)
    assert row["fits"] is False
    assert row["memory_bytes"] > row["chip_memory_bytes"]
    assert row["flops"] is None
    assert result.stderr.startswith(f"train.py: batch_size={2**23}: does not fit, needs ")
    assert result.stderr.count("\n") == 1


def test_libtpu_has_every_slice():
    pytest.importorskip("libtpu")
    script = """
from flax_resnets.training.tpu.compile_only import topology_mesh
from flax_resnets.training.tpu.chips import CHIPS, parse_topology

for generation, chip in CHIPS.items():
    for shape in chip.slices:
        topology = parse_topology(f"{generation}:{shape}")
        assert topology_mesh(topology).devices.shape == (topology.devices,), topology
assert topology_mesh(parse_topology("v6e:16x16"), num_slices=4).devices.shape == (1024,)
"""
    result = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
