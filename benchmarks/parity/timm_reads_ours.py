"""Saves classifiers and lets timm load them: whether it computes the same logits and prepares images in the same way.

    python -m benchmarks.parity.timm_reads_ours --torch /environment/with/torch/bin/python
    python -m benchmarks.parity.timm_reads_ours --torch ... resnet18 resnet50d

For each network of timm's it prints the largest difference of the logits, as a share of the largest logit, on the same
input; and for photographs of several shapes the difference of what the two networks see, in levels of 0 to 255, and of
the logits that follow from it. Networks and options that timm lacks must be refused by it.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity import cases as parity_cases
from flax_resnets import Classifier
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.registry import list_models
from flax_resnets.models.resnet import ResNet
from flax_resnets.training.network import make_model
from flax_resnets.weights.load import expected_shapes, load_exactly
from flax_resnets.weights.names import torch_name
from flax_resnets.weights.safetensors_format import write_safetensors

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 7
SIZE = 64
_LACKING = "*_cifar"


class Case(NamedTuple):
    """A classifier to save.

    Attributes:
        name: names the case in the table.
        settings: fields of `Settings` that are not the usual ones.
        refused: whether timm lacks it.
    """

    name: str
    settings: dict[str, Any]
    refused: bool = False


def cases() -> list[Case]:
    """Every network that timm has; options, preprocessing and channels on a small one; and what timm lacks."""
    has = [name for name in list_models("*resne*") if name not in list_models(_LACKING) and "block" not in name]
    several = [Case(name, {"model": name}) for name in has]
    for activation in ("silu", "gelu", "mish"):
        several.append(Case(f"activation={activation}", {"model_options": {"activation": activation}}))
    several += [
        Case("output_stride=16", {"model_options": {"output_stride": 16}}),
        Case(
            "training's options", {"model_options": {"dropout": 0.5, "stochastic_depth": 0.1, "zero_init_last": True}}
        ),
        Case("grey", {"channels": 1, "mean": (0.3,), "std": (0.35,)}),
        Case("grey, v2", {"model": "resnetv2_18", "channels": 1, "mean": (0.3,), "std": (0.35,)}),
        Case("one mean for colour", {"mean": (0.5,), "std": (0.25,)}),
        Case("crop", {"resize": "crop"}),
        Case("crop to 73, then the centre", {"resize": "crop", "store_size": 73, "crop_pct": 64 / 73}),
        Case("squash to 80, then the centre", {"store_size": 80, "crop_pct": 0.8}),
        Case("crop to 96, then resized", {"resize": "crop", "store_size": 96}),
        Case("squash to 96, the centre resized", {"store_size": 96, "crop_pct": 0.875}),
    ]
    lacking = {
        "stem=small": {"model_options": {"stem": "small"}},
        "shortcut=pad": {"model_options": {"shortcut": "pad"}},
        "blur_pool": {"model_options": {"blur_pool": True}},
        "width=32": {"model_options": {"width": 32}},
        "resnet20_cifar": {"model": "resnet20_cifar"},
        "vgg11_quarter": {"model": "vgg11_quarter"},
        "densenet": {"model": "densenet"},
    }
    return several + [Case(name, settings, refused=True) for name, settings in lacking.items()]


def photographs() -> list[np.ndarray]:
    """Smooth coloured patterns in the shapes of photographs, uint8."""
    pictures = []
    for number, (height, width) in enumerate([(90, 120), (150, 101), (64, 64), (300, 200)]):
        y, x = np.mgrid[:height, :width] / 25
        waves = [np.sin(x * (1 + c) + number) * np.cos(y * (2 - c / 2)) + np.sin(x * y / 9) for c in range(3)]
        pictures.append((127.5 + 63 * np.stack(waves, -1)).clip(0, 255).astype(np.uint8))
    return pictures


def classifier(case: Case, scratch: Path) -> Classifier:
    """A classifier with random weights of a trained network's size."""
    usual = {"model": "resnet18", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "channels": 3}
    settings = Settings(**{**usual, "dataset": "", "image_size": SIZE, **case.settings})
    model = make_model(settings, CLASSES)
    shape = (SIZE, SIZE, settings.channels)
    expected = expected_shapes(model, shape)
    names = {path: torch_name(model, path) if isinstance(model, ResNet) else ".".join(path) for path in expected}
    shapes = {names[path]: (of[3], of[2], *of[:2]) if len(of) == 4 else of[::-1] for path, of in expected.items()}
    path = scratch / f"{case.name}.safetensors"
    write_safetensors(path, parity_cases.weights(shapes))
    variables = load_exactly(model, path, shape)
    path.unlink()
    return Classifier(model, variables, settings, [f"class {number}" for number in range(CLASSES)])


def prepare(case: Case, folder: Path, scratch: Path) -> dict[str, np.ndarray]:
    """Saves the case for timm, and returns what we compute from it."""
    ours = classifier(case, scratch)
    place = folder / case.name
    place.mkdir()
    ours.save(place / "saved")
    photos = photographs()
    if ours.settings.channels == 1:
        photos = [photo[..., 1] for photo in photos]
    seen = ours.preprocess(photos)
    apply = jax.jit(lambda variables, x: ours.model.apply(variables, x, train=False))
    logits = apply(ours.variables, seen)
    np.savez(place / "given.npz", x=seen, **{f"photo{i}": photo for i, photo in enumerate(photos)})
    std = jnp.broadcast_to(jnp.array(ours.settings.std), (ours.settings.channels,))
    return {"logits": np.asarray(logits), "seen": np.asarray(seen), "levels": np.asarray(255 * std)}


def compare(case: Case, ours: dict[str, np.ndarray], folder: Path, said: dict[str, Any]) -> list[str]:
    """The row of the table."""
    if case.refused or "refused" in said:
        assert case.refused, f"{case.name}: {said}"
        return [case.name, f"refused: {said['refused']}", "", "", ""]
    assert said["labels"] == [f"class {number}" for number in range(CLASSES)]
    theirs = np.load(folder / case.name / "theirs.npz")
    largest = np.abs(ours["logits"]).max()
    levels = np.abs(theirs["seen"] - ours["seen"]) * ours["levels"]
    figures = [
        np.abs(theirs["logits"] - ours["logits"]).max() / largest,
        levels.max(),
        levels.mean(),
        np.abs(theirs["of_own"] - ours["logits"]).max() / largest,
    ]
    assert figures[0] < 1e-4, f"{case.name}: logits differ by {figures[0]:.1e}"
    return [case.name, f"{figures[0]:.1e}", f"{figures[1]:.3g}", f"{figures[2]:.2g}", f"{figures[3]:.1e}"]


def main() -> None:
    """Runs the comparison and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", type=Path, required=True, metavar="PYTHON", help="of an environment with timm")
    parser.add_argument("names", nargs="*", help="cases; default all")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if not arguments.names or case.name in arguments.names]
    print(
        "| classifier | logits, same input | levels, most | levels, mean | logits, own input |\n|---|---|---|---|---|"
    )
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
            ours = prepare(case, Path(folder), Path(scratch))
            command = [arguments.torch, "-m", "benchmarks.parity.saved", folder]
            done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
            print(f"| {' | '.join(compare(case, ours, Path(folder), json.loads(done.stdout)))} |", flush=True)


if __name__ == "__main__":
    main()
