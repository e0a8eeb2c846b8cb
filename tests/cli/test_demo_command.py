"""The command `demo`: what it prints, how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_resnets import Classifier, cli, create_model
from flax_resnets.inference.demo import DemoServer
from flax_resnets.inference.preprocess import Settings

PAGE = Path(__file__).parents[2] / "docs" / "explain.md"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    settings = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.4,))
    model = create_model("lenet", num_classes=2)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    folder = tmp_path_factory.mktemp("saved") / "lenet"
    Classifier(model, variables, settings, ["cat", "dog"]).save(folder)
    return str(folder)


def test_ctrl_c_ends_it_well(saved, monkeypatch, capsys):
    def interrupted(server):
        raise KeyboardInterrupt

    monkeypatch.setattr(DemoServer, "serve_forever", interrupted)
    assert cli.main(["demo", saved, "--port", "0"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "compiling the network"
    assert out[1].startswith(f"{saved}: http://127.0.0.1:")


def test_a_port_in_use_is_one_line(saved, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["demo", saved, "--port", str(port)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"flax_resnets: demo: --port={port}: Address already in use; name another port")
    assert error.count("\n") == 1


@pytest.mark.parametrize("port", ["x", "-1", "70000"])
def test_a_port_that_is_none(saved, capsys, port):
    assert cli.main(["demo", saved, f"--port={port}"]) == 2
    error = capsys.readouterr().err
    assert error == f"flax_resnets: demo: --port={port}: must be a whole number from 0 to 65535\n"


def test_the_commands_of_its_page_parse():
    lines = re.findall(r"^flax-resnets (demo .+)", PAGE.read_text(), flags=re.MULTILINE)
    assert [cli.parse(line.split()).port for line in lines] == [7860]


@pytest.mark.slow
def test_the_process_serves_until_ctrl_c(saved):
    command = [sys.executable, "-m", "flax_resnets", "demo", saved, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        address = process.stdout.readline().partition(": ")[2].partition(" ")[0]
        with urllib.request.urlopen(address, timeout=60) as page:
            assert b"Drop a picture here" in page.read()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out.strip(), error) == (0, "", "")
