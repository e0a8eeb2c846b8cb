"""Several processes that train as one, on this machine's loopback: the same numbers, one voice, one stop."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from flax_resnets.training.placement import own_rows

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=configs/quickstart.py",
    "--config.batch_size=120",
    "--config.eval_batch_size=100",
    "--config.model_options.width=4",
    "--config.image_size=14",
    "--config.epochs=1",
)


def start(workdir: Path, processes: int, devices: int, *arguments: str) -> list[subprocess.Popen]:
    """Starts them, each with so many simulated devices."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    started = []
    for number in range(processes):
        place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={number}"]
        command = [sys.executable, "-W", "error", "train.py", *SMALL, f"--workdir={workdir}", *arguments]
        started.append(
            subprocess.Popen(
                [*command, *(place if processes > 1 else [])],
                cwd=ROOT,
                env={**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(started: list[subprocess.Popen]) -> list[str]:
    """What each said; all of them ended well."""
    said = [process.communicate(timeout=280) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    # What gloo says of itself is not ours.
    return [re.sub(r"^\[Gloo\].*\n", "", out, flags=re.MULTILINE) for out, _ in said]


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(workdir, 1, 1))
    return workdir


def test_two_processes_stop_together_and_one_goes_on_to_the_same_end(alone, tmp_path):
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 2, "--config.save_every=10")
    deadline = time.monotonic() + 200
    while not list(workdir.glob("checkpoints/*0")) and time.monotonic() < deadline:
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    first, second = finish(processes)
    assert "stopped by SIGTERM; to go on: python train.py" in first
    assert second == ""  # one process speaks for all
    assert not (workdir / "metrics.jsonl").read_text()

    (out,) = finish(start(workdir, 1, 1, "--config.save_every=10"))
    assert "going on from step" in out
    (expected, _), (row, done) = rows(alone), rows(workdir)
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)  # 50 steps of rounding apart
    assert row["valid_loss"] == pytest.approx(expected["valid_loss"], rel=1e-2)
    assert row["step"] == expected["step"]
    assert len(done["state_digest"]) == 64


def test_one_process_has_all_rows():
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,))
    np.testing.assert_array_equal(own_rows(mesh, 6), np.arange(6))
