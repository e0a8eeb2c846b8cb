"""A saved folder: `config.json` and `model.safetensors`, in the form in which timm keeps its models.

timm itself loads the folder if it has the network: `timm.create_model("local-dir:FOLDER", pretrained=True)`. Its words
for the preprocessing come closest to ours; what it has no words for is kept under the key `flax_resnets`, which timm
ignores, so that a classifier that is loaded here again computes the same bits. Where timm has no such option of a
network, `model_args` has it under our name, and timm refuses the folder instead of computing something else.

A network that timm trained sees here the same pixels as there: its shorter side is resized and the centre cropped, in
whole pixels. How far timm's preprocessing is from that of a network trained here, `benchmarks.parity.timm_reads_ours`
measures. With `resize="squash"` and one resize, both see the same to 3e-5 levels of 255. With `crop`, timm resizes
before it crops and rounds to whole pixels: on patterns of 64 pixels the mean difference was 0.7 levels, the largest 8.
A second resize on the device, which timm lacks, makes up to 3 levels on average.

Only these two files are read, and nothing in them is executed.
"""

import dataclasses
import itertools
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from flax import linen as nn

from flax_resnets import __version__
from flax_resnets.errors import UserError, short
from flax_resnets.fields import field_types
from flax_resnets.inference.class_names import IMAGENET
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import ResNet
from flax_resnets.training.network import make_model
from flax_resnets.weights.export import export_state_dict
from flax_resnets.weights.load import load_exactly
from flax_resnets.weights.names import first_conv, head_names, leaves, torch_name, torch_order
from flax_resnets.weights.safetensors_format import write_safetensors

if TYPE_CHECKING:
    from flax_resnets.inference.classifier import Classifier

CONFIG, WEIGHTS = "config.json", "model.safetensors"

_OURS = "flax_resnets"
# Fields of the machine that trained, which change no number.
_NOT_SAVED = ("data_dir", "images", "broken_images")

# timm's words for options of networks. timm's other networks have the same options as ours of the same name.
_TIMMS_WORDS = {"activation": "act_layer", "output_stride": "output_stride", "global_pool": "global_pool"}
# And one that timm has not, which the folders of transformers need.
_TIMMS_WORDS |= {"stride_on": "stride_on"}
# Options that change nothing in a trained network.
_OF_TRAINING = ("zero_init_last", "stochastic_depth", "dropout", "remat", "frozen", "initializer")
_OF_TRAINING_IN_TIMM = ("drop_rate", "drop_path_rate", "num_classes", "img_size")

# What timm's `PretrainedCfg` says where a file says nothing.
_TIMMS_DEFAULTS = {
    "input_size": [3, 224, 224],
    "interpolation": "bicubic",
    "crop_pct": 0.875,
    "crop_mode": "center",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def write_folder(classifier: "Classifier", folder: Path, force: bool) -> None:
    """See `Classifier.save`."""
    tensors = tensors_of(classifier)
    config = json.dumps(_config(classifier), indent=2, allow_nan=False) + "\n"
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(f"{folder}: is a file; name a folder")
        if os.path.lexists(folder / "metrics.jsonl"):  # whose config.json would be lost
            raise UserError(f"{folder}: holds a run, which is not replaced; name another folder")
        if folder.is_dir() and os.listdir(folder) and not force:
            raise UserError(f"{folder}: exists; name another folder, or replace what is saved in it with force=True")
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = (folder.with_name(f".{folder.name}.{number}.tmp") for number in itertools.count())
        temporary = next(path for path in beside if not os.path.lexists(path))
        temporary.mkdir()
        try:
            write_safetensors(temporary / WEIGHTS, tensors)
            (temporary / CONFIG).write_text(config, encoding="utf-8")
            if not (folder.is_dir() and os.listdir(folder)):
                os.rename(temporary, folder)
                return
            # Without its config.json the folder is refused until both files are new. Other files in it stay.
            (folder / CONFIG).unlink(missing_ok=True)
            for name in (WEIGHTS, CONFIG):
                os.replace(temporary / name, folder / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{folder}: {reason}; name a folder that can be written") from None


def read_folder(
    source: str, config: Path, weights: Path, content: Mapping[str, Any], names: Sequence[str] | None
) -> "Classifier":
    """The classifier in a saved folder.

    Args:
        source: what messages call it.
        config: path of its `config.json`, for messages.
        weights: path of its `model.safetensors`.
        content: what `config.json` holds; anybody may have written it.
        names: of the classes; None for those in `config.json`.

    Raises:
        UserError: the files are not what they should be, or do not fit each other.
    """
    from flax_resnets.inference.classifier import Classifier

    try:
        theirs = content.get("pretrained_cfg", content)
        if not isinstance(theirs, Mapping):
            raise UserError(f"pretrained_cfg={short(theirs)}: must be an object")
        settings = _our_settings(content) if _OURS in content else _settings_of_timm(content, theirs)
        num_classes = content.get("num_classes", theirs.get("num_classes", 1000))
        if type(num_classes) is not int or not 0 <= num_classes <= 2**31 - 1:
            raise UserError(f"num_classes={short(num_classes)}: must be a whole number from 0 up")
        found, words = _labels(content, theirs, num_classes)
        model = make_model(settings, num_classes)
    except (ValueError, TypeError, OverflowError) as error:  # a UserError is a ValueError
        raise UserError(f"{config}: {str(error)[:400]}") from None
    if names is not None and len(names) != num_classes:
        raise UserError(f"class_names: has {len(names)} names, {source} has {num_classes} classes")
    size = settings.image_size
    try:
        variables = load_exactly(model, weights, (size, size, settings.channels))
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        text = str(error).partition("\n")[0]
        raise UserError(text if len(text) < 550 else f"{text[:550]} ...") from None
    return Classifier(model, variables, settings, found if names is None else names, source=source, words=words)


def tensors_of(classifier: "Classifier") -> dict[str, np.ndarray]:
    """The weights as torch orders them: a ResNet's under timm's names, those of other networks under ours."""
    if isinstance(classifier.model, ResNet):
        return export_state_dict(classifier.model, classifier.variables)
    return {".".join(path): torch_order(np.asarray(leaf, np.float32)) for path, leaf in leaves(classifier.variables)}


def _config(classifier: "Classifier") -> dict[str, Any]:
    settings, names = classifier.settings, list(classifier.class_names)
    words = {name: word for name, word in zip(names, classifier.words, strict=True) if name != word}
    ours = {name: value for name, value in dataclasses.asdict(settings).items() if name not in _NOT_SAVED}
    pretrained = {**_data_of_timm(settings), "num_classes": len(names), **_layers(classifier.model, settings)}
    if names:
        pretrained |= {"label_names": names} | ({"label_descriptions": words} if words else {})
    return {
        "architecture": settings.model,
        "num_classes": len(names),
        "num_features": classifier.num_features,
        "global_pool": settings.model_options.get("global_pool", "avg"),
        "model_args": _model_args(settings),
        "pretrained_cfg": pretrained,
        _OURS: {"version": __version__, **ours},
    }


def _layers(model: nn.Module, settings: Settings) -> dict[str, Any]:
    """How timm calls a network's first and last layer."""
    if not isinstance(model, ResNet):
        return {}
    first = torch_name(model, first_conv(model))
    return {"first_conv": first.removesuffix(".weight"), "classifier": head_names(model)[0].removesuffix(".weight")}


def options_that_count(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a network that change what it computes once it is trained."""
    return {name: value for name, value in options.items() if name not in _OF_TRAINING}


def _model_args(settings: Settings) -> dict[str, Any]:
    options = options_that_count(settings.model_options)
    channels = {} if settings.channels == 3 else {"in_chans": settings.channels}
    return channels | {_TIMMS_WORDS.get(name, name): value for name, value in options.items()}


def _data_of_timm(settings: Settings) -> dict[str, Any]:
    """The preprocessing in timm's words.

    timm resizes once, from the image to `input_size / crop_pct`, and crops. We do too, unless `store_size` times
    `crop_pct` is another size than `image_size`: then our second resize happens on the device.
    """
    size, channels = settings.image_size, settings.channels
    stored = settings.store_size or size
    kept = max(1, round(settings.crop_pct * stored))
    if settings.shorter_side is not None:
        stored = settings.shorter_side
    whole = max(size, round(size * stored / kept))
    crop_pct = size / whole
    while math.floor(size / crop_pct) < whole:  # timm rounds down
        crop_pct = math.nextafter(crop_pct, 0)
    mean, std = ([*each] * (channels // len(each)) for each in (settings.mean, settings.std))
    return {
        "input_size": [channels, size, size],
        "interpolation": settings.interpolation,
        "crop_pct": crop_pct,
        "crop_mode": {"squash": "squash", "crop": "center"}[settings.resize],
        "mean": mean,
        "std": std,
    }


def _our_settings(content: Mapping[str, Any]) -> Settings:
    ours = content[_OURS]
    if not isinstance(ours, Mapping):
        raise UserError(f"{_OURS}={short(ours)}: must be an object")
    fields = {name: value for name, value in ours.items() if name != "version"}
    for name in fields:
        if name not in field_types(Settings) or name in _NOT_SAVED:
            raise UserError(
                f"{_OURS}.{short(name)}: version {__version__} knows no such field; "
                f"version {short(ours.get('version'))} wrote it"
            )
    if missing := {"model", "dataset", "image_size", "channels", "mean", "std"} - fields.keys():
        raise UserError(f"{_OURS}: {', '.join(sorted(missing))} is missing")
    settings = Settings(**cast(Any, fields))
    if content.get("architecture") != settings.model:
        raise UserError(f"architecture={short(content.get('architecture'))}: {_OURS}.model is {settings.model[:100]}")
    return _checked(settings)


def _settings_of_timm(content: Mapping[str, Any], theirs: Mapping[str, Any]) -> Settings:
    """The settings of a folder that timm made."""
    data = {name: theirs.get(name, value) for name, value in _TIMMS_DEFAULTS.items()}
    arguments = content.get("model_args") or {}
    if not isinstance(arguments, Mapping):
        raise UserError(f"model_args={short(arguments)}: must be an object")
    options = {}
    ours = {word: name for name, word in _TIMMS_WORDS.items()}
    for word, value in arguments.items():
        if word in ours:
            options[ours[word]] = value
        elif word == "in_chans":
            data["input_size"] = [value, *data["input_size"][1:]]
        elif word not in _OF_TRAINING_IN_TIMM:
            raise UserError(f"model_args.{short(word)}={short(value)}: is not known here")
    match data["input_size"]:
        case [int(channels), int(height), int(width)] if height == width:
            pass
        case other:
            raise UserError(f"input_size={short(other)}: must be channels, height and width, of a square image")
    resize = {"squash": "squash", "center": "crop"}.get(str(data["crop_mode"]))
    if resize is None:
        raise UserError(f"crop_mode={short(data['crop_mode'])}: must be center or squash")
    crop_pct = data["crop_pct"]
    if type(crop_pct) not in (int, float) or not 0.01 <= crop_pct <= 1:
        raise UserError(f"crop_pct={short(crop_pct)}: must be from 0.01 to 1")
    settings = Settings(
        model=cast(str, content.get("architecture")),
        model_options=options,
        dataset="",
        image_size=width,
        channels=channels,
        resize=cast(Any, resize),
        **_resized_by_timm(resize, width, crop_pct),
        interpolation=cast(Any, data["interpolation"]),
        mean=cast(Any, data["mean"]),
        std=cast(Any, data["std"]),
    )
    return _checked(settings)


def _resized_by_timm(resize: str, side: int, crop_pct: float) -> dict[str, Any]:
    """Timm resizes to `side / crop_pct` and crops: the whole image's square, or the centre of the shorter side's."""
    whole = math.floor(side / crop_pct)
    if resize == "crop":
        return {"store_size": side, "shorter_side": whole}
    return {"store_size": whole, "crop_pct": side / whole if whole > 0 else 1.0}


def _checked(settings: Settings) -> Settings:
    if settings.model not in MODELS:
        raise UserError(f"architecture={settings.model[:100]}: no such network; flax-resnets models lists them")
    return settings


def _labels(
    content: Mapping[str, Any], theirs: Mapping[str, Any], num_classes: int
) -> tuple[Sequence[str], dict[str, str]]:
    """The names of the classes, or their numbers if the file has no names; and words for some of the names."""
    names = content.get("label_names", theirs.get("label_names"))
    words = content.get("label_descriptions", theirs.get("label_descriptions"))
    if names is None and num_classes == len(IMAGENET) and str(theirs.get("tag", "")).endswith("in1k"):
        names = list(IMAGENET)  # of timm's own weights, whose files name no classes
    if names is None:
        if num_classes > 2**20:
            raise UserError(f"num_classes={num_classes}: has no label_names, and is too many to number")
        names = [str(number) for number in range(num_classes)]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"label_names={short(names)}: must be a list of names")
    if len(names) != num_classes:
        raise UserError(f"label_names: has {len(names)} names, num_classes is {num_classes}")
    if isinstance(words, list) and len(words) == len(names):
        words = dict(zip(names, words, strict=True))
    words = {} if words is None else words
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise UserError(f"label_descriptions={short(words)}: must be an object of names and descriptions")
    return names, words
