"""Measures how far our networks are from torchvision's and timm's, and writes the table of docs/models.md.

    python -m benchmarks.parity.compare --torch /environment/with/torch/bin/python         # all cases, random images
    python -m benchmarks.parity.compare --torch ... --images photos.npy resnet18 resnet50  # photographs instead
    python -m benchmarks.parity.compare                                                    # the table alone

Both sides compute in float32 on the CPU, from the same weights. Every measurement is kept in parity.json, beside this
file, under its case; a case measured again replaces its own. `photos.npy` holds normalised NHWC images of 224 pixels or
more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.parity import cases as parity_cases
from benchmarks.parity import ours as parity_ours
from flax_resnets.models.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]

RESULTS = Path(__file__).with_name("parity.json")
TABLE = ROOT / "docs" / "models.md"
KINDS = ("eval", "train", "statistics", "gradients", "torch's own")
_PHOTOGRAPHS = " photographs"


def limits(case: parity_cases.Case) -> dict[str, float]:
    """The largest errors that are allowed; see `parity_cases` for why ReLU's gradients are not judged."""
    smooth = case.options.get("activation", "relu") != "relu"
    return {"eval": 1e-4, "train": 1e-4, "statistics": 1e-4, **({"gradients": 1e-3} if smooth else {})}


def measure(name: str, torch_python: Path, photos: Path | None) -> dict:
    """The largest errors of one case over its sizes, with what they were measured on."""
    case = parity_cases.CASES[name]
    given = np.load(photos) if photos else None
    with tempfile.TemporaryDirectory() as folder:
        command = [
            torch_python,
            "-m",
            "benchmarks.parity.reference",
            name,
            "--tensors",
            folder,
            *(["--images", photos] if photos else []),
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        reference = dict(np.load(Path(folder, f"{name}.npz")))
    errors = dict.fromkeys(KINDS, 0.0)
    for size in case.sizes:
        x = parity_cases.images(size, case.batch) if given is None else given[: case.batch, :size, :size]
        computed = parity_ours.compute(case, np.ascontiguousarray(x, np.float32))
        logits, statistics, gradients = (computed[kind] for kind in ("logits", "statistics", "gradients"))
        of_size = {mode: _relative(value, reference[f"{size}/logits/{mode}"], np.inf) for mode, value in logits.items()}
        of_size["statistics"] = max(
            _relative(value, reference[f"{size}/statistics/{tensor}"], np.inf) for tensor, value in statistics.items()
        )
        exact = {tensor: reference[f"{size}/exact gradients/{tensor}"] for tensor in gradients}
        of_size["gradients"] = max(_relative(value, exact[tensor], 2) for tensor, value in gradients.items())
        of_size["torch's own"] = max(
            _relative(reference[f"{size}/gradients/{tensor}"], value, 2) for tensor, value in exact.items()
        )
        errors = {kind: max(error, of_size[kind]) for kind, error in errors.items()}
    return {
        "sizes": case.sizes,
        "batch": case.batch,
        **{kind: float(f"{error:.2g}") for kind, error in errors.items()},
        "versions": {**json.loads(str(reference["versions"])), "jax": version("jax"), "flax": version("flax")},
    }


def _relative(value: np.ndarray, expected: np.ndarray, order: float) -> float:
    """The difference's norm as a share of the expected tensor's: of the largest number, or Euclid's."""
    assert value.shape == expected.shape
    return float(np.linalg.norm((value - expected).ravel(), order) / np.linalg.norm(expected.ravel(), order))


_HEAD = """\
# Networks

Every name that `create_model` knows. Parameters and multiply-adds (of convolutions and linear layers, for one image)
are those at the native size, channels and classes of the network. Written by `benchmarks/parity/compare.py`.
"""

_EXPLANATION = """
The last columns are the largest relative errors against the reference, both in float32, from the same random weights
and two to four random images: of the logits in evaluation and in training (largest difference by largest logit), of the
updated running statistics (the same, tensor by tensor), and of the gradient of the cross-entropy by each parameter
(‖difference‖ / ‖gradient‖). Networks without a reference in torchvision or timm have no errors here.

Gradients in float32, ours and in the last column torch's own, are compared with torch's in float64: ReLU's gradient
jumps at 0, and where rounding carries one activation of millions across, the gradients of all layers before it move, by
a percent or two when there are only two small images. It happens to either library. The smooth activations among the
options below show the same graphs without that jump.
"""


def table(results: dict) -> str:
    """The page: every registered name with its facts and its errors, then options and photographs."""
    lines = [
        _HEAD,
        f"| name | reference | native | parameters | multiply-adds | {' | '.join(KINDS)} |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, entry in MODELS.items():
        native = f"{entry.input_size} px, {entry.channels} ch, {entry.num_classes} classes"
        macs = entry.multiply_adds
        facts = f"{native} | {entry.parameters:,} | {f'{macs / 1e9:.2f} G' if macs >= 1e9 else f'{macs / 1e6:.1f} M'}"
        reference = parity_cases.CASES[name].library if name in parity_cases.CASES else "none"
        lines.append(f"| `{name}` | {reference} | {facts} | {_errors(results.get(name))} |")
    lines.append(_EXPLANATION)
    for title, keys in (
        ("Options", [name for name in parity_cases.CASES if "+" in name]),
        ("Photographs", [key for key in results if key.endswith(_PHOTOGRAPHS)]),
    ):
        lines += [f"## {title}", "", f"| network | px | {' | '.join(KINDS)} |", "|---|---|---:|---:|---:|---:|---:|"]
        for key in keys:
            sizes = ", ".join(map(str, results[key]["sizes"])) if key in results else ""
            lines.append(f"| `{key.removesuffix(_PHOTOGRAPHS)}` | {sizes} | {_errors(results.get(key))} |")
        lines.append("")
    versions = sorted({", ".join(f"{k} {v}" for k, v in result["versions"].items()) for result in results.values()})
    lines.append(f"Measured with {'; '.join(versions)}.")
    return "\n".join(lines) + "\n"


def _errors(result: dict | None) -> str:
    return " | ".join(f"{result[kind]:.0e}" if result else "" for kind in KINDS)


def main() -> None:
    """Measure what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(parity_cases.CASES))
    parser.add_argument("--torch", type=Path, help="python of an environment with torch, torchvision and timm")
    parser.add_argument("--images", type=Path, help="an .npy of normalised NHWC images to use instead of random ones")
    arguments = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    too_far = []
    for name in arguments.cases if arguments.torch else ():
        result = measure(name, arguments.torch, arguments.images)
        print(name, {kind: result[kind] for kind in KINDS}, flush=True)
        results[name + (_PHOTOGRAPHS if arguments.images else "")] = result
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        too_far += [f"{name} {kind}" for kind, most in limits(parity_cases.CASES[name]).items() if result[kind] > most]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(results))
    if too_far:
        sys.exit(f"beyond the limits: {', '.join(too_far)}")


if __name__ == "__main__":
    main()
