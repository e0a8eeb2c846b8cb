"""machine.json: on which machines a run was made."""

import json
import platform

import jax
import pytest

from flax_resnets.training import machine_record
from flax_resnets.training.machine_record import record_machine


def test_it_names_the_machine_its_devices_and_the_libraries(tmp_path):
    record_machine(tmp_path, step=0)
    here = json.loads((tmp_path / "machine.json").read_text())
    assert here["python"] == platform.python_version()
    assert here["versions"]["jax"] == jax.__version__
    assert here["devices"].startswith("1 CPU device of ")
    assert "earlier" not in here


def test_a_run_that_moved_lists_where_it_was(tmp_path, monkeypatch):
    record_machine(tmp_path, step=0)
    for step, devices in ((30, "8 TPU v5 lite devices"), (40, "8 TPU v5 lite devices"), (70, "1 NVIDIA H100 device")):
        monkeypatch.setattr(machine_record, "devices_in_words", lambda devices=devices: devices)
        record_machine(tmp_path, step)
    here = json.loads((tmp_path / "machine.json").read_text())
    assert here["devices"] == "1 NVIDIA H100 device"
    assert [(each["devices"][:5], each["until"]) for each in here["earlier"]] == [("1 CPU", 30), ("8 TPU", 70)]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"earlier": 3}', "null", '{"cores": 1, "earlier": 3}'])
def test_a_damaged_one_does_not_stop_a_run(tmp_path, content):
    (tmp_path / "machine.json").write_text(content)
    record_machine(tmp_path, step=5)
    assert json.loads((tmp_path / "machine.json").read_text())["cores"] >= 1
