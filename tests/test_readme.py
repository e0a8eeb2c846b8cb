"""The README's Python runs, and the files and flags it names exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import flax_resnets.cli
import train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_python_runs_from_top_to_bottom():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    program = "".join([*blocks, "print(logits.shape, variables['params']['head']['kernel'].shape)"])
    # In a process of its own, for it sets what holds for all that a process compiles.
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(2, 10) (512, 10)"


@pytest.mark.parametrize("line", re.findall(r"python train\.py (.+)", README))
def test_its_training_commands_parse(line, monkeypatch):
    from flax_resnets.training.config import load_config

    monkeypatch.chdir(ROOT)
    config_path, _, overrides = train.parse(line.split())
    load_config(config_path, overrides)


PRINTED = {
    "models": "resnet50d",
    "summary": "4.09 G multiply-adds",
    "show-batch": "show_batch.png",
    "lr-find": "valley",
}


@pytest.mark.parametrize("line", re.findall(r"python -m flax_resnets (.+)", README))
def test_its_other_commands_run(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # what a command writes, it writes where it is called
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    command, *arguments = shlex.split(line)
    assert flax_resnets.cli.main([command, *arguments]) == 0
    assert PRINTED[command] in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?<!/)(?:flax_resnets|configs|docs)/[\w/.-]+", README))))
def test_the_files_it_names_exist(path):
    assert (ROOT / path).exists()
