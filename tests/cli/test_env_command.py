"""flax-resnets env, as a user types it for a report of a bug."""

import json
import platform
import subprocess
import sys

import jax

from flax_resnets import __version__, cli


def test_it_prints_versions_devices_and_settings(capsys, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    assert cli.main(["env"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["flax_resnets"].strip() == __version__
    assert lines["jax"].strip() == jax.__version__
    assert "CPU device" in lines["devices"]
    assert lines["XLA_PYTHON_CLIENT_MEM_FRACTION"].strip() == "0.5"


def test_as_json_it_is_one_line(capsys):
    assert cli.main(["env", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    facts = json.loads(line)
    assert facts["python"].endswith(platform.python_version())
    assert facts["versions"]["flax"]
    assert isinstance(facts["environment"], dict)


def test_it_tells_why_jax_cannot_start(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such")
    command = [sys.executable, "-W", "error", "-m", "flax_resnets", "env", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["devices"].startswith("none: JAX_PLATFORMS=no_such: finds no such device here")
