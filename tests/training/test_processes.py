"""Several processes that train together, on this machine's loopback: same numbers, one output, one stop."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from flax_resnets import load_classifier, storage
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.training.placement import own_rows
from flax_resnets.training.processes import join

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config=configs/quickstart.py",
    "--config.model=resnet10t",
    "--config.batch_size=120",
    "--config.eval_batch_size=100",
    "--config.model_options.width=4",
    "--config.image_size=14",
    "--config.epochs=3",
)


def start(
    workdir: Path, processes: int, devices: int, *arguments: str, data_dirs: Sequence[Path] = ()
) -> list[subprocess.Popen]:
    """Starts the processes, each with this number of simulated devices, and with its entry of `data_dirs` if any."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    started = []
    for number in range(processes):
        place = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}", f"--process_id={number}"]
        command = [sys.executable, "-W", "error", "train.py", *SMALL, f"--workdir={workdir}", *arguments]
        command += [f"--config.data_dir={directory}" for directory in data_dirs[number : number + 1]]
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
    """The output of each process. All must end with exit code 0."""
    said = [process.communicate(timeout=280) for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return [out for out, _ in said]


# A device's line about its peers. Threads of several devices write at the same time, so their pieces may alternate.
GLOO = re.compile(
    r"\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of connected peer ranks is : |\n"
)


def said_nothing(out: str) -> bool:
    """Whether a process printed nothing but gloo's own lines."""
    return GLOO.sub("", out) == ""


def wait_for_a_checkpoint(workdir: Path) -> None:
    deadline = time.monotonic() + 200
    steps = workdir / "checkpoints"
    # In a bucket a checkpoint has its final name from the beginning, and this file at the end.
    last = "commit_success.txt" if storage.is_bucket(workdir) else "proof"
    while not any(name.isdecimal() and storage.exists(steps / name / last) for name in storage.names(steps) or ()):
        assert time.monotonic() < deadline, "no checkpoint in 200 seconds"
        time.sleep(0.1)


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in storage.content(workdir / "metrics.jsonl").decode().splitlines()]


def assert_ended_as(alone: Path, workdir: Path) -> None:
    """Checks that the runs have the same length and the same first epoch. Later epochs differ by rounding."""
    (expected, *_), (row, *_, done) = rows(alone), rows(workdir)
    assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-3)  # rounding of 50 steps
    assert row["valid_loss"] == pytest.approx(expected["valid_loss"], rel=1e-2)
    assert row["step"] == expected["step"]
    assert len(rows(workdir)) == len(rows(alone))
    assert len(done["state_digest"]) == 64


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(workdir, 1, 1))
    return workdir


def test_two_processes_that_stream_stop_together_and_one_goes_on_to_the_same_end(alone, tmp_path):
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 2, "--config.save_every=10", "--config.images=streamed")
    wait_for_a_checkpoint(workdir)
    processes[1].send_signal(signal.SIGHUP)  # the process sends itself SIGTERM, which JAX shares
    first, second = finish(processes)
    assert re.search(r"stopped by SIGTERM; to go on: \S*python\S* train\.py", first)
    assert said_nothing(second), second  # only the first process prints
    # JAX's runtime checks for signals once a second. A fast machine takes some steps in this time.
    assert len(rows(workdir)) < 3

    (out,) = finish(start(workdir, 1, 1, "--config.save_every=10"))
    assert "going on from step" in out
    assert_ended_as(alone, workdir)


def test_processes_that_see_other_data_than_each_other_are_refused(tmp_path):
    directories = []
    for number, classes in enumerate(("Dress", "Gown")):
        directories.append(tmp_path / str(number))
        copy = directories[-1] / "my_images" / "1.0.0"
        copy.mkdir(parents=True)
        for path in open_source("fashion_mnist_sample", "train").directory.iterdir():
            content = path.read_bytes()
            if path.suffix in (".json", ".txt"):
                content = content.replace(b"fashion_mnist_sample", b"my_images").replace(b"Dress", classes.encode())
            (copy / path.name.replace("fashion_mnist_sample", "my_images")).write_bytes(content)
    started = start(tmp_path / "run", 2, 1, "--config.dataset=my_images", data_dirs=directories)
    for process in started:
        _, err = process.communicate(timeout=280)
        assert process.returncode == 2, err
        assert "must hold the same images for all processes; process 0 differs from process 1" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_figures_of_several_classes_are_of_all_images_of_all_processes(tmp_path):
    """What two processes of two devices computed together is what one device computes of the same weights."""
    random = np.random.default_rng(0)
    lines = ["path,label,split"]
    for number in range(350):
        bright = random.integers(0, 2, 3)
        pixels = random.integers(0, 200, (14, 14, 3)) + 50 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        names = " ".join(name for name, there in zip("rgb", bright, strict=True) if there)
        lines.append(f"{number}.png,{names},{'train' if number < 240 else 'val'}")
    (tmp_path / "images.csv").write_text("\n".join(lines))
    fields = {"dataset": "folder", "data_dir": tmp_path, "label_separator": " ", "loss": "bce"}
    fields |= {"mean": "none", "std": "none", "eval_batch_size": 32}  # the last of 110 images are padded
    options = [f"--config.{name}={value}" for name, value in fields.items()]
    finish(start(tmp_path / "run", 2, 2, *options))
    *epochs, done = rows(tmp_path / "run")
    best = epochs[done["best_epoch"] - 1]
    assert 0.5 < best["mean_average_precision"] < 1
    evaluation = load_classifier(tmp_path / "run").evaluate()
    assert evaluation.images == 110
    assert evaluation.mean_average_precision == pytest.approx(best["mean_average_precision"], abs=2e-3)
    assert evaluation.f1 == pytest.approx(best["f1"], abs=1e-2)
    assert evaluation.loss == pytest.approx(best["valid_loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 4)])
def test_saved_by_so_many_processes_it_goes_on_with_others(alone, tmp_path, before, after):
    workdir = tmp_path / "run"
    processes = start(workdir, before, 1, "--config.save_every=10")
    wait_for_a_checkpoint(workdir)
    processes[-1].send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in finish(processes)[0]
    said = finish(start(workdir, after, 1, "--config.save_every=10"))
    assert "going on from step" in said[0]
    assert all(map(said_nothing, said[1:])), said
    assert_ended_as(alone, workdir)


@pytest.mark.slow
def test_in_a_bucket_two_processes_stop_together_and_four_go_on(alone, emulator):
    workdir = storage.bucket_path("gs://bucket/processes/run", "workdir")
    processes = start(workdir, 2, 1, "--config.save_every=10")
    wait_for_a_checkpoint(workdir)
    processes[1].send_signal(signal.SIGTERM)
    first, second = finish(processes)
    assert "stopped by SIGTERM; to go on: " in first
    assert said_nothing(second), second
    said = finish(start(workdir, 4, 1, "--config.save_every=10"))
    assert "going on from step" in said[0]
    assert all(map(said_nothing, said[1:])), said
    assert_ended_as(alone, workdir)


@pytest.mark.slow
def test_two_processes_lose_patience_together(tmp_path):
    arguments = "--config.patience=1", "--config.epochs=9", "--config.learning_rate=1e-9"
    said, other = finish(start(tmp_path / "run", 2, 1, *arguments))
    assert said_nothing(other), other
    *epochs, done = rows(tmp_path / "run")
    assert len(epochs) == done["best_epoch"] + 1 < 9
    assert done["ended_by"] == "patience"
    assert f"ended after epoch {len(epochs)} by patience" in said
    assert "already done, ended after" in finish(start(tmp_path / "run", 2, 1, *arguments))[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_when_a_process_dies_the_others_end_and_the_same_command_goes_on(alone, tmp_path, number):
    workdir = tmp_path / "run"
    processes = start(workdir, 2, 1, "--config.save_every=10")
    wait_for_a_checkpoint(workdir)
    processes[number].kill()
    died = time.monotonic()
    processes[number].communicate()
    other = processes[1 - number]
    _, said = other.communicate(timeout=120)
    assert time.monotonic() - died < 120
    assert other.returncode != 0
    # JAX's message names a dead process by its number. About the coordinator it says that it does not answer.
    named = r"(unhealthy.*|timed out task names):\n1\n"
    assert re.search(named if number == 1 else "Failed to send RPC to coordination service", said), said

    first, _ = finish(start(workdir, 2, 1, "--config.save_every=10"))
    assert "going on from step" in first
    assert rows(workdir)[0]["valid_loss"] == pytest.approx(rows(alone)[0]["valid_loss"], rel=1e-2)


@pytest.mark.slow
def test_when_one_process_comes_to_a_broken_image_it_names_it_and_all_end(tmp_path, damaged_data_dir):
    data = "--config.dataset=my_images", f"--config.data_dir={damaged_data_dir}", "--config.images=streamed"
    processes = start(tmp_path / "run", 2, 1, *data)
    begun = time.monotonic()
    said = [process.communicate(timeout=400)[1] for process in processes]
    assert time.monotonic() - begun < 180  # starting and reaching the image takes a minute at most
    assert all(process.returncode != 0 for process in processes)
    assert any("train.py: dataset 'my_images', split 'train', image " in err for err in said), said


@pytest.mark.slow
def test_losses_of_one_two_and_four_processes_agree(tmp_path):
    """The losses of the quickstart's first fifty steps agree to 1e-5."""
    curves = {}
    for processes, devices in ((1, 1), (1, 4), (2, 2), (4, 1)):
        workdir = tmp_path / f"{processes}x{devices}"
        quickstart = ["--config.model=resnet18", "--config.model_options.width=8"]
        quickstart += ["--config.batch_size=64", "--config.image_size=28"]
        whole = ["--config.epochs=10", "--config.log_every=1", "--config.save_every=52"]
        running = start(workdir, processes, devices, *quickstart, *whole)
        wait_for_a_checkpoint(workdir)
        running[0].send_signal(signal.SIGTERM)
        finish(running)
        curves[processes, devices] = [losses_by_step(workdir)[step] for step in range(1, 51)]
    for curve in curves.values():
        np.testing.assert_allclose(curve, curves[1, 1], rtol=1e-5)


def losses_by_step(workdir: Path) -> dict[int, float]:
    """Reads TensorBoard's files. A record is a length, its checksum, an event, and its checksum."""
    losses = {}
    for path in (workdir / "tensorboard").glob("events*"):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            for value in event.summary.value:
                if value.tag == "step/loss":
                    losses[event.step] = value.simple_value
            place += 16 + length
    return losses


def test_one_process_has_all_rows():
    mesh = jax.make_mesh((1,), ("data",), (AxisType.Auto,))
    np.testing.assert_array_equal(own_rows(mesh, 6), np.arange(6))


@pytest.mark.parametrize(
    ("host", "message"), [("192.0.2.1", "Cannot assign requested address"), ("no.such.host.invalid", "known")]
)
def test_process_0_must_be_able_to_listen(host, message):
    with pytest.raises(UserError, match=f"--coordinator={host}:1234: process 0 cannot listen there: .*{message}"):
        join(f"{host}:1234", 2, 0)


def test_process_0_needs_a_port_of_its_own():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--coordinator={address}: .* Address already in use"):
            join(address, 2, 0)
