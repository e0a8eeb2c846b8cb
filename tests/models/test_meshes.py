"""Networks on meshes with Explicit or Auto axes. Simulated devices need their own process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.parity import meshes

ROOT = Path(__file__).parents[2]


def test_networks_are_placed_on_explicit_axes_and_give_what_they_give_without_a_mesh():
    """If JAX cannot infer the sharding of a result, it raises an error while it traces the program."""
    assert_near(compared("--trace", "--meshes", "Explicit:8", "--only", "ghost:4", "dropout"), 2)


@pytest.mark.slow
def test_every_network_gives_on_every_mesh_what_it_gives_without():
    assert_near(compared("--only", *meshes.CASES), len(meshes.CASES) * len(meshes.MESHES))


def assert_near(rows: list[dict], count: int) -> None:
    differences = {(row["network"], row["mesh"]): max(row[kind] for kind in meshes.KINDS) for row in rows}
    assert len(differences) == count
    assert {key: value for key, value in differences.items() if not value < 1e-4} == {}


def compared(*arguments: str) -> list[dict]:
    command = [sys.executable, "-W", "error", "-m", "benchmarks.parity.meshes", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return [row for line in result.stdout.splitlines() if "network" in (row := json.loads(line))]
