"""libtpu on a machine without a TPU."""

import glob
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flax_resnets.training.tpu.libtpu import expect_no_tpu, has_tpu

ROOT = Path(__file__).parents[3]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setattr(os, "environ", {"TPU_LOG_DIR": "/somewhere"})
    expect_no_tpu()
    assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
    assert os.environ["TPU_LOG_DIR"] == "/somewhere"


@pytest.mark.parametrize("there", [[], ["/dev/accel0"], ["/dev/vfio/1"]])
def test_a_tpu_shows_itself_as_a_device_file(monkeypatch, there):
    monkeypatch.setattr(glob, "glob", lambda pattern: [path for path in there if path.startswith(pattern[:8])])
    assert has_tpu() == bool(there)


@pytest.mark.skipif(has_tpu(), reason="there is a TPU")
def test_the_cpu_is_found_without_a_word(tmp_path):
    pytest.importorskip("libtpu")
    script = (
        "from flax_resnets.training.tpu.libtpu import expect_no_tpu; expect_no_tpu(); import jax; print(jax.devices())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    command = [sys.executable, "-W", "error", "-c", script]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.stderr == ""
    assert "Cpu" in result.stdout
