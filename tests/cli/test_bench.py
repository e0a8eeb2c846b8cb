"""`python -m flax_resnets bench` on the smallest case, and the mistakes that it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import flax_resnets.cli.bench as command
from flax_resnets import cli, cpu
from flax_resnets.cli.bench import contenders
from flax_resnets.cli.bench.cases import CASES
from flax_resnets.cli.bench.interleave import Measurement
from flax_resnets.errors import UserError

TINY = ["bench", "--batch=2", "--size=32", "--rounds=2", "--turn=0.01"]


class Measured(NamedTuple):
    out: str
    err: str
    rows: list[dict]


def measured(path: Path, *arguments: str) -> Measured:
    """What a small measurement printed, and its lines of JSON."""
    command = [sys.executable, "-m", "flax_resnets", *TINY, *arguments, f"--json={path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(done.stdout, done.stderr, list(map(json.loads, path.read_text().splitlines())))


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Measured:
    """ResNet-18's step beside a plain network's, a program's that imports ours, and torchvision's.

    This python stands for one of an environment without torch.
    """
    others = "--only=plain linen", "--only=imported", "--only=torchvision", f"--torch={sys.executable}"
    return measured(tmp_path_factory.mktemp("bench") / "figures.jsonl", "--case=rn18-train", *others)


def assert_beside_plain_linen(case: str, found: Measured, *others: str) -> None:
    title, _, header, *lines = found.out.splitlines()
    assert title == f"{case}: {CASES[case].what}, 32 px, batch 2, float32; medians of 2 rounds"
    assert header.split()[0] == "ms"
    assert [line.partition("  ")[0] for line in lines if line] == ["ours", "plain linen", *others]
    assert "round 2 of 2" in found.err
    ours, linen = found.rows[:2]
    assert (ours["contender"], linen["contender"]) == ("ours", "plain linen")
    assert ours["seconds"] > 0
    assert linen["ours_is_times_as_fast"] > 0
    assert len(linen["each_round"]) == ours["rounds"] == 2
    assert {"jax", "flax"} <= set(ours["versions"])
    assert ours["machine"]["cores"] >= 1


def test_training_beside_plain_linen(training):
    no_torch = "left out: torchvision: ModuleNotFoundError: No module named 'torch'"
    last = "torchvision" if contenders.torch_is_here() else no_torch
    assert_beside_plain_linen("rn18-train", training, "imported", last)


@pytest.mark.slow
def test_inference_beside_plain_linen(tmp_path):
    found = measured(tmp_path / "figures.jsonl", "--case=rn50-inference", "--only=plain linen")
    assert_beside_plain_linen("rn50-inference", found)


def test_a_program_that_only_imports_the_network(training):
    (imported,) = (row for row in training.rows if row["contender"] == "imported")
    assert imported["images_per_second"] > 0


def test_a_peer_that_does_not_start_is_named_and_figures_come_all_the_same(training):
    if contenders.torch_is_here():
        pytest.skip("torch is here")
    assert "left out: torchvision: ModuleNotFoundError: No module named 'torch'" in training.out
    assert [row["contender"] for row in training.rows] == ["ours", "plain linen", "imported"]


def test_its_page_names_every_case():
    page = (Path(__file__).parents[2] / "docs" / "speed.md").read_text()
    assert all(f"`{case}`" in page for case in CASES)


def test_a_program_that_only_imports_the_network_has_the_settings_of_fast_cpu_or_none(monkeypatch):
    both = [contenders.IMPORTED, contenders.FAST]
    with monkeypatch.context() as patch:
        for name in ("GLIBC_TUNABLES", "XLA_FLAGS"):
            patch.delenv(name, raising=False)
        _, imported, fast = contenders.peers(CASES["rn18-train"], "cpu", both)
        assert "GLIBC_TUNABLES" not in imported.environment
        assert fast.environment.items() >= cpu.fast_environment().items()
    assert len(contenders.peers(CASES["rn18-train"], "gpu", both)) == 1


def test_a_peer_that_is_not_installed_is_named(capsys, monkeypatch):
    measured = Measurement({"ours": [1.0], "plain linen": [2.0]}, {"ours": {}, "plain linen": {}})
    monkeypatch.setattr("flax_resnets.cli.bench.interleave", lambda *_, **__: measured)
    monkeypatch.setattr(contenders, "torch_is_here", lambda: False)
    assert cli.main([*TINY, "--case=rn18-train"]) == 0
    out = capsys.readouterr().out
    assert "2.00x" in out
    assert "left out: torchvision: not installed here; --torch names" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--case=rn19-train", "--case: invalid choice: 'rn19-train'"),
        ("--rounds=0", "--rounds=0: must be a whole number from 1 up"),
        ("--turn=0", "--turn=0: must be above 0"),
        ("--turn=long", "--turn: invalid float value: 'long'"),
        ("--case=scaling-batch --batch=8", "--batch=8: scaling-batch varies it; --size can be given"),
        ("--size=8", "--size=8: scaling-size varies it; --batch can be given"),
        ("--torch=/no/such/python", "--torch=/no/such/python: must be the python of an environment with torch in it"),
        ("--checkout=/no/such/clone", "--checkout=/no/such/clone: must be a directory with flax_resnets/ in it"),
        ("--only=checkout", "--only=checkout: --checkout=DIR is needed, another clone of this repository"),
        ("--json=/no/such/directory/file", "--json=/no/such/directory/file: No such file or directory; name a file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, line, message):
    assert cli.main(["bench", *line.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"flax_resnets: bench: {message}")
    assert captured.err.count("\n") == 1


def options(processes):
    return {contender.name: contender.options for process in processes for contender in process.contenders}


def test_scaling_has_ours_at_every_size():
    processes = contenders.scaling(CASES["scaling-size"], "cpu")
    assert [each["size"] for each in options(processes).values()] == list(CASES["scaling-size"].values)
    assert {each["batch"] for each in options(processes).values()} == {32}
    assert len(processes) == len(CASES["scaling-size"].values)


def test_a_tpu_has_one_process_for_all_of_jax(tmp_path):
    case = CASES["rn50-train"]
    assert len(contenders.scaling(CASES["scaling-batch"], "tpu")) == 1
    on_tpu = contenders.peers(case, "tpu", [contenders.LINEN, contenders.TORCH], torch=tmp_path / "python")
    assert [[each.name for each in process.contenders] for process in on_tpu] == [
        ["ours", "plain linen"],
        ["torchvision"],
    ]


def test_another_environments_python_imports_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "here")
    case = CASES["rn18-train"]
    ours, torch = contenders.peers(case, "cpu", [contenders.TORCH], torch=tmp_path / "python")
    assert ours.paths
    assert not torch.paths
    assert "PYTHONPATH" not in torch.environment
    *_, checkout = contenders.peers(case, "cpu", [contenders.CHECKOUT], checkout=tmp_path)
    assert checkout.paths == [str(tmp_path)]


def test_contenders_agree_on_what_they_are_asked_for():
    assert len({json.dumps(each) for each in options(contenders.peers(CASES["rn50-train"], "cpu")).values()}) == 1


def test_on_a_full_disk_the_lines_are_printed(capsys):
    with pytest.raises(UserError, match=r"^bench: --json=/dev/full: No space left on device; its lines are printed"):
        command._write('{"case": "rn18-train"}\n', Path("/dev/full"))
    assert capsys.readouterr().out == '{"case": "rn18-train"}\n\n'
