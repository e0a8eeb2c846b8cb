"""Folders of Hugging Face transformers. `benchmarks.parity.layouts` loads what transformers itself writes."""

import contextlib
import dataclasses
import json
from functools import partial

import numpy as np
import pytest

from flax_resnets import ResNet, load_classifier
from flax_resnets.errors import UserError
from flax_resnets.inference.folder import _settings_of_timm
from flax_resnets.inference.transformers_folder import in_timms_words
from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import ResNet18
from flax_resnets.weights.layouts import LAYOUTS
from flax_resnets.weights.load import expected_shapes
from flax_resnets.weights.names import torch_order
from flax_resnets.weights.safetensors_format import write_safetensors

# The fields of microsoft/resnet-18's two files that matter.
CONFIG = {
    "architectures": ["ResNetForImageClassification"],
    "depths": [2, 2, 2, 2],
    "downsample_in_first_stage": False,
    "embedding_size": 64,
    "hidden_act": "relu",
    "hidden_sizes": [64, 128, 256, 512],
    "id2label": {"0": "tench, Tinca tinca", "1": "goldfish, Carassius auratus", "2": "cat"},
    "layer_type": "basic",
    "model_type": "resnet",
    "num_channels": 3,
    "transformers_version": "4.18.0.dev0",
}
IMAGES = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
BOTTLENECK = {"layer_type": "bottleneck", "hidden_sizes": [256, 512, 1024, 2048]}


def test_its_words_become_timms():
    assert in_timms_words(CONFIG, IMAGES) == {
        "architecture": "resnet18",
        "num_classes": 3,
        "label_names": list(CONFIG["id2label"].values()),
        "model_args": {},
        "pretrained_cfg": {
            "input_size": [3, 224, 224],
            "interpolation": "bicubic",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": IMAGES["image_mean"],
            "std": IMAGES["image_std"],
        },
    }


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"depths": [3, 4, 6, 3]}, "resnet34"),
        ({**BOTTLENECK, "depths": [3, 4, 6, 3]}, "resnet50"),
        ({**BOTTLENECK, "depths": [3, 4, 23, 3]}, "resnet101"),
        ({**BOTTLENECK, "depths": [3, 8, 36, 3]}, "resnet152"),
        ({**BOTTLENECK, "depths": [2, 2, 2, 2]}, "resnet26"),
    ],
)
def test_depths_and_blocks_name_the_network(changes, name):
    assert in_timms_words(CONFIG | changes, IMAGES)["architecture"] == name


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"size": {"shortest_edge": 224}}, {"crop_mode": "center", "crop_pct": 0.875}),
        ({"size": {"shortest_edge": 384}}, {"crop_mode": "squash", "crop_pct": 1.0, "input_size": [3, 384, 384]}),
        (
            {
                "feature_extractor_type": None,
                "image_processor_type": "ViTImageProcessor",
                "size": {"height": 224, "width": 224},
                "resample": 2,
            },
            {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bilinear"},
        ),
        ({"do_normalize": False}, {"mean": [0.0] * 3, "std": [1.0] * 3}),
    ],
)
def test_how_images_are_prepared(changes, expected):
    prepared = in_timms_words(CONFIG, IMAGES | changes)["pretrained_cfg"]
    assert {name: prepared[name] for name in expected} == expected


@pytest.mark.parametrize(("layer_type", "options"), [("bottleneck", {"stride_on": "1x1"}), ("basic", {})])
def test_the_stride_may_be_on_a_bottlenecks_1x1(layer_type, options):
    sizes = {"basic": [64, 128, 256, 512], "bottleneck": [256, 512, 1024, 2048]}[layer_type]
    changes = {"downsample_in_bottleneck": True, "layer_type": layer_type, "hidden_sizes": sizes}
    assert in_timms_words(CONFIG | changes, IMAGES)["model_args"] == options


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "vit"}, "model_type=vit: must be resnet"),
        ({"downsample_in_first_stage": True}, "downsample_in_first_stage=true: no network here halves"),
        ({"hidden_act": "selu"}, "hidden_act=selu: must be one of relu, gelu, silu, swish, mish"),
        ({"hidden_act": ["relu"]}, "hidden_act=['relu']: must be one of"),
        ({"depths": [1, 1]}, "layer_type=basic, depths=[1, 1], hidden_sizes=[64, 128, 256, 512]: no such network here"),
        ({"embedding_size": 32}, "no such network here"),
        ({"id2label": {"1": "a"}}, "id2label={'1': 'a'}: must be an object of all numbers from 0"),
        ({"id2label": ["a"]}, "id2label=['a']: must be an object"),
    ],
)
def test_another_network_is_refused(changes, said):
    with pytest.raises(UserError) as caught:
        in_timms_words(CONFIG | changes, IMAGES)
    assert str(caught.value).startswith(said) or said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"feature_extractor_type": "BitFeatureExtractor"},
            "image_processor_type=BitFeatureExtractor: must be ConvNext or ViTImageProcessor",
        ),
        ({"do_resize": False}, "do_resize=False: is not known here"),
        ({"do_center_crop": True}, "do_center_crop=True: is not known here"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor=0.00784"),
        ({"resample": 0}, "resample=0: must be 1, 2 or 3"),
        ({"resample": []}, "resample=[]: must be 1, 2 or 3"),
        ({"size": {"height": 224, "width": 256}}, "size={'height': 224, 'width': 256}: must be a number of pixels"),
    ],
)
def test_other_preparation_is_refused(changes, said):
    with pytest.raises(UserError) as caught:
        in_timms_words(CONFIG, IMAGES | changes)
    assert str(caught.value).startswith(said)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a narrow ResNet-18, which the registry then has in the place of the real one."""
    entry = dataclasses.replace(MODELS["resnet18"], constructor=partial(ResNet18, width=8))
    monkeypatch.setitem(MODELS, "resnet18", entry)
    narrow = {"embedding_size": 8, "hidden_sizes": [8, 16, 32, 64]}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | narrow))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(IMAGES | {"size": 56}))
    model, random, tensors = ResNet18(width=8, num_classes=3), np.random.default_rng(0), {}
    for path, shape in expected_shapes(model, (56, 56, 3)).items():
        name = LAYOUTS[1].name(model, path)
        value = torch_order(random.uniform(0.5, 1.0, shape).astype(np.float32))
        tensors[name if path[1] == "head" else f"resnet.{name}"] = value
    write_safetensors(tmp_path / "model.safetensors", tensors)
    return tmp_path


def test_a_folder_is_a_classifier(folder):
    classifier = load_classifier(folder)
    assert isinstance(classifier.model, ResNet)
    assert classifier.class_names == tuple(CONFIG["id2label"].values())
    settings = classifier.settings
    assert (settings.image_size, settings.shorter_side, settings.resize, settings.interpolation) == (
        56,
        64,
        "crop",
        "bicubic",
    )
    kernel = classifier.variables["params"]["stage2_block1"]["shortcut_conv"]["kernel"]
    assert kernel.shape == (1, 1, 8, 16)
    assert classifier.variables["params"]["head"]["bias"].shape == (3,)


def test_a_folder_that_lacks_something_is_told_in_a_line(folder):
    (folder / "preprocessor_config.json").rename(folder / "other.json")
    with pytest.raises(UserError, match=r"preprocessor_config\.json: no such file"):
        load_classifier(folder)
    (folder / "other.json").rename(folder / "preprocessor_config.json")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"layer_type": "bottleneck"}))
    with pytest.raises(UserError, match=r"config\.json: layer_type=bottleneck, .*no such network here"):
        load_classifier(folder)


STRANGE = [None, [], {}, "x" * 10_000, "\x1b[2J", -1, 0, 10**400, 1e400, float("nan"), True, [[]], {"0": {}}]


@pytest.mark.parametrize("value", STRANGE, ids=range(len(STRANGE)))
def test_strange_values_are_refused_in_a_line_or_mean_something(value):
    for config in [CONFIG | {name: value} for name in CONFIG]:
        with contextlib.suppress(UserError):
            _read(config, IMAGES)
    for images in [IMAGES | {name: value} for name in (*IMAGES, "rescale_factor")]:
        with contextlib.suppress(UserError):
            _read(CONFIG, images)


def _read(config, images):
    content = in_timms_words(config, images)
    try:
        _settings_of_timm(content, content["pretrained_cfg"])
    except (ValueError, TypeError, OverflowError) as error:  # which `read_folder` turns into one line
        raise UserError(str(error)) from None
