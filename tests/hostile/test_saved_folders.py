"""Saved folders of strangers: config.json may say anything, the weights may be of another network."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from watching import listing, short

from flax_resnets import Classifier, load_classifier
from flax_resnets.errors import UserError
from flax_resnets.inference.preprocess import Settings
from flax_resnets.training.network import make_model

LONG = "x" * 10_000


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    settings = Settings(
        model="resnet18", model_options={"width": 8}, dataset="", image_size=32, channels=3, mean=(0.5,), std=(0.5,)
    )
    model = make_model(settings, 2)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    folder = tmp_path_factory.mktemp("saved") / "folder"
    Classifier(model, variables, settings, ["cat", "dog"]).save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "folder")


def refused(folder: Path, *mentioned: str) -> None:
    before = listing(folder.parent)
    with pytest.raises(UserError) as error:
        load_classifier(folder)
    line = str(error.value)
    assert line.isprintable()
    assert len(line) < 600
    for each in mentioned:
        assert each in line
    assert listing(folder.parent) == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"architecture":' * 100_000,
        b'{"architecture": ' + b"9" * 100_000 + b"}",
        b" " * 20_000_001,
        b'{"architecture": "resnet18", "num_classes": NaN}',
    ],
    ids=short,
)
def test_a_configuration_that_is_none(folder, content):
    (folder / "config.json").write_bytes(content)
    refused(folder, "config.json: ")


CHANGES = [
    ({"architecture": "resnet19"}, "architecture"),
    ({"architecture": "../../etc/passwd"}, "architecture"),
    ({"architecture": LONG}, "architecture"),
    ({"architecture": "a\x1b[2J\nb"}, "architecture"),
    ({"architecture": None}, "architecture"),
    ({"architecture": ["resnet18"]}, "architecture"),
    ({"architecture": "resnet34"}, "architecture"),  # the two parts say different things
    ({"num_classes": -1}, "num_classes=-1"),
    ({"num_classes": "2"}, "num_classes"),
    ({"num_classes": True}, "num_classes"),
    ({"num_classes": 10**30}, "num_classes"),
    ({"num_classes": 3}, "label_names: has 2 names, num_classes is 3"),
    ({"pretrained_cfg": None}, "pretrained_cfg"),
    ({"pretrained_cfg": LONG}, "pretrained_cfg"),
    ({"label_names": "ab"}, "label_names"),
    ({"label_names": [1, 2]}, "label_names"),
    ({"label_names": ["cat"]}, "label_names: has 1 names"),
    ({"label_descriptions": 3}, "label_descriptions"),
    ({"label_descriptions": {"cat": 3}}, "label_descriptions"),
    ({"flax_resnets": None}, "flax_resnets"),
    ({"flax_resnets": []}, "flax_resnets"),
    ({"flax_resnets": {}}, "flax_resnets: channels, dataset, image_size, mean, model, std is missing"),
]

OURS = [
    ({"model": "resnet19"}, "architecture"),
    ({"model": 3}, "model=3"),
    ({"image_size": 0}, "image_size=0"),
    ({"image_size": 10**9}, "image_size"),
    ({"image_size": "32"}, "image_size"),
    ({"store_size": 10**9}, "store_size"),
    ({"channels": 2}, "channels=2"),
    ({"mean": [0.5] * 4, "std": [0.5] * 4}, "mean"),
    ({"mean": [float("nan")]}, "mean"),
    ({"std": [0]}, "std"),
    ({"std": {}}, "std"),
    ({"model_options": {"stage_sizes": [10**6]}}, "stage_sizes"),
    ({"model_options": {"width": 10**9}}, "width"),
    ({"model_options": {"block": "os.system"}}, "block"),
    ({"model_options": {"__class__": "x"}}, "__class__"),
    ({"model_options": {"dtype": "float64"}}, "dtype"),
    ({"model_options": []}, "model_options"),
    ({"precision": "float64"}, "precision"),
    ({"batch_norm": "folded"}, "batch_norm"),
    ({"batch_norm": LONG}, "batch_norm"),
    ({"interpolation": "nearest"}, "interpolation"),
    ({"data_dir": "/etc"}, "data_dir"),
    ({"exec": "import os", "version": LONG}, "exec"),
    ({LONG: 1}, "knows no such field"),
]

TIMMS = [
    ({"input_size": [3, 32]}, "input_size"),
    ({"input_size": [3, 32, 64]}, "input_size"),
    ({"input_size": [3, -1, -1]}, "image_size"),
    ({"input_size": [3, True, True]}, "image_size"),
    ({"input_size": None}, "input_size"),
    ({"crop_pct": 0}, "crop_pct"),
    ({"crop_pct": 1e-9}, "crop_pct"),
    ({"crop_pct": 1e-320}, "crop_pct"),
    ({"crop_pct": 0.01, "input_size": [3, 8000, 8000]}, "store_size"),
    ({"crop_pct": "1"}, "crop_pct"),
    ({"crop_mode": "border"}, "crop_mode"),
    ({"interpolation": "random"}, "interpolation"),
    ({"mean": "0.5"}, "mean"),
]


def change(folder: Path, part: str | None, changes: dict) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(changes)
    if part in ("pretrained_cfg", "model_args"):
        del config["flax_resnets"]
        config["model_args"].pop("width")
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(("changes", "mentioned"), CHANGES, ids=short)
def test_values_of_the_whole(folder, changes, mentioned):
    change(folder, None, changes)
    refused(folder, mentioned)


@pytest.mark.parametrize(("changes", "mentioned"), OURS, ids=short)
def test_values_of_our_part(folder, changes, mentioned):
    change(folder, "flax_resnets", changes)
    refused(folder, mentioned)


@pytest.mark.parametrize(("changes", "mentioned"), TIMMS, ids=short)
def test_values_of_timms_part(folder, changes, mentioned):
    change(folder, "pretrained_cfg", changes)
    refused(folder, mentioned)


@pytest.mark.parametrize(
    "arguments", [{"stem": "small"}, {"in_chans": 10**9}, {"in_chans": "3"}, {"act_layer": "os.system"}, {LONG: LONG}]
)
def test_values_of_timms_arguments(folder, arguments):
    change(folder, "model_args", arguments)
    refused(folder)


def test_weights_of_another_number_of_classes(folder):
    change(folder, None, {"num_classes": 3, "label_names": ["a", "b", "c"]})
    refused(folder, "does not fit the model", "fc.bias")


def test_weights_of_other_channels(folder):
    change(folder, "flax_resnets", {"channels": 1})
    refused(folder, "does not fit the model", "conv1.weight")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, (2**60).to_bytes(8, "little") + b"{}"])
def test_weights_that_are_no_weights(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors")


def test_files_that_are_missing_or_no_files(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "model.safetensors: no such file")
    os.mkfifo(folder / "model.safetensors")
    refused(folder, "model.safetensors")
    (folder / "config.json").unlink()
    refused(folder, "config.json: no such file")
    (folder / "config.json").symlink_to("/dev/zero")
    refused(folder, "config.json: is no file")


def test_only_two_files_are_read(folder):
    wanted = load_classifier(folder)
    for name in ("pytorch_model.bin", "model.py", "config.py", "data.json"):
        (folder / name).write_bytes(b"import os; os.abort()")
    found = load_classifier(folder)
    jax.tree.map(np.testing.assert_array_equal, found.variables, wanted.variables)
