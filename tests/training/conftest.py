"""A run that trains in a second: two stages, and 12-pixel noise whose brightness depends on the class."""

from collections.abc import Iterator

import numpy as np
import pytest

from flax_resnets import BasicBlock, ResNet
from flax_resnets.data.cache import CachedImages
from flax_resnets.training import curves, tensorboard
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.network import DTYPES
from flax_resnets.training.trainer import Trainer


@pytest.fixture(scope="session")
def data() -> CachedImages:
    """203 images of 4 classes, bright or dark, which can be learned in two epochs."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 203).astype(np.int32)
    images = random.integers(0, 60, (203, 12, 12, 1)) + 60 * labels[:, None, None, None]
    return CachedImages(images.astype(np.uint8), labels)


@pytest.fixture(scope="session")
def config() -> Config:
    """Three epochs of six steps."""
    return Config(
        model="two stages, see make_trainer",
        dataset="noise",
        image_size=12,
        mean=(0.5,),
        std=(0.25,),
        batch_size=32,
        epochs=3,
        learning_rate=1e-2,
        log_every=2,
    )


@pytest.fixture(scope="session")
def make_trainer(data):
    """Makes trainers of a network with two stages, which compiles in a third of the time of the smallest named one.

    The trainer of a configuration is made once and shared, because it keeps nothing of a run.
    """

    made: dict[str, Trainer] = {}

    def make(config: Config) -> Trainer:
        key = config.to_json()
        if key not in made:
            dtype = DTYPES[config.precision]
            model = ResNet((1, 1), BasicBlock, 4, 8, stem="small", dtype=dtype, batch_norm=config.batch_norm)
            made[key] = Trainer(config, data, data, 4, Display(), model)
        return made[key]

    return make


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(curves, "draw_curves", lambda *_: None)
    patch.setattr(tensorboard, "_first_images", lambda run: np.zeros((1, 1, 1), np.uint8))
    patch.setattr(tensorboard, "_matrix", lambda run, counts: np.zeros((1, 1, 3), np.uint8))


@pytest.fixture
def no_pictures(monkeypatch) -> None:
    """A run does not draw its curves, first images and confusion matrix, which takes longer than to train it."""
    draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def no_pictures_in_module() -> Iterator[None]:
    """The same for all runs of a module, also those of its fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield
