"""`fast_cpu` sets for any program what the trainer sets for itself on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnets import cpu

PROGRAM = """
import json, os, sys
with open("starts", "a") as file:
    print(os.getpid(), file=file)
import flax_resnets

flax_resnets.fast_cpu()
import jax, jax.numpy as jnp

assert jax.jit(lambda x: (x @ x).sum())(jnp.ones((8, 8))) == 512  # XLA has read its flags
print(json.dumps({name: os.environ.get(name) for name in ("GLIBC_TUNABLES", "XLA_FLAGS")} | {"argv": sys.argv[1:]}))
"""
FLAG = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE"
huge_pages_here = cpu._PAGES.exists() and "[never]" not in cpu._PAGES.read_text()
no_accelerator_here = pytest.mark.skipif(
    any(list(Path("/").glob(pattern[1:])) for pattern in cpu._ACCELERATORS), reason="there is an accelerator"
)


def run(tmp_path: Path, *command: str, **environment: str) -> tuple[dict, list[str]]:
    """The variables that the program finds in its environment, and the process id of each of its starts."""
    (tmp_path / "program.py").write_text(PROGRAM)
    ours = ("GLIBC", "MALLOC", "XLA", "FLAX_RESNETS_FAST")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-W", "error", *(command or ("program.py", "an argument"))],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(done.stdout), (tmp_path / "starts").read_text().split()


@no_accelerator_here
@pytest.mark.skipif(not huge_pages_here, reason="the system has no huge pages to give")
def test_a_program_is_started_over_once_with_both(tmp_path):
    found, (first, second) = run(tmp_path)
    assert found == {"GLIBC_TUNABLES": cpu.MALLOC, "XLA_FLAGS": FLAG, "argv": ["an argument"]}
    assert first == second  # one process


@no_accelerator_here
def test_what_the_user_has_set_stays(tmp_path):
    found, starts = run(tmp_path, MALLOC_ARENA_MAX="2", XLA_FLAGS=FLAG.replace("REDUCE", "DOT"))
    assert len(starts) == 1
    assert found["GLIBC_TUNABLES"] is None
    assert found["XLA_FLAGS"] == FLAG.replace("REDUCE", "DOT")
    (tmp_path / "starts").unlink()
    found, _ = run(tmp_path, MALLOC_ARENA_MAX="2", XLA_FLAGS="--xla_cpu_use_onednn=false")
    assert found["XLA_FLAGS"] == f"--xla_cpu_use_onednn=false {FLAG}"


@no_accelerator_here
def test_under_another_program_it_is_not_started_over(tmp_path):
    found, starts = run(tmp_path, "-c", "import runpy; runpy.run_path('program.py', run_name='__main__')")
    assert len(starts) == 1
    assert (found["GLIBC_TUNABLES"], found["XLA_FLAGS"]) == (None, FLAG)


def test_xla_knows_its_options_and_no_others():
    assert cpu._xla_knows(cpu.XLA_OPTIONS)
    assert not cpu._xla_knows({"xla_cpu_no_such_option": "1"})


def test_with_an_accelerator_it_does_nothing(tmp_path, monkeypatch):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(cpu, "_ACCELERATORS", (f"{tmp_path}/nvidia[0-9]*",))
    before = dict(os.environ)
    cpu.fast_cpu()
    assert dict(os.environ) == before
