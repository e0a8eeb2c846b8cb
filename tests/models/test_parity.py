"""The networks compared with torchvision and timm, by figures that benchmarks/parity/reference.py computed.

torch is not needed: both sides draw the same random weights and images.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.parity import cases as parity_cases
from benchmarks.parity import compare
from benchmarks.parity import ours as parity_ours

GOLDEN = Path(__file__).parent / "golden"

# By default a few graphs. The deeper networks and the other sizes and options are slow tests.
QUICK = {("resnet18", 193), ("resnet18d+gelu", 97), ("resnetv2_18+silu", 97), ("seresnet18+silu", 97)}
QUICK |= {("resnet18+blur_pool+output_stride8", 97), ("resnet10t", (107, 75))}
COMPARISONS = [
    pytest.param(name, index, id=f"{name}-{size}", marks=() if (name, size) in QUICK else pytest.mark.slow)
    for name, case in parity_cases.CASES.items()
    for index, size in enumerate(case.sizes)
]


def golden_of(name: str, index: int) -> tuple[parity_cases.Case, dict, np.ndarray]:
    case = parity_cases.CASES[name]
    golden = json.loads((GOLDEN / f"{name}.json").read_text())["sizes"][index]
    size = case.sizes[index]
    assert (golden["size"], golden["batch"]) == (size if isinstance(size, int) else [*size], case.batch)
    return case, golden, parity_cases.images(size, case.batch)


def assert_outputs_are_those_of(golden: dict, computed: dict) -> None:
    for mode, logits in computed["logits"].items():
        expected = golden["logits"][mode]
        near = 1e-4 * np.abs(expected["first"]).max()
        np.testing.assert_allclose(logits[:2, :4], expected["first"], rtol=0, atol=near, err_msg=mode)
        np.testing.assert_allclose(np.linalg.norm(logits), expected["norm"], rtol=1e-4, err_msg=mode)
        # A sum may cancel to nearly 0. Its error is relative to the numbers that were summed.
        assert abs(logits.sum() - expected["sum"]) <= 1e-4 * expected["norm"] * logits.size**0.5, mode
    for stage, value in computed["stages"].items():
        expected_mean, expected_std = golden["stages"][stage]
        np.testing.assert_allclose(value.std(), expected_std, rtol=1e-4, err_msg=stage)
        np.testing.assert_allclose(value.mean(), expected_mean, rtol=0, atol=1e-4 * expected_std, err_msg=stage)


ONE_BLOCK = [f"{name}+one_block+silu" for name in ("ecaresnet26t", "resnetrs50", "resnetv2_50x1_bit")]


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", *ONE_BLOCK])
def test_evaluation_is_that_of_the_reference(name):
    case, golden, images = golden_of(name, -1)
    assert_outputs_are_those_of(golden, parity_ours.evaluate(case, images))


@pytest.mark.parametrize(("name", "index"), COMPARISONS)
def test_evaluation_and_training_are_those_of_the_reference(name, index):
    case, golden, images = golden_of(name, index)
    computed = parity_ours.compute(case, images)
    assert_outputs_are_those_of(golden, computed)
    norms = {
        f"{module}.{leaf}": norm
        for module, of_module in golden["norms"].items()
        for leaf, norm in zip(parity_cases.LEAVES, of_module, strict=False)
    }
    errors = {
        kind: {tensor: abs(np.linalg.norm(value) / norms.pop(tensor) - 1) for tensor, value in computed[kind].items()}
        for kind in ("statistics", "gradients")
    }
    assert not norms, "tensors of the reference that we do not have"
    assert {tensor: error for tensor, error in errors["statistics"].items() if error > 1e-4} == {}
    # Rounding may move an activation across 0, where ReLU's gradient jumps: see benchmarks/parity/cases.py.
    smooth = case.options.get("activation", "relu") != "relu"
    assert {tensor: error for tensor, error in errors["gradients"].items() if error > (1e-3 if smooth else 2e-2)} == {}
    assert np.median(list(errors["gradients"].values())) < 1e-3


def test_every_golden_file_is_of_a_case_and_says_what_made_it():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(parity_cases.CASES)
    for path in GOLDEN.glob("*.json"):
        assert set(json.loads(path.read_text())["versions"]) == {"torch", "torchvision", "timm"}


def test_the_page_of_networks_is_current():
    """`python -m benchmarks.parity.compare` writes it."""
    results, pairs = (json.loads(path.read_text()) for path in (compare.RESULTS, compare.PAIR_RESULTS))
    assert compare.TABLE.read_text() == compare.table(results, pairs)
