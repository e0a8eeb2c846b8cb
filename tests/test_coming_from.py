"""docs/coming_from.md: both columns run, theirs where that library is installed.

The page's sizes are those of real pictures; here they are smaller, and the runs shorter.
"""

import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import flax_resnets
from flax_resnets.inference.preprocess import Settings
from flax_resnets.weights.safetensors_format import write_safetensors

PAGE = (Path(__file__).parents[1] / "docs" / "coming_from.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}

SMALLER = {
    "(160)": "(40)",
    "size=128": "size=32",
    "learn.fit_one_cycle(5": "learn.fit_one_cycle(1",
    "bs=32": "bs=8",
    '"epochs": 5': '"epochs": 1, "image_size": 32, "store_size": 40',
    "epochs=20": "epochs=2",
    '"epochs": 20': '"epochs": 1, "model": "lenet", "model_options": {}',
    '"batch_size": 32': '"batch_size": 8',
}


def columns(section: str) -> tuple[str, str]:
    """Their program and ours."""
    blocks = re.findall(r"(<!-- not run.*?-->\n)?```python\n# (\w+)\n(.*?)```", SECTIONS[section], flags=re.DOTALL)
    theirs = [text for not_run, name, text in blocks if not not_run and name != "flax_resnets"]
    ours = [text for not_run, name, text in blocks if not not_run and name == "flax_resnets"]
    assert theirs
    assert ours
    programs = "".join(theirs), "".join(ours)
    for large, small in SMALLER.items():
        assert large in PAGE
        programs = programs[0].replace(large, small), programs[1].replace(large, small)
    return programs


@pytest.fixture(scope="module")
def resnet18() -> flax_resnets.Classifier:
    """A network that was not trained."""
    settings = Settings(model="resnet18", dataset="", image_size=64, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = flax_resnets.create_model("resnet18", num_classes=10)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    return flax_resnets.Classifier(model, variables, settings, [f"class {number}" for number in range(10)])


@pytest.fixture
def directory(tmp_path, monkeypatch) -> Path:
    """The working directory of a reader, with pictures."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        os.makedirs(f"photos/{name}")
        for number in range(12):
            Image.fromarray(random.integers(0, 256, (48, 40, 3)).astype(np.uint8)).save(f"photos/{name}/{number}.png")
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("shoe.png")
    return tmp_path


TRAINS_A_RESNET = pytest.param("fastai", marks=pytest.mark.slow)  # whose step takes half a minute to compile


@pytest.mark.parametrize("section", [TRAINS_A_RESNET if section == "fastai" else section for section in SECTIONS])
def test_our_column_runs(section, directory, resnet18):
    if section == "torchvision":
        write_safetensors(Path("net.safetensors"), flax_resnets.export_state_dict(resnet18.model, resnet18.variables))
    if section == "timm":
        resnet18.save("runs/resnet18")
    exec(columns(section)[1], {})


@pytest.mark.filterwarnings("ignore")  # those of the other libraries are not ours to mend
@pytest.mark.parametrize("section", SECTIONS)
def test_their_column_runs(section, directory, resnet18, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip(section.lower())
    if section == "timm":
        resnet18.save("sneakers")
    exec(columns(section)[0], {})
