"""Exported programs give the classifier's logits; files are whole, described, and never overwritten unasked."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnets import Classifier, load_classifier
from flax_resnets.errors import UserError
from flax_resnets.inference import export as module
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.registry import MODELS
from flax_resnets.training.network import make_model
from flax_resnets.weights.load import expected_shapes, load_exactly
from flax_resnets.weights.names import nested

NAMES = ("n01440764", "plain", "ünïcode, with a comma")


def made(model: str = "lenet_bn", names=NAMES, **changes) -> Classifier:
    """A classifier with random weights."""
    entry = MODELS[model]
    size = 16 if model == "resnet20_cifar" else entry.input_size
    fields = {"image_size": size, "channels": entry.channels, "mean": (0.4,), "std": (0.2,)}
    settings = Settings(**{"model": model, "dataset": "anything", **fields, **changes})
    network = make_model(settings, len(names))
    random = np.random.default_rng(0)
    drawn = {}
    for path, shape in expected_shapes(network, (size, size, settings.channels)).items():
        spread = 2 / np.sqrt(np.prod(shape[:-1])) if path[-1] == "kernel" else 0.2
        drawn[path] = (random.normal(0, spread, shape) + (path[-1] in ("scale", "var"))).astype(np.float32)
    return Classifier(network, {"batch_stats": {}, **nested(drawn)}, settings, names)


def images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Noise, of another brightness in each image."""
    noise = np.random.default_rng(count).uniform(size=(count, height, width, channels))
    return (noise * np.linspace(40, 256, count)[:, None, None, None]).astype(np.uint8)


def assert_close(logits, expected, limit: float = 1e-5) -> None:
    assert np.asarray(logits).dtype == np.float32
    assert np.shape(logits) == np.shape(expected)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max(), "the images differ"
    assert np.abs(logits - expected).max() < limit * np.abs(expected).max()


def stablehlo(path: Path):
    return jax.export.deserialize(bytearray(path.read_bytes()))


def onnx(path: Path):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return lambda x: session.run(None, {"images": x})[0]


CASES = {
    "flip": ("lenet_bn", {"eval_flip": True}),
    "stored larger": ("resnet20_cifar", {"store_size": 20}),
    "cropped": ("lenet", {"store_size": 40, "crop_pct": 0.7}),
}


@pytest.fixture(scope="module", params=CASES)
def classifier(request) -> Classifier:
    name, changes = CASES[request.param]
    return made(name, **changes)


@pytest.fixture(scope="module")
def expected(classifier) -> tuple[np.ndarray, np.ndarray]:
    """Images of the stored size, and their logits."""
    side = classifier.preprocess.stored_size
    x = images(3, side, side, classifier.settings.channels)
    return x, classifier.logits(x, batch_size=3)


def test_stablehlo_gives_the_logits_at_any_batch(classifier, expected, tmp_path):
    path, _ = classifier.export(tmp_path / "net")
    program, (x, logits) = stablehlo(path), expected
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert_close(program.call(x), logits)
    assert_close(program.call(x[:2]), logits[:2])


def test_onnx_gives_the_logits_at_any_batch(classifier, expected, tmp_path):
    pytest.importorskip("onnx")
    path, _ = classifier.export(tmp_path / "net", "onnx")
    program, (x, logits) = onnx(path), expected
    assert_close(program(x), logits)
    assert_close(program(x[:2]), logits[:2])


def test_stablehlo_squashes_images_of_any_size(tmp_path):
    classifier = made("lenet")
    path, _ = classifier.export(tmp_path / "net")
    x = images(2, 35, 50, 1)
    squashed = jax.image.resize(x.astype(np.float32), (2, 28, 28, 1), "bilinear", antialias=True)
    normalised = (np.asarray(squashed) / 255 - 0.4) / 0.2
    assert_close(stablehlo(path).call(x), classifier.model.apply(classifier.variables, normalised))


def test_a_crop_fixes_the_size(tmp_path):
    path, beside = made("lenet", store_size=40, crop_pct=0.7).export(tmp_path / "net")
    assert json.loads(beside.read_text())["input"]["shape"] == ["batch", 40, 40, 1]
    with pytest.raises(ValueError, match="40"):
        stablehlo(path).call(images(2, 28, 28, 1))


PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
READS_STABLEHLO, READS_ONNX, _ = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)


def test_a_process_that_has_only_jax_reads_stablehlo_as_the_page_says(tmp_path):
    classifier = made("lenet", store_size=40)
    classifier.export(tmp_path / "quickstart.stablehlo")
    Image.fromarray(images(1, 90, 70, 3)[0]).save(tmp_path / "shoe.png")
    block = "import sys\nsys.modules['flax_resnets'] = sys.modules['flax'] = None  # cannot be imported\n"
    program = f"{block}{READS_STABLEHLO}np.save('probabilities.npy', probabilities)\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    (predicted,) = classifier.predict(tmp_path / "shoe.png")
    assert done.stdout == f"{NAMES[predicted[0].index]}\n", done.stderr
    probabilities = np.load(tmp_path / "probabilities.npy")[0]
    assert len(predicted) == 3
    for each in predicted:
        assert probabilities[each.index] == pytest.approx(each.probability, rel=1e-4)


def test_onnxruntime_reads_onnx_as_the_page_says(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    classifier, x = made("lenet"), images(3, 28, 28, 1)
    classifier.export("sneakers.onnx", "onnx")
    names = {"images": x}
    exec(READS_ONNX, names)
    assert_close(names["logits"], classifier.logits(x, batch_size=3))


def test_the_file_beside_says_what_a_reader_needs(tmp_path):
    _, beside = made(eval_flip=True, loss="bce", store_size=32).export(tmp_path / "net")
    about = json.loads(beside.read_text())
    assert beside.name == "net.json"
    assert about["input"] == {"name": "images", "dtype": "uint8", "shape": ["batch", "height", "width", 1]}
    assert about["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 3]}
    assert (about["class_names"], about["class_words"]) == ([*NAMES], ["tench", *NAMES[1:]])
    assert about["probabilities"] == "sigmoid"
    before = {"exif_orientation": True, "white_background": False, "resize": "squash", "shorter_side": None, "size": 32}
    assert about["preprocessing"]["before"] == {**before, "interpolation": "lanczos"}
    folder = made("lenet", dataset="folder:photos")
    of_timm = made("lenet", resize="crop", shorter_side=40)
    described = module.describe(of_timm, "stablehlo")["preprocessing"]["before"]
    assert (described["shorter_side"], described["size"]) == (40, 28)
    assert module.describe(folder, "stablehlo")["preprocessing"]["before"]["white_background"] is True
    assert about["preprocessing"]["inside"]["eval_flip"] is True
    assert about["preprocessing"]["inside"]["resize_to"] == 28


def test_an_onnx_file_describes_itself(tmp_path):
    reader = pytest.importorskip("onnx")
    path, beside = made("lenet").export(tmp_path / "net.onnx", "onnx")
    model = reader.load(path)
    held = {each.key: json.loads(each.value) for each in model.metadata_props}
    assert held == json.loads(beside.read_text())
    (given,) = model.graph.input
    assert [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim] == ["batch", 28, 28, 1]


def test_a_network_without_classes_gives_features(tmp_path):
    classifier, x = made("lenet", names=()), images(2, 28, 28, 1)
    path, beside = classifier.export(tmp_path / "net")
    assert_close(stablehlo(path).call(x), classifier.embed(x, batch_size=2))
    output = json.loads(beside.read_text())["output"]
    assert output == {"name": "features", "dtype": "float32", "shape": ["batch", 84]}


def test_a_half_precision_is_kept_in_stablehlo_and_widened_in_onnx(tmp_path):
    pytest.importorskip("onnx")
    half, x = made("lenet_bn", precision="bfloat16"), images(2, 28, 28, 1)
    path, _ = half.export(tmp_path / "half")
    assert_close(stablehlo(path).call(x), half.logits(x, batch_size=2), 1e-2)
    assert "bf16" in stablehlo(path).mlir_module()
    path, _ = half.export(tmp_path / "wide", "onnx")
    assert_close(onnx(path)(x), made("lenet_bn").logits(x, batch_size=2))


@pytest.mark.parametrize("name", ["resnet20_cifar", "lenet"])
def test_safetensors_hold_the_weights_to_the_bit(name, tmp_path):
    classifier = made(name)
    path, beside = classifier.export(tmp_path / "net.safetensors", "safetensors")
    about = json.loads(beside.read_text())
    size, channels = classifier.settings.image_size, classifier.settings.channels
    loaded = load_exactly(classifier.model, path, (size, size, channels))
    for collection in ("params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, loaded.get(collection, {}), classifier.variables[collection])
    assert about["input"] == {"name": "images", "dtype": "float32", "shape": ["batch", channels, size, size]}
    assert about["preprocessing"]["before"]["mean"] == [0.4]


def test_saved_is_the_folder_of_save(tmp_path):
    classifier = made("lenet")
    folder = tmp_path / "folder"
    assert classifier.export(folder, "saved") == [folder / "config.json", folder / "model.safetensors"]
    again = load_classifier(tmp_path / "folder")
    jax.tree.map(np.testing.assert_array_equal, again.variables, classifier.variables)


@pytest.fixture
def quick(monkeypatch) -> Classifier:
    """A classifier whose export as StableHLO takes no time."""
    monkeypatch.setattr(module, "FORMATS", {**module.FORMATS, "stablehlo": module.Format("", _write)})
    return made("lenet")


def _write(classifier, path, description) -> None:
    path.write_bytes(b"new")


@pytest.mark.parametrize("taken", ["net", "net.json"])
def test_nothing_is_overwritten_unasked(quick, tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UserError, match=rf"{taken}: exists; name another file, or replace it with force=True"):
        quick.export(tmp_path / "net")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    quick.export(tmp_path / "net", force=True)
    assert (tmp_path / "net").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["net", "net.json"]


@pytest.mark.parametrize("place", ["the network", "what lies beside"])
def test_a_full_disk_leaves_what_was_there(quick, tmp_path, monkeypatch, place):
    (tmp_path / "net").write_text("mine")

    def full(path, *_, **__):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    if place == "the network":
        formats = {"stablehlo": module.Format("", lambda classifier, path, description: full(path))}
        monkeypatch.setattr(module, "FORMATS", formats)
    else:
        monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="net: No space left on device; name a file that can be written"):
        quick.export(tmp_path / "net", force=True)
    assert os.listdir(tmp_path) == ["net"]
    assert (tmp_path / "net").read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "path='': must be the path of a file"),
        (3, "path='3': must be the path of a file"),
        ("a\0b", "holds a NUL"),
        ("folder", "folder: is a folder; name a file"),
        ("nowhere/net", "nowhere is no folder that can be written"),
        ("file/net", "file is no folder that can be written"),
        ("x" * 300, "File name too long"),
        ("..", "is a folder; name a file"),
        ("pipe", "pipe: is no regular file; name another"),
    ],
)
def test_paths_that_cannot_be_written(quick, path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("mine")
    os.mkfifo("pipe")
    with pytest.raises(UserError) as error:
        quick.export(path, force=True)
    assert message in str(error.value)
    assert len(str(error.value)) < 600
    assert sorted(os.listdir()) == ["file", "folder", "pipe"]


def test_mistakes_in_the_format(tmp_path, monkeypatch):
    classifier = made("lenet")
    with pytest.raises(
        UserError, match=r"format=onxx: must be stablehlo, onnx, safetensors, saved; did you mean onnx\?"
    ):
        classifier.export(tmp_path / "net", "onxx")
    for wrong in (3, ["onnx"]):
        with pytest.raises(UserError, match=r"format=.*: must be stablehlo, onnx, safetensors, saved"):
            classifier.export(tmp_path / "net", wrong)
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    with pytest.raises(UserError, match=r"format=onnx: a file holds 2 GB at most, .* use saved"):
        classifier.export(tmp_path / "net", "onnx")
    assert os.listdir(tmp_path) == []


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    for format, package in (("onnx", "onnx"), ("stablehlo", "flatbuffers")):
        with pytest.raises(UserError, match=f"format={format}: needs a package .*: pip install {package}$"):
            made("lenet").export(tmp_path / "net", format)
