"""What `speed_up_cpu` puts in force, each time in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnets import speed

ROOT = Path(__file__).parents[1]

try:
    HUGE_PAGES_HERE = "[never]" not in speed._HUGE_PAGES.read_text()
except OSError:
    HUGE_PAGES_HERE = False

# Counts how often the program started, then says what is in force: of memory by the pages that a large block takes, of
# kernels by whether a convolution's gradient is left to YNNPACK.
REPORT = """
import json, os, resource
def report(result):
    import jax, jax.numpy as jnp
    def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    before, large = faults(), bytearray(b'x') * 2**27
    faulted = faults() - before
    def summed(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")).sum()
    program = jax.jit(jax.grad(summed, 1)).lower(jnp.ones((8, 16, 16, 32)), jnp.ones((3, 3, 32, 32))).compile()
    print(json.dumps([list(result), faulted, "ynn_fusion" in program.as_text(), os.getpid()]))
"""
STARTED = "import os; print(os.getpid(), flush=True)\n"
CALL = "import flax_resnets; result = flax_resnets.speed_up_cpu(); import report; report.report(result)\n"


def run(tmp_path: Path, program: str, *command: str, stdin: str | None = None, **environment: str):
    """Runs a file with that program; the process that each of its starts was, and its last report."""
    (tmp_path / "report.py").write_text(REPORT)
    (tmp_path / "program.py").write_text(program)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GLIBC", "MALLOC", "XLA_FLAGS", "JAX_PLATFORMS"))
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", *(command or ("program.py",))],
        cwd=tmp_path,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *starts, last = done.stdout.splitlines()
    (kernels, huge_pages), faults, ynn, process = json.loads(last)
    return [int(start) for start in starts], process, kernels, huge_pages, faults, ynn


@pytest.mark.skipif(not HUGE_PAGES_HERE, reason="the system has no huge pages to give")
def test_a_program_is_started_over_once_with_both_in_force(tmp_path):
    starts, process, kernels, huge_pages, faults, ynn = run(tmp_path, STARTED + CALL)
    assert starts == [process] * 2
    assert (kernels, huge_pages, ynn) == (True, True, False)
    assert faults < 2**27 // 2**12 / 10


def test_a_program_from_a_pipe_is_not_started_over(tmp_path):
    starts, process, kernels, huge_pages, _, ynn = run(tmp_path, "", "-", stdin=STARTED + CALL)
    assert starts == [process]
    assert (kernels, huge_pages, ynn) == (True, False, False)


@pytest.mark.parametrize("how", ["by a library", "in a thread"])
def test_a_program_is_not_started_over(tmp_path, how):
    call = {
        "by a library": "import flax_resnets\ndef call(): return flax_resnets.speed_up_cpu()\n",
        "in a thread": "import flax_resnets\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def call(): return ThreadPoolExecutor(1).submit(flax_resnets.speed_up_cpu).result()\n",
    }[how]
    (tmp_path / "library.py").write_text(call)
    program = STARTED + "import library, report; report.report(library.call())\n"
    starts, process, kernels, huge_pages, _, ynn = run(tmp_path, program)
    assert starts == [process]
    assert (kernels, huge_pages, ynn) == (True, False, False)


def test_where_jax_has_computed_already_nothing_changes(tmp_path):
    program = STARTED + "import jax; jax.devices()\n" + CALL
    starts, process, kernels, huge_pages, _, _ = run(tmp_path, program)
    assert starts == [process]
    assert (kernels, huge_pages) == (False, False)


def test_what_the_environment_says_stays(tmp_path):
    environment = {
        "XLA_FLAGS": "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT",
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
    }
    starts, process, kernels, huge_pages, _, _ = run(tmp_path, STARTED + CALL, **environment)
    assert starts == [process]
    assert (kernels, huge_pages) == (False, False)


def test_for_a_gpu_nothing_is_done(monkeypatch):
    monkeypatch.setattr(speed, "_jax_has_started", lambda: False)
    monkeypatch.setattr(speed, "_can_start_over", lambda caller: True)
    monkeypatch.setattr(speed, "start_with_huge_pages", lambda: pytest.fail("started over"))
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    speed.speed_up_cpu()
    assert os.environ["XLA_FLAGS"] == ""


def test_a_flag_that_xla_does_not_know_is_left_out(monkeypatch):
    """Given to XLA, it would end the process."""
    monkeypatch.setenv("XLA_FLAGS", "")
    assert speed._xla_takes(" ".join(speed._FLAGS))
    assert not speed._xla_takes("--xla_cpu_no_such_flag=1")
    monkeypatch.setattr(speed, "_jax_has_started", lambda: False)
    monkeypatch.setattr(speed, "KERNELS", {"xla_cpu_no_such_flag": "1"})
    monkeypatch.setattr(speed, "_FLAGS", ("--xla_cpu_no_such_flag=1",))
    assert not speed.speed_up_cpu().kernels
    assert os.environ["XLA_FLAGS"] == ""
