"""The command `export`: files where they are asked for, said where they lie, never overwritten unasked."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from flax_resnets import Classifier, cli, create_model
from flax_resnets.cli import export as command
from flax_resnets.inference.preprocess import Settings


@pytest.fixture(autouse=True)
def network(tmp_path, monkeypatch) -> Classifier:
    """A network that was not trained, which the command finds wherever it is asked for one."""
    import jax

    settings = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.3,))
    model = create_model("lenet", num_classes=3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, 1)))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    classifier = Classifier(model, variables, settings, ("cat", "dog", "owl"))
    monkeypatch.setattr(command, "load", lambda arguments: classifier)
    monkeypatch.chdir(tmp_path)
    return classifier


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["runs/mine"], ["mine.stablehlo", "mine.stablehlo.json"]),
        (["runs/mine/", "--format=safetensors"], ["mine.safetensors", "mine.safetensors.json"]),
        (["hf-hub:owner/net", "--format", "safetensors"], ["net.safetensors", "net.safetensors.json"]),
        (["runs/mine", "--format=safetensors", "--output=weights"], ["weights", "weights.json"]),
        (["runs/mine", "--output=mine-saved"], ["mine-saved"]),
        (["runs/mine", "--format=saved"], ["mine-saved"]),
    ],
)
def test_it_writes_and_says_where(arguments, files, capsys):
    assert cli.main(["export", *arguments]) == 0
    assert sorted(os.listdir()) == files
    out, err = capsys.readouterr()
    assert sorted({line.split(":")[0].split("/")[0] for line in out.splitlines()}) == files
    assert err == ""


@pytest.mark.parametrize("name", ["w.safetensors", "W.SafeTensors"])
def test_the_ending_says_the_format(name):
    assert cli.main(["export", "runs/mine", f"--output={name}"]) == 0
    assert json.loads(Path(f"{name}.json").read_text())["format"] == "safetensors"


def test_force_replaces(capsys):
    Path("net").write_text("mine")
    asked = ["export", "runs/mine", "--format=safetensors", "--output=net"]
    assert cli.main(asked) == 2
    assert "export: --output=net: exists; name another file, or replace it with --force" in capsys.readouterr().err
    assert Path("net").read_text() == "mine"
    assert cli.main([*asked, "--force"]) == 0
    assert Path("net").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format=onxx"], "export: --format=onxx: must be stablehlo, onnx, safetensors, saved; did you mean onnx?"),
        (
            ["--format=safetensors", "--output=net.onnx"],
            "export: --output=net.onnx: names a file of onnx, but the format is safetensors",
        ),
        (
            ["--output=net.tflite"],
            "export: --output=net.tflite: .tflite is the ending of no format here; end it in .stablehlo, .onnx, "
            ".safetensors or -saved, or give the --format",
        ),
        (["--output=nowhere/net"], "export: --output=nowhere/net: nowhere is no folder that can be written"),
        (["--output="], "export: --output='': must be the path of a file"),
        (["--format=saved", "--output=file"], "export: --output=file: is a file; name a folder"),
        (["--formt=onnx"], "export: --formt: no such flag; did you mean --format?"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_loaded(arguments, message, capsys, monkeypatch):
    Path("file").write_text("mine")
    monkeypatch.delattr(command, "load")
    assert cli.main(["export", "runs/mine", *arguments]) == 2
    assert capsys.readouterr().err == f"flax_resnets: {message}\n"
    assert os.listdir() == ["file"]
