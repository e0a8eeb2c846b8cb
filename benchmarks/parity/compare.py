"""Measures how far our networks are from torchvision's and timm's, and writes docs/models.md.

    python -m benchmarks.parity.compare --torch /environment/with/torch/bin/python         # all cases, random images
    python -m benchmarks.parity.compare --torch ... --images photos.npy resnet18 resnet50  # with photographs
    python -m benchmarks.parity.compare --torch ... --pairs                                # every pair of options
    python -m benchmarks.parity.compare --torch ... --evaluated                            # evaluation alone
    python -m benchmarks.parity.compare                                                    # only writes the page

Both sides compute in float32 on the CPU, with the same weights. The results are kept beside this file, in parity.json
(those of pairs in parity_pairs.json). Measuring a case again replaces its result. `photos.npy` holds normalised NHWC
images of 224 pixels or more.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from benchmarks.parity import cases as parity_cases
from benchmarks.parity import ours as parity_ours
from flax_resnets.models.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]

RESULTS = Path(__file__).with_name("parity.json")
PAIR_RESULTS = Path(__file__).with_name("parity_pairs.json")
TABLE = ROOT / "docs" / "models.md"
KINDS = ("eval", "train", "statistics", "gradients", "torch's own")
_PHOTOGRAPHS = " photographs"
_PAIRS_PER_PROCESS = 24  # torch takes longer to start than to compute a pair, but a pair's tensors take 10 MB
_CASES_PER_PROCESS = 4  # a case's take 1 GB


def limits(case: parity_cases.Case) -> dict[str, float]:
    """The largest errors that are allowed. `parity_cases` explains why ReLU's gradients have no limit."""
    smooth = case.options.get("activation", "relu") != "relu"
    return {"eval": 1e-4, "train": 1e-4, "statistics": 1e-4, **({"gradients": 1e-3} if smooth else {})}


def measure(names: Sequence[str], torch_python: Path, photos: Path | None) -> Iterator[tuple[str, dict]]:
    """The largest errors of each case over all its sizes, with sizes, batch and versions."""
    given = np.load(photos) if photos else None
    with tempfile.TemporaryDirectory() as folder:
        _run_reference(torch_python, *names, "--tensors", folder, *(["--images", photos] if photos else []))
        for name in names:
            yield name, _case_errors(parity_cases.CASES[name], np.load(Path(folder, f"{name}.npz")), given)


def _case_errors(case: parity_cases.Case, reference: Mapping[str, np.ndarray], given: np.ndarray | None) -> dict:
    errors = dict.fromkeys(KINDS, 0.0)
    for size in case.sizes:
        height, width = parity_cases.sides(size)
        x = parity_cases.images(size, case.batch) if given is None else given[: case.batch, :height, :width]
        computed = parity_ours.compute(case, np.ascontiguousarray(x, np.float32))
        logits, statistics, gradients = (computed[kind] for kind in ("logits", "statistics", "gradients"))
        of_size = {mode: _relative(value, reference[f"{size}/logits/{mode}"], np.inf) for mode, value in logits.items()}
        of_size["statistics"] = max(
            [
                _relative(value, reference[f"{size}/statistics/{tensor}"], np.inf)
                for tensor, value in statistics.items()
            ],
            default=0.0,
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
        "versions": _versions(reference),
    }


def measure_pairs(names: Sequence[str], torch_python: Path) -> dict[str, dict[str, float]]:
    """The largest errors of pairs of options over all sizes, for each kind of result in `parity_cases.comparable`."""
    with tempfile.TemporaryDirectory() as folder:
        _run_reference(torch_python, *names, "--pairs", "--tensors", folder)
        return {name: _pair_errors(name, dict(np.load(Path(folder, f"{name}.npz")))) for name in names}


def measure_evaluated(name: str, torch_python: Path) -> dict:
    """The largest error of the logits in evaluation over all sizes."""
    case = parity_cases.EVALUATED[name]
    with tempfile.TemporaryDirectory() as folder:
        _run_reference(torch_python, name, "--evaluated", "--tensors", folder)
        reference = dict(np.load(Path(folder, f"{name}.npz")))
    error = max(
        _relative(
            parity_ours.evaluate(case, parity_cases.images(size, case.batch))["logits"]["eval"],
            reference[f"{size}/logits/eval"],
            np.inf,
        )
        for size in case.sizes
    )
    return {
        "sizes": case.sizes,
        "batch": case.batch,
        "eval": float(f"{error:.2g}"),
        "versions": _versions(reference),
    }


def _versions(reference: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {**json.loads(str(reference["versions"])), "jax": version("jax"), "flax": version("flax")}


def _pair_errors(name: str, reference: dict[str, np.ndarray]) -> dict[str, float]:
    case = parity_cases.PAIRS[name]
    errors = dict.fromkeys(parity_cases.comparable(case), 0.0)
    for size in case.sizes:
        computed = parity_ours.forward(case, parity_cases.images(size, case.batch))
        for kind in errors:
            place = "logits" if kind in ("eval", "train") else kind
            tensors = {kind: computed["logits"][kind]} if place == "logits" else computed[kind]
            for tensor, value in tensors.items():
                errors[kind] = max(errors[kind], _relative(value, reference[f"{size}/{place}/{tensor}"], np.inf))
    return {kind: float(f"{error:.2g}") for kind, error in errors.items()}


def _run_reference(torch_python: Path, *arguments: str | Path) -> None:
    command = [torch_python, "-m", "benchmarks.parity.reference", *arguments]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _relative(value: np.ndarray, expected: np.ndarray, order: float) -> float:
    """Norm of the difference divided by the norm of the expected tensor; `order` as in `numpy.linalg.norm`."""
    assert value.shape == expected.shape
    return float(np.linalg.norm((value - expected).ravel(), order) / np.linalg.norm(expected.ravel(), order))


_HEAD = """\
# Networks

All names that `create_model` knows. Parameters and multiply-adds (of convolutions and linear layers, for one image) are
for the size, channels and classes for which the network was designed ("native"). Written by
`benchmarks/parity/compare.py`.
"""

_EXPLANATION = """
The last columns are the largest relative errors against the reference. Both compute in float32, with the same random
weights and two to four random images. "eval" and "train" are the errors of the logits in evaluation and in training
(largest difference divided by largest logit). "statistics" is that of the updated running statistics (the same, for
each tensor). "gradients" is that of the gradients of the cross-entropy with respect to the parameters (‖difference‖ /
‖gradient‖). A network without a reference in torchvision or timm has no errors here. `resnetv2_152x4_bit` has that of
evaluation alone: its gradients in float64 take 30 GB. Its options are compared in full on networks with one block in
each stage ("one_block" below). The errors of BiT's networks (`_bit`) grow with their depth in both libraries: torch's
own float32 gradients are as far from those in float64.

Our float32 gradients are compared with torch's gradients in float64. The last column does the same with torch's own
float32 gradients. ReLU's gradient jumps at 0. If rounding moves one of millions of activations across 0, the gradients
of all layers before it change, by a percent or two when there are only two small images. This happens in both
libraries. The options with smooth activation functions below have the same graphs without that jump.
"""


_PAIRS = """\
## Pairs of options

Every pair of options that timm has too; the diagonal has each option alone. The figures are the largest relative error,
as above, of logits and stages in evaluation, and of logits and running statistics in training. With stochastic depth or
dropout before the logits, only the results that do not depend on the random draws are compared. A cell is the maximum
over the networks that have both options,
{networks},
with 1, 1, 2 and 2 blocks, on four images of 64 x 64 and of 75 x 53 pixels. A cell is empty if both options are values
of the same attribute, or if no network of timm has the pair. `output_stride=32` is the network without the option.
`zero_init_last` changes only initial values, which agree with timm's.
{left}"""


def pair_table(results: dict) -> str:
    """The largest error of every pair of options. The options are numbered; each number's name is in its row."""
    worst: dict[frozenset[str], float] = {}
    for name, errors in results.items():
        pair = frozenset(name.split("+")[1:])
        worst[pair] = max(worst.get(pair, 0.0), *errors.values())
    possible = {frozenset(name.split("+")[1:]) for name in parity_cases.PAIRS}
    options = list(parity_cases.PAIRED_OPTIONS)
    networks = ", ".join(f"`{name}`" for name in parity_cases.PAIRS if "+" not in name)
    missing = len(set(parity_cases.PAIRS) - set(results))
    left = f"Not measured yet (`-`, or a cell of fewer networks): {missing} of {len(parity_cases.PAIRS)}.\n"
    lines = [
        _PAIRS.format(networks=networks, left=left if missing else ""),
        f"| | option | {' | '.join(map(str, range(1, len(options) + 1)))} |",
        f"|---:|---|{'---:|' * len(options)}",
    ]
    for i, option in enumerate(options):
        pairs = [frozenset((option, other)) for other in options[: i + 1]]
        cells = [f"{worst[pair]:.0e}" if pair in worst else "-" if pair in possible else "" for pair in pairs]
        cells += [""] * (len(options) - i - 1)
        lines.append(f"| {i + 1} | `{option}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def table(results: dict, pair_results: dict) -> str:
    """The page: all names with their facts and errors, then options, pairs of options, and photographs."""
    lines = [
        _HEAD,
        f"| name | reference | native | parameters | multiply-adds | {' | '.join(KINDS)} |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, entry in MODELS.items():
        native = f"{entry.input_size} px, {entry.channels} ch, {entry.num_classes} classes"
        macs = entry.multiply_adds
        facts = f"{native} | {entry.parameters:,} | {f'{macs / 1e9:.2f} G' if macs >= 1e9 else f'{macs / 1e6:.1f} M'}"
        case = parity_cases.CASES.get(name) or parity_cases.EVALUATED.get(name)
        reference = case.library if case else "none"
        lines.append(f"| `{name}` | {reference} | {facts} | {_errors(results.get(name))} |")
    lines.append(_EXPLANATION)
    for title, keys in (
        ("Options", [name for name in parity_cases.CASES if "+" in name]),
        ("Photographs", [key for key in results if key.endswith(_PHOTOGRAPHS)]),
    ):
        lines += [f"## {title}", "", f"| network | px | {' | '.join(KINDS)} |", "|---|---|---:|---:|---:|---:|---:|"]
        for key in keys:
            sizes = ", ".join(map(_size, results[key]["sizes"])) if key in results else ""
            lines.append(f"| `{key.removesuffix(_PHOTOGRAPHS)}` | {sizes} | {_errors(results.get(key))} |")
        lines += ["", pair_table(pair_results)] if title == "Options" else [""]
    versions = sorted({", ".join(f"{k} {v}" for k, v in result["versions"].items()) for result in results.values()})
    lines.append(f"Measured with {'; '.join(versions)}.")
    return "\n".join(lines) + "\n"


def _size(size: int | Sequence[int]) -> str:
    return str(size) if isinstance(size, int) else " x ".join(map(str, size))


def _errors(result: dict | None) -> str:
    return " | ".join(f"{result[kind]:.0e}" if result and kind in result else "" for kind in KINDS)


def main() -> None:
    """Measures what the arguments ask for, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--pairs", action="store_true", help="measure pairs of options instead of networks")
    parser.add_argument("--evaluated", action="store_true", help="measure parity_cases.EVALUATED")
    parser.add_argument("--torch", type=Path, help="python of an environment with torch, torchvision and timm")
    parser.add_argument("--images", type=Path, help="an .npy of normalised NHWC images to use instead of random ones")
    arguments = parser.parse_args()
    results, pair_results = (json.loads(path.read_text()) if path.exists() else {} for path in (RESULTS, PAIR_RESULTS))
    too_far = []
    if arguments.torch and arguments.pairs:
        names = arguments.cases or list(parity_cases.PAIRS)
        for i in range(0, len(names), _PAIRS_PER_PROCESS):
            measured = measure_pairs(names[i : i + _PAIRS_PER_PROCESS], arguments.torch)
            print(*measured.items(), sep="\n", flush=True)
            pair_results |= measured
            PAIR_RESULTS.write_text(json.dumps(pair_results, indent=1) + "\n")
            too_far += [f"{name} {kind}" for name, each in measured.items() for kind in each if each[kind] > 1e-4]
    elif arguments.torch and arguments.evaluated:
        for name in arguments.cases or list(parity_cases.EVALUATED):
            results[name] = measure_evaluated(name, arguments.torch)
            print(name, results[name]["eval"], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            too_far += [f"{name} eval"] * (results[name]["eval"] > 1e-4)
    elif arguments.torch:
        names = arguments.cases or list(parity_cases.CASES)
        for i in range(0, len(names), _CASES_PER_PROCESS):
            for name, result in measure(names[i : i + _CASES_PER_PROCESS], arguments.torch, arguments.images):
                print(name, {kind: result[kind] for kind in KINDS}, flush=True)
                results[name + (_PHOTOGRAPHS if arguments.images else "")] = result
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                most = limits(parity_cases.CASES[name])
                too_far += [f"{name} {kind}" for kind, limit in most.items() if result[kind] > limit]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(table(results, pair_results))
    if too_far:
        sys.exit(f"beyond the limits: {', '.join(too_far)}")


if __name__ == "__main__":
    main()
