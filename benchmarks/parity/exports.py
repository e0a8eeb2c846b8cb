"""Compares exported programs with the classifiers that they came from, and writes the table of docs/export.md.

    python -m benchmarks.parity.exports                     # all networks, and the table
    python -m benchmarks.parity.exports resnet18 lenet_bn   # a line for each of these alone

Weights and images are random. StableHLO runs in jax, ONNX in onnxruntime, both on the CPU in float32; the classifier
runs as `Classifier.logits` does. An error is the largest difference of two logits, divided by the largest logit.
"""

import argparse
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import onnxruntime

from flax_resnets import Classifier
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.registry import MODELS
from flax_resnets.training.network import make_model
from flax_resnets.weights.load import expected_shapes
from flax_resnets.weights.names import nested

PAGE = Path(__file__).resolve().parents[2] / "docs" / "export.md"
BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->"
CLASSES, IMAGES, LIMIT = 10, 3, 1e-5

# A ResNet's size; the other networks have one of their own.
_SIDE = 64
NETWORKS = {
    "resnet18": {},
    "resnet50": {},
    "resnet50d": {},
    "resnetv2_50": {},
    "resnext50_32x4d": {},
    "seresnet50": {},
    "resnet20_cifar": {"image_size": 32},
    "resblock_net": {},
    "lenet_bn": {},
    "googlenet": {},
    "densenet": {},
    "resnet18, the quickstart's": {
        "model": "resnet18",
        "model_options": {"stem": "small", "width": 8},
        "image_size": 28,
        "channels": 1,
    },
    "resnet18, a flip, a crop, another stored size": {
        "model": "resnet18",
        "eval_flip": True,
        "store_size": 80,
        "crop_pct": 0.875,
    },
}


def made(model: str, **changes) -> Classifier:
    """A classifier with random weights, whose features neither grow nor vanish from block to block."""
    entry = MODELS[model]
    size = _SIDE if entry.input_size > 128 else entry.input_size
    fields = {"image_size": size, "channels": entry.channels, "mean": (0.4,), "std": (0.2,), **changes}
    settings = Settings(model=model, dataset="", **fields)
    network = make_model(settings, CLASSES)
    random = np.random.default_rng(0)
    gain = 8 if model.startswith("lenet") else 1  # sigmoids flatten
    drawn = {}
    for path, shape in expected_shapes(network, (settings.image_size, settings.image_size, settings.channels)).items():
        if path[-1] == "kernel":
            value = random.normal(size=shape) * gain * np.sqrt(2 / np.prod(shape[:-1]))
        elif path[-1] in ("scale", "var"):
            value = random.uniform(*{"scale": (0.2, 0.6), "var": (0.5, 1.5)}[path[-1]], shape)
        else:
            value = random.normal(size=shape) / 50
        drawn[path] = value.astype(np.float32)
    names = [str(number) for number in range(CLASSES)]
    return Classifier(network, {"batch_stats": {}, **nested(drawn)}, settings, names)


def images(count: int, side: int, channels: int) -> np.ndarray:
    """Rectangles of random colours; of noise, a deep layer would see the same in all images."""
    random = np.random.default_rng(count)
    result = np.zeros((count, side, side, channels), np.uint8)
    for image in result:
        for _ in range(30):
            top, left, bottom, right = random.integers(0, side, 4)
            image[min(top, bottom) : max(top, bottom) + 1, min(left, right) : max(left, right) + 1] = random.integers(
                0, 256, channels
            )
    return result


def errors(classifier: Classifier) -> dict[str, float]:
    """The error of each format."""
    x = images(IMAGES, classifier.preprocess.stored_size, classifier.settings.channels)
    expected = classifier.logits(x, batch_size=IMAGES)
    if np.ptp(expected, axis=0).max() < 0.02 * np.abs(expected).max():
        raise SystemExit(f"{classifier}: its logits hardly depend on the image, so that they show nothing")
    with tempfile.TemporaryDirectory() as folder:
        stablehlo, onnx = (str(classifier.export(Path(folder, kind), kind)[0]) for kind in ("stablehlo", "onnx"))
        computed = {
            "stablehlo": np.asarray(jax.export.deserialize(bytearray(Path(stablehlo).read_bytes())).call(x)),
            "onnx": onnxruntime.InferenceSession(onnx).run(None, {"images": x})[0],
        }
    return {kind: float(np.abs(logits - expected).max() / np.abs(expected).max()) for kind, logits in computed.items()}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help="default all")
    chosen = parser.parse_args().networks
    rows = []
    for name in chosen or NETWORKS:
        classifier = made(**{"model": name, **NETWORKS.get(name, {})})
        found = errors(classifier)
        side = classifier.preprocess.stored_size
        rows.append(f"| {name} | {side} | {found['stablehlo']:.0e} | {found['onnx']:.0e} |")
        print(rows[-1], flush=True)
        if max(found.values()) > LIMIT:
            raise SystemExit(f"{name}: is off by more than {LIMIT:.0e}")
    if not chosen:
        head = f"jax {version('jax')}, onnxruntime {version('onnxruntime')}:\n\n"
        table = "| network | pixels | stablehlo | onnx |\n|---|---:|---:|---:|\n" + "\n".join(rows)
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{head}{table}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
