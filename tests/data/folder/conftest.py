"""Small folders of pictures, made here."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.pictures import picture


@pytest.fixture
def make_folder(tmp_path) -> Callable[..., Path]:
    """A function that writes pictures with these names, and returns their folder."""

    def make(*names: str, root: str = "photos") -> Path:
        for number, name in enumerate(names):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
        return tmp_path / root

    return make


@pytest.fixture
def photos(make_folder) -> Path:
    """Two splits of two classes: three and two pictures for training, two and one for validation."""
    train = ("train/cat/1.png", "train/cat/2.png", "train/cat/3.png", "train/dog/1.png", "train/dog/2.png")
    return make_folder(*train, "val/cat/8.png", "val/cat/9.png", "val/dog/8.png")
