"""A small recipe for commands that take one: LeNet on the bundled sample."""

from pathlib import Path

import pytest

RECIPE = """
from flax_resnets.training.config import Config

def get_config():
    return Config(
        model="lenet", dataset="fashion_mnist_sample", image_size=28, mean=(0.286,), std=(0.353,),
        batch_size=64, epochs=2, learning_rate=1e-3,
    )
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch) -> str:
    """The recipe's path, relative to the working directory, which holds nothing else."""
    monkeypatch.chdir(tmp_path)
    Path("small.py").write_text(RECIPE)
    return "small.py"
