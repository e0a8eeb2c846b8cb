"""A folder of Hugging Face transformers, said in the words in which timm keeps its models.

`config.json` describes the network and its classes, `preprocessor_config.json` the images. `microsoft/resnet-18` to
`microsoft/resnet-152` on the hub are such folders. Only what computes the same here is accepted.
"""

from collections.abc import Mapping
from typing import Any

from flax_resnets.errors import UserError, short
from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import BasicBlock, BottleneckBlock, ResNet

PREPROCESSOR = "preprocessor_config.json"

_BLOCKS = {"basic": BasicBlock, "bottleneck": BottleneckBlock}
_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu", "mish": "mish"}
_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers

# What transformers takes where a file says nothing.
_DEFAULTS = {
    "num_channels": 3,
    "embedding_size": 64,
    "hidden_sizes": [256, 512, 1024, 2048],
    "depths": [3, 4, 6, 3],
    "layer_type": "bottleneck",
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
# By the name of the class without "ImageProcessor", "FeatureExtractor" and what follows.
_PROCESSORS = {
    "ConvNext": {"size": 384, "resample": 3, "crop_pct": 224 / 256, **_IMAGENET},
    "ViT": {"size": 224, "resample": 2, **_HALF},
}


def is_of_transformers(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is one of transformers."""
    return "architectures" in config or "transformers_version" in config


def in_timms_words(config: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
    """The content of timm's `config.json` for the same network.

    Args:
        config: the content of `config.json`.
        images: the content of `preprocessor_config.json`.

    Raises:
        UserError: it is another network, or its images are prepared in a way that is not known here.

    Example:
        >>> config = {"model_type": "resnet", "id2label": {"0": "cat", "1": "dog"}}
        >>> in_timms_words(config, {"image_processor_type": "ConvNextImageProcessor", "size": 224})["architecture"]
        'resnet50'
    """
    if config.get("model_type") != "resnet":
        raise UserError(f"model_type={short(config.get('model_type'))}: must be resnet")
    network = {name: config.get(name, value) for name, value in _DEFAULTS.items()}
    if network["downsample_in_first_stage"]:
        raise UserError("downsample_in_first_stage=true: no network here halves the image in its first stage")
    if network["hidden_act"] not in [*_ACTIVATIONS]:
        raise UserError(f"hidden_act={short(network['hidden_act'])}: must be one of {', '.join(_ACTIVATIONS)}")
    headless = config.get("architectures") == ["ResNetModel"]
    words = {} if headless else config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    try:
        names = [str(words[str(number)]) for number in range(len(words))]
    except (KeyError, TypeError):
        raise UserError(f"id2label={short(words)}: must be an object of all numbers from 0 and their names") from None
    activation = _ACTIVATIONS[network["hidden_act"]]
    options = {} if activation == "relu" else {"act_layer": activation}
    if network["downsample_in_bottleneck"] and network["layer_type"] == "bottleneck":
        options["stride_on"] = "1x1"
    return {
        "architecture": _architecture(network),
        "num_classes": len(names),
        "label_names": names,
        "model_args": options,
        "pretrained_cfg": _prepared(images, network["num_channels"]),
    }


def _architecture(network: Mapping[str, Any]) -> str:
    for name, entry in MODELS.items():
        model = entry.constructor()
        if not isinstance(model, ResNet) or model != ResNet(model.stage_sizes, model.block, width=model.width):
            continue  # a variant, which transformers does not have
        sizes = [model.width * 2**stage * model.block.expansion for stage in range(len(model.stage_sizes))]
        ours = (model.block, list(model.stage_sizes), sizes, model.width)
        theirs = (network["depths"], network["hidden_sizes"], network["embedding_size"])
        if ours == (_BLOCKS.get(str(network["layer_type"])), *theirs):
            return name
    what = ", ".join(f"{name}={short(network[name])}" for name in ("layer_type", "depths", "hidden_sizes"))
    raise UserError(f"{what}: no such network here; load_weights loads it into a ResNet of that shape")


def _prepared(images: Mapping[str, Any], channels: Any) -> dict[str, Any]:
    """The preprocessing in timm's words."""
    kind = str(images.get("image_processor_type") or images.get("feature_extractor_type") or "ConvNext")
    known = next((name for name in _PROCESSORS if kind.startswith(name)), None)
    if known is None:
        raise UserError(f"image_processor_type={short(kind)}: must be {' or '.join(_PROCESSORS)}ImageProcessor")
    given = {**_PROCESSORS[known], **images}
    for name, right in (("do_resize", True), ("do_rescale", True), ("do_center_crop", False)):
        if given.get(name, right) is not right:
            raise UserError(f"{name}={short(given[name])}: is not known here")
    factor = given.get("rescale_factor", 1 / 255)
    if not (isinstance(factor, float) and abs(factor * 255 - 1) < 1e-3):
        raise UserError(f"rescale_factor={short(factor)}: must be 1/255")
    if given["resample"] not in [*_FILTERS]:
        raise UserError(f"resample={short(given['resample'])}: must be 1, 2 or 3")
    side = _side(given["size"])
    cropped = known == "ConvNext" and side < 384  # a rule of transformers
    normalised = given.get("do_normalize", True)
    return {
        "input_size": [channels, side, side],
        "interpolation": _FILTERS[given["resample"]],
        "crop_pct": given["crop_pct"] if cropped else 1.0,
        "crop_mode": "center" if cropped else "squash",
        "mean": given["image_mean"] if normalised else [0.0] * 3,
        "std": given["image_std"] if normalised else [1.0] * 3,
    }


def _side(size: Any) -> int:
    match size:
        case int(side) | {"shortest_edge": int(side)}:
            return side
        case {"height": int(side), "width": int(width)} if side == width:
            return side
        case _:
            raise UserError(f"size={short(size)}: must be a number of pixels, or that of the shortest edge")
