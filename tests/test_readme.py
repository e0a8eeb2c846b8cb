"""The README's Python runs, and the files and flags it names exist."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import flax_resnets.cli
from flax_resnets.data.source import open_source
from flax_resnets.inference.preprocess import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.fixture
def quickstart(tmp_path, monkeypatch) -> Path:
    """A working directory with an image and, in place of the quickstart's run, a network that was not trained."""
    settings = Settings(
        model="lenet", dataset="fashion_mnist_sample", image_size=28, channels=1, mean=(0.286,), std=(0.353,)
    )
    model = flax_resnets.create_model("lenet", num_classes=10)
    variables = model.init(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    names = open_source("fashion_mnist_sample", "validation").class_names
    flax_resnets.Classifier(model, variables, settings, names).save(tmp_path / "runs/quickstart")
    Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "shoe.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("processes_compile_quickly")
def test_its_python_runs_from_top_to_bottom(quickstart):
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    program = "".join([*blocks, "print(folded.apply(folded_variables, images).shape, features.shape)"])
    # In a process of its own, as a user runs it.
    command = [sys.executable, "-W", "error", "-c", program]
    environment = {**os.environ, "FLAX_RESNETS_FAST_CPU": "1", "PYTHONPATH": str(ROOT)}  # one start is enough here
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=quickstart, timeout=280)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(2, 10) (1, 84)"
    assert sorted(os.listdir(quickstart / "sneakers")) == ["config.json", "model.safetensors"]


COMMANDS = re.findall(r"^flax-resnets (.+)", README, flags=re.MULTILINE)
TRAINING = [line.removeprefix("train ") for line in COMMANDS if line.startswith("train ")]


@pytest.mark.parametrize("line", [*TRAINING, *re.findall(r"python train\.py (.+)", README)])
def test_its_training_commands_parse(line, monkeypatch):
    from flax_resnets.training.recipes import load_config

    monkeypatch.chdir(ROOT)
    parsed = flax_resnets.cli.parse(["train", *line.split()])
    load_config(parsed.config, parsed.overrides)


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("sweep ")])
def test_its_sweeps_are_understood(line):
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.sweep import axis, points

    parsed = flax_resnets.cli.parse(line.split())
    assert points(load_config(parsed.config, parsed.overrides), [axis(text) for text in parsed.over])


PRINTED = {
    "models": "resnet50d",
    "predict": "shoe.png",
    "evaluate": "confusion.png",
    "summary": "4.09 G multiply-adds",
    "show-batch": "show_batch.png",
    "lr-find": "valley",
    "data": "classes.png",
}


@pytest.mark.parametrize("line", [line for line in COMMANDS if not line.startswith(("train ", "sweep "))])
def test_its_other_commands_run(line, capsys, quickstart):
    command, *arguments = shlex.split(line)
    assert flax_resnets.cli.main([command, *arguments]) == 0
    assert PRINTED[command] in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?<!/)(?:flax_resnets|configs|docs)/[\w/.-]+", README))))
def test_the_files_it_names_exist(path):
    assert (ROOT / path).exists()
