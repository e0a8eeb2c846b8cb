"""The README's Python runs, and the files and flags it names exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import flax_resnets.cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_python_runs_from_top_to_bottom():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    program = "".join([*blocks, "print(logits.shape, folded.apply(folded_variables, images).shape)"])
    # In a process of its own, as a user runs it.
    command = [sys.executable, "-W", "error", "-c", program]
    environment = {**os.environ, "FLAX_RESNETS_FAST_CPU": "1"}  # one start is enough here
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=280)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(2, 10) (2, 10)"


COMMANDS = re.findall(r"^flax-resnets (.+)", README, flags=re.MULTILINE)
TRAINING = [line.removeprefix("train ") for line in COMMANDS if line.startswith("train ")]


@pytest.mark.parametrize("line", [*TRAINING, *re.findall(r"python train\.py (.+)", README)])
def test_its_training_commands_parse(line, monkeypatch):
    from flax_resnets.training.recipes import load_config

    monkeypatch.chdir(ROOT)
    parsed = flax_resnets.cli.parse(["train", *line.split()])
    load_config(parsed.config, parsed.overrides)


PRINTED = {
    "models": "resnet50d",
    "summary": "4.09 G multiply-adds",
    "show-batch": "show_batch.png",
    "lr-find": "valley",
}


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith("train ")])
def test_its_other_commands_run(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # commands write their files into the current directory
    command, *arguments = shlex.split(line)
    assert flax_resnets.cli.main([command, *arguments]) == 0
    assert PRINTED[command] in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?<!/)(?:flax_resnets|configs|docs)/[\w/.-]+", README))))
def test_the_files_it_names_exist(path):
    assert (ROOT / path).exists()
