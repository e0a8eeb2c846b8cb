"""The other side of the comparison: computes with torchvision and timm. Needs torch, torchvision and timm, not jax.

    python -m benchmarks.parity.reference --golden                        # tests/models/golden/*.json, all cases
    python -m benchmarks.parity.reference resnet18 --tensors /tmp/out     # whole tensors, for compare.py
    python -m benchmarks.parity.reference --pairs --tensors /tmp/out      # pairs of options, without gradients

Golden files are computed in float64, whole tensors in float32. Gradients are computed in both.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from timm.layers import GroupNormAct, ScaledStdConv2d, StdConv2d

from benchmarks.parity import cases as parity_cases


def _activation(channels: int, apply_act: bool = True, **_: Any) -> torch.nn.Module:
    """In the place of timm's norm with activation: the activation alone."""
    return torch.nn.SiLU() if apply_act else torch.nn.Identity()


# What the cases name. The last number is 1 divided by the standard deviation of SiLU of a normal variable.
_LAYERS: dict[Any, Any] = {
    "StdConv2d": partial(StdConv2d, eps=1e-8),
    "GroupNormAct": GroupNormAct,
    "ScaledStdConv2d": partial(ScaledStdConv2d, gamma=1.7871872221),
    "none": _activation,
}

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "models" / "golden"


def build(case: parity_cases.Case) -> torch.nn.Module:
    """The reference network, with the weights of the case."""
    options = {
        name: _LAYERS.get(value, value) if isinstance(value, str) else value
        for name, value in case.reference_options.items()
    }
    options["num_classes"] = parity_cases.CLASSES
    stride_on_1x1 = options.pop("stride_on_1x1", False)
    if case.library == "torchvision":
        model = torchvision.models.get_model(case.reference, weights=None, **options)
    else:
        model = timm.create_model(case.reference, **options)
    for block in model.modules():
        if stride_on_1x1 and hasattr(block, "conv3"):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if value.ndim}
    state = {name: torch.from_numpy(value) for name, value in parity_cases.weights(shapes).items()}
    model.load_state_dict(state)
    return model


def compute(
    case: parity_cases.Case, images: np.ndarray, dtype: torch.dtype = torch.float32
) -> dict[str, dict[str, np.ndarray]]:
    """Computes what `forward` does, and the gradients of the cross-entropy in training."""
    model, computed = forward(case, images, dtype)
    labels = torch.from_numpy(parity_cases.labels(len(images)))
    torch.nn.functional.cross_entropy(computed["logits"]["train"], labels).backward()
    computed["logits"]["train"] = computed["logits"]["train"].detach().numpy()
    gradients = {name: value.grad.numpy() for name, value in model.named_parameters()}
    return {**computed, "gradients": gradients}


def evaluate(case: parity_cases.Case, images: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """The logits in evaluation alone."""
    with torch.no_grad():
        logits = build(case).eval()(torch.from_numpy(images).permute(0, 3, 1, 2))
    return {"logits": {"eval": logits.numpy()}}


def forward(
    case: parity_cases.Case, images: np.ndarray, dtype: torch.dtype = torch.float32
) -> tuple[torch.nn.Module, dict[str, dict[str, Any]]]:
    """Evaluates the network, and takes one step in training mode, without an optimizer.

    Returns the network after that step; stages and logits in evaluation, and logits and running statistics in training.
    The logits in training are a torch tensor from which gradients can be computed.
    """
    model = build(case).to(dtype)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)
    stages: dict[str, np.ndarray] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, y, stage=stage: stages.update({stage: y.detach().numpy().copy()}))
        for stage, module in stage_modules(model).items()
    ]
    model.eval()
    with torch.no_grad():
        evaluated = model(x)
    for hook in hooks:
        hook.remove()
    model.train()
    trained = model(x)
    statistics = {name: value.numpy() for name, value in model.named_buffers() if "running" in name}
    return model, {
        "logits": {"eval": evaluated.numpy(), "train": trained},
        "stages": {stage: value.transpose(0, 2, 3, 1) for stage, value in stages.items()},
        "statistics": statistics,
    }


def stage_modules(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """The modules whose outputs `method="features"` returns here."""
    if hasattr(model, "stages"):  # timm's resnetv2
        convs = [module for name, module in model.stem.named_children() if name.startswith("conv")]
        return {"stem": convs[-1], **{f"stage{i + 1}": stage for i, stage in enumerate(model.stages)}}
    stem = model.act1 if hasattr(model, "act1") else model.relu
    return {"stem": stem, **{f"stage{i}": getattr(model, f"layer{i}") for i in range(1, 5)}}


def golden(case: parity_cases.Case, size: parity_cases.Size) -> dict:
    """The figures that a golden file has for one size of images."""
    computed = compute(case, parity_cases.images(size, case.batch), torch.float64)
    tensors = computed["gradients"] | computed["statistics"]
    norms = {
        module: [
            rounded(np.linalg.norm(tensors[f"{module}.{leaf}"]), 5)
            for leaf in parity_cases.LEAVES
            if f"{module}.{leaf}" in tensors
        ]
        for module in dict.fromkeys(name.rsplit(".", 1)[0] for name in tensors)
    }
    return {
        "size": size,
        "batch": case.batch,
        "logits": {
            mode: {"sum": rounded(value.sum()), "norm": rounded(np.linalg.norm(value)), "first": rounded(value[:2, :4])}
            for mode, value in computed["logits"].items()
        },
        "stages": {stage: rounded([value.mean(), value.std()]) for stage, value in computed["stages"].items()},
        # For each module: norms of the gradients of its parameters, and of its running statistics after one step.
        "norms": norms,
    }


def rounded(value, digits: int = 7) -> float | list:
    """Numbers rounded to this many digits. float32 has about seven."""
    return np.vectorize(lambda number: float(f"{number:.{digits}g}"))(value).tolist()


def versions() -> dict[str, str]:
    """The versions of torch, torchvision and timm."""
    return {library.__name__: library.__version__.split("+")[0] for library in (torch, torchvision, timm)}


def main() -> None:
    """Writes what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--pairs", action="store_true", help="the cases of parity_cases.PAIRS")
    parser.add_argument("--evaluated", action="store_true", help="the cases of parity_cases.EVALUATED")
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--tensors", type=Path, metavar="DIR")
    parser.add_argument("--images", type=Path, help="an .npy of normalised NHWC images to use instead of random ones")
    arguments = parser.parse_args()
    evaluated = parity_cases.EVALUATED if arguments.evaluated else parity_cases.CASES
    cases = parity_cases.PAIRS if arguments.pairs else evaluated
    for name in arguments.cases or cases:
        case = cases[name]
        if arguments.golden:
            content = {"case": name, "versions": versions(), "sizes": [golden(case, size) for size in case.sizes]}
            text = json.dumps(content, separators=(",", ":"))
            # One line for each module and stage keeps the file small and its changes readable.
            (GOLDEN / f"{name}.json").write_text(text.replace('],"', '],\n"') + "\n")
        if arguments.tensors:
            arrays = {"versions": np.array(json.dumps(versions()))}
            for size in case.sizes:
                height, width = parity_cases.sides(size)
                given = np.load(arguments.images)[: case.batch, :height, :width] if arguments.images else None
                x = parity_cases.images(size, case.batch) if given is None else given
                x = np.ascontiguousarray(x, np.float32)
                if arguments.evaluated:
                    computed = evaluate(case, x)
                elif arguments.pairs:
                    _, computed = forward(case, x)
                    computed["logits"]["train"] = computed["logits"]["train"].detach().numpy()
                else:
                    computed = compute(case, x)
                    computed["exact gradients"] = compute(case, x, torch.float64)["gradients"]
                for kind, tensors in computed.items():
                    arrays |= {f"{size}/{kind}/{tensor}": value for tensor, value in tensors.items()}
            np.savez(arguments.tensors / f"{name}.npz", **arrays)
        print(name, flush=True)


if __name__ == "__main__":
    main()
