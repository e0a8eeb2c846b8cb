"""A run that trains in seconds, and the images of its validation split as files."""

from pathlib import Path

import pytest

from flax_resnets.data.source import Source, open_source
from flax_resnets.training import load_config, run
from flax_resnets.training.config import Config


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A finished run: LeNet with norms, three epochs of four steps, an average of the weights, a test-time flip."""
    config = Config(
        model="lenet_bn",
        dataset="fashion_mnist_sample",
        train_split="train[:1500]",
        store_size=28,
        crop_pct=6 / 7,  # 24 pixels, as far from the left as from the right
        image_size=16,
        mean=(0.286,),
        std=(0.353,),
        batch_size=375,
        eval_batch_size=250,
        epochs=3,
        learning_rate=1e-2,
        ema_decay=0.9,
        eval_flip=True,
    )
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    run(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def config(trained) -> Config:
    return load_config(trained / "config.json")


@pytest.fixture(scope="session")
def validation() -> Source:
    return open_source("fashion_mnist_sample", "validation")


@pytest.fixture(scope="session")
def files(validation, tmp_path_factory) -> list[Path]:
    """All images of the validation split as files, byte for byte, in their order."""
    directory = tmp_path_factory.mktemp("images")
    paths = [directory / f"{index:04}.png" for index in range(len(validation))]
    for index, path in enumerate(paths):
        path.write_bytes(validation.encoded(index))
    return paths
