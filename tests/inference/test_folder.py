"""Saved folders: the same bits again, timm's words in config.json, and nothing of the user's overwritten."""

import json
import math
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from flax_resnets import Classifier, load_classifier, load_weights
from flax_resnets.errors import UserError
from flax_resnets.inference import folder as of_folder
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.registry import MODELS, list_models
from flax_resnets.training.network import make_model
from flax_resnets.weights import hub
from flax_resnets.weights.load import expected_shapes
from flax_resnets.weights.names import nested

NAMES = ["n01440764", "plain", "ünïcode, with a comma"]


def made(model: str = "resnet18", names=NAMES, **changes) -> Classifier:
    """A classifier with random weights; a ResNet is a narrow one."""
    entry = MODELS[model]
    width = 32 if model.endswith(("_gn", "_bit")) else 8  # whose norms have 32 groups
    narrow = {"width": width, "width_per_group": 64} if "resn" in model and "block" not in model else {}
    settings = {
        "model": model,
        "model_options": narrow,
        "dataset": "anything",
        "image_size": entry.input_size if entry.input_size < 64 else 64,
        "channels": entry.channels,
        "mean": (0.4,),
        "std": (0.2,),
        **changes,
    }
    settings = Settings(**settings)
    network = make_model(settings, len(names))
    shape = (settings.image_size, settings.image_size, settings.channels)
    random = np.random.default_rng(0)
    drawn = {
        path: random.uniform(0.1, 0.9, of).astype(np.float32) for path, of in expected_shapes(network, shape).items()
    }
    return Classifier(network, {"batch_stats": {}, **nested(drawn)}, settings, names)


def assert_same(one: Classifier, other: Classifier) -> None:
    jax.tree.map(np.testing.assert_array_equal, one.variables, other.variables)
    assert one.model == other.model
    assert one.settings == other.settings
    assert (one.class_names, one.words) == (other.class_names, other.words)


ONE_OF_EACH_KIND = (
    "resnet18",
    "resnet26d",
    "resnetv2_50",
    "resnext50_32x4d",
    "seresnet18",
    "ecaresnet26t",
    "resnetv2_50x1_bit",
    "resnet20_cifar",
    "lenet",
    "lenet_bn",
    "densenet",
    "resblock_net",
)


@pytest.mark.parametrize(
    "model",
    [name if name in ONE_OF_EACH_KIND else pytest.param(name, marks=pytest.mark.slow) for name in list_models()],
)
def test_every_network_comes_back_to_the_bit(model, tmp_path):
    size = {"alexnet": 67, "vgg11": 32, "vgg11_quarter": 32, "nin": 67}.get(model)
    saved = made(model, **({"image_size": size} if size else {}))
    saved.save(tmp_path / "saved")
    assert_same(load_classifier(tmp_path / "saved"), saved)


def test_logits_come_back_to_the_bit(trained, files, tmp_path):
    classifier = load_classifier(trained)
    classifier.save(tmp_path / "saved")
    again = load_classifier(tmp_path / "saved")
    np.testing.assert_array_equal(again.logits(files[:70]), classifier.logits(files[:70]))
    assert again.predict(files[0]) == classifier.predict(files[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"store_size": 80, "crop_pct": 0.8, "resize": "crop", "eval_flip": True, "loss": "bce"},
        {"precision": "bfloat16", "batch_norm": "ghost:4", "channels": 1},
        {"model_options": {"width": 8, "stem": "small", "activation": "silu", "frozen": ["stem"]}},
        {"names": []},
    ],
)
def test_what_timm_has_no_words_for_comes_back(changes, tmp_path):
    saved = made(**changes)
    saved.save(tmp_path / "saved")
    assert_same(load_classifier(tmp_path / "saved"), saved)


def config_of(classifier: Classifier, tmp_path: Path) -> dict:
    classifier.save(tmp_path / "saved")
    return json.loads((tmp_path / "saved" / "config.json").read_text())


def test_the_configuration_is_timms(tmp_path):
    config = config_of(made("resnet26d", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1), image_size=48), tmp_path)
    assert (config["architecture"], config["num_classes"], config["num_features"]) == ("resnet26d", 3, 256)
    cfg = config["pretrained_cfg"]
    assert cfg["input_size"] == [3, 48, 48]
    assert (cfg["mean"], cfg["std"]) == ([0.5, 0.4, 0.3], [0.2, 0.2, 0.1])
    assert (cfg["interpolation"], cfg["crop_mode"], cfg["crop_pct"]) == ("lanczos", "squash", 1.0)
    assert (cfg["first_conv"], cfg["classifier"]) == ("conv1.0", "fc")
    assert cfg["label_names"] == NAMES
    assert cfg["label_descriptions"] == {"n01440764": "tench"}
    assert config["flax_resnets"]["model"] == "resnet26d"
    assert sorted(os.listdir(tmp_path / "saved")) == ["config.json", "model.safetensors"]


def test_the_tensors_have_timms_names(tmp_path):
    classifier = made("resnet18")
    classifier.save(tmp_path / "saved")
    loaded = load_weights(classifier.model, tmp_path / "saved" / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, loaded, classifier.variables)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({"activation": "silu"}, {"act_layer": "silu"}),
        ({"output_stride": 8, "dropout": 0.5, "zero_init_last": True}, {"output_stride": 8}),
        # Words that timm refuses, because it would compute something else without them.
        ({"blur_pool": True}, {"blur_pool": True}),
        ({"shortcut": "pad"}, {"shortcut": "pad"}),
    ],
)
def test_options_that_timm_has_are_in_its_words(options, arguments, tmp_path):
    config = config_of(made(model_options={"width": 8, **options}), tmp_path)
    assert config["model_args"] == {"width": 8, **arguments}


@pytest.mark.parametrize(
    ("changes", "crop_pct", "mode"),
    [
        ({"resize": "crop"}, 1.0, "center"),
        ({"store_size": 80, "crop_pct": 0.8}, 0.8, "squash"),
        ({"store_size": 73, "crop_pct": 64 / 73, "resize": "crop"}, 64 / 73, "center"),
        ({"store_size": 96, "crop_pct": 1.0}, 1.0, "squash"),
        ({"shorter_side": 73, "resize": "crop"}, 64 / 73, "center"),
        ({"store_size": 96, "crop_pct": 0.875}, 64 / 73, "squash"),
    ],
)
def test_timm_resizes_to_the_same_size_before_its_crop(changes, crop_pct, mode, tmp_path):
    cfg = config_of(made(**changes), tmp_path)["pretrained_cfg"]
    assert cfg["crop_mode"] == mode
    assert cfg["crop_pct"] == pytest.approx(crop_pct)
    assert math.floor(64 / cfg["crop_pct"]) == round(64 / crop_pct)


def without_our_part(folder: Path, change=lambda config: None) -> Path:
    """The folder as timm would have made it."""
    config = json.loads((folder / "config.json").read_text())
    del config["flax_resnets"]
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_folder_that_timm_made(tmp_path):
    saved = made(
        "resnet26d", model_options={"activation": "silu"}, channels=1, resize="crop", store_size=64, shorter_side=80
    )
    saved.save(tmp_path / "saved")
    loaded = load_classifier(without_our_part(tmp_path / "saved"))
    assert_same(
        Classifier(loaded.model, loaded.variables, saved.settings, loaded.class_names),
        Classifier(saved.model, saved.variables, saved.settings, saved.class_names),
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 90, 70, 3)).astype(np.uint8)
    np.testing.assert_array_equal(loaded.logits(images), saved.logits(images))
    assert loaded.words[0] == "tench"


def test_timms_own_weights_have_imagenets_names(tmp_path, monkeypatch):
    """Their files name no classes; timm knows them from its tables, and so does this library."""
    names = [str(number) for number in range(1000)]
    made("resnet20_cifar", names, model_options={}).save(tmp_path / "saved")

    def as_on_the_hub(config):
        del config["pretrained_cfg"]["label_names"]
        config["pretrained_cfg"]["tag"] = "a1_in1k"

    loaded = load_classifier(without_our_part(tmp_path / "saved", as_on_the_hub))
    assert (loaded.class_names[0], loaded.words[0]) == ("n01440764", "tench")
    assert (loaded.class_names[999], loaded.words[999]) == ("n15075141", "toilet tissue, toilet paper, bathroom tissue")
    asked = []

    def download(source, name="model.safetensors"):
        asked.append(source)
        return tmp_path / "saved" / name

    monkeypatch.setattr(hub, "download", download)
    assert load_classifier("resnet50.a1_in1k").words == loaded.words
    assert asked == ["hf-hub:timm/resnet50.a1_in1k"] * 2


def test_what_timms_file_does_not_say(tmp_path):
    """timm's own defaults for the preprocessing, and numbers for the classes."""
    made("resnet18", model_options={}, image_size=224, channels=3).save(tmp_path / "saved")
    loaded = load_classifier(without_our_part(tmp_path / "saved", lambda config: config.pop("pretrained_cfg")))
    settings = loaded.settings
    assert (settings.interpolation, settings.resize, settings.image_size) == ("bicubic", "crop", 224)
    assert (settings.shorter_side, settings.store_size, settings.crop_pct) == (256, 224, 1.0)
    assert settings.mean == (0.485, 0.456, 0.406)
    assert loaded.class_names == ("0", "1", "2")
    assert load_classifier(tmp_path / "saved", class_names=["a", "b", "c"]).class_names == ("a", "b", "c")


def test_nothing_is_overwritten_unasked(tmp_path):
    first, second = made(), made(names=["a", "b"])
    first.save(tmp_path / "saved")
    (tmp_path / "saved" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"saved: exists; name another folder, or .* force=True"):
        second.save(tmp_path / "saved")
    assert_same(load_classifier(tmp_path / "saved"), first)
    second.save(tmp_path / "saved", force=True)
    assert_same(load_classifier(tmp_path / "saved"), second)
    assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    first.save(tmp_path / "empty")
    assert sorted(os.listdir(tmp_path)) == ["empty", "saved"]


def test_a_run_is_never_replaced(trained, tmp_path):
    """Its config.json would be lost, and it could not go on."""
    workdir = Path(shutil.copytree(trained, tmp_path / "run"))
    before = (workdir / "config.json").read_bytes()
    for force in (False, True):
        with pytest.raises(UserError, match=r"run: (exists|holds a run, which is not replaced); name another folder"):
            load_classifier(workdir).save(workdir, force=force)
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.parametrize("force", [False, True])
def test_a_save_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch, force):
    classifier = made()
    if force:
        classifier.save(tmp_path / "saved")
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(of_folder, "write_safetensors", full)
    with pytest.raises(UserError, match="saved: No space left on device"):
        classifier.save(tmp_path / "saved", force=force)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
    if force:
        assert_same(load_classifier(tmp_path / "saved"), classifier)


@pytest.mark.parametrize("folder", ["", None, 3, "file", "file/inside", "a\0b", "x" * 300])
def test_folders_that_cannot_be_written(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    with pytest.raises(UserError) as error:
        made().save(folder, force=True)
    assert len(str(error.value)) < 600
    assert os.listdir() == ["file"]


def test_a_saved_folder_has_one_checkpoint(tmp_path):
    made().save(tmp_path / "saved")
    for how in ({"checkpoint": "last"}, {"checkpoint": 3}, {"average": True}):
        with pytest.raises(UserError, match="is no run's workdir"):
            load_classifier(tmp_path / "saved", **how)


def test_a_folder_on_the_hub(tmp_path, monkeypatch):
    saved = made()
    saved.save(tmp_path / "saved")
    asked = []

    def download(source, name="model.safetensors"):
        asked.append((source, name))
        return tmp_path / "saved" / name

    monkeypatch.setattr("flax_resnets.weights.hub.download", download)
    assert_same(load_classifier("hf-hub:me/sneakers"), saved)
    assert asked == [("hf-hub:me/sneakers", "config.json"), ("hf-hub:me/sneakers", "model.safetensors")]
