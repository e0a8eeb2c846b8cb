"""Finds the image, the label and the name among a dataset's TFDS features, and describes features in words."""

import contextlib
import functools
import json
import operator
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.errors import UserError


class Labelled(NamedTuple):
    """The features of a dataset that a run uses.

    Attributes:
        image: TFDS's feature of the image.
        image_path: the keys that lead to the image in an example; several if it is inside another feature.
        label_path: the same for the label.
        class_names: names of the classes; numbers if they have no names.
        multilabel: whether the label is a Sequence: any number of classes for an image.
        chosen_keys: describes the configuration's choice of features; empty for the usual ones.
    """

    image: Any
    image_path: tuple[str, ...]
    label_path: tuple[str, ...]
    class_names: tuple[str, ...]
    multilabel: bool
    chosen_keys: str


def image_and_label(config: DataConfig, features: Any) -> Labelled:
    """Finds the features that the configuration chooses: by default `image` and `label`.

    Raises:
        UserError: a feature is missing or of another kind. The message says which, what it is and what it must be.
    """
    kinds = _kinds()
    flat = dict(_flat(features)) if isinstance(features, kinds.FeaturesDict) else {}
    image_key, label_key = config.image_key or "image", config.label_key or "label"
    wanted = (
        ("image_key", image_key, kinds.Image, _is_image, "an Image of uint8 with 1 or 3 channels"),
        (
            "label_key",
            label_key,
            kinds.ClassLabel,
            _is_label,
            "a ClassLabel with at least 2 classes, or a Sequence of it",
        ),
    )
    problems = []
    for field, key, kind, is_right, right in wanted:
        _, feature, many = flat.get(key, ((), None, False))
        if feature is None:
            of_kind = {
                each: inside_one or other is not _element(other)  # so that those of one class come first
                for each, (_, other, inside_one) in flat.items()
                if isinstance(_element(other), kind)
            }
            found = sorted(of_kind, key=lambda each: (of_kind[each], each)) or sorted(flat)
            others = ", ".join(map(repr, found[:5])) + (", ..." if found[5:] else "") or _kind(features)
            usable = next((each for each in found if is_right(*flat[each][1:], config)), None)
            hint = f", --config.{field}={usable} takes that one" if usable else ""
            problems.append(f"{key!r} is missing, must be {right} (there is {others[:150]}){hint}")
        elif not is_right(feature, many, config):
            is_number = _is_number(_element(feature))
            number = "; --config.num_classes=N allows numbers from 0 to N-1" if is_number else ""
            where = " inside a Sequence" if many else ""
            problems.append(f"{key!r} is {_kind(feature)}{where}, must be {right}{number}")
    if problems:
        usual = (image_key, label_key) == ("image", "label")
        features_named = "features 'image' and 'label'" if usual else f"features {image_key!r} and {label_key!r}"
        raise UserError(f"dataset={config.dataset!r}: must have the {features_named}; {'; '.join(problems)}")
    image_path, image, _ = flat[image_key]
    label_path, label, many = flat[label_key]
    chosen = "" if (image_key, label_key) == ("image", "label") else f"{image_key!r} {label_key!r} "
    class_names = _class_names(_element(label), config)
    return Labelled(image, image_path, label_path, class_names, many or label is not _element(label), chosen)


def _class_names(label: Any, config: DataConfig) -> tuple[str, ...]:
    names = label.names if isinstance(label, _kinds().ClassLabel) and label.num_classes else None
    return tuple(names or map(str, range(config.num_classes or 0)))


def _is_image(feature: Any, many: bool, config: DataConfig) -> bool:
    kinds = _kinds()
    if many:  # TFDS's Video and Sequence hold images, but are not Image
        return False
    return isinstance(feature, kinds.Image) and np.dtype(feature.np_dtype) == np.uint8 and feature.shape[2] in (1, 3)


def _is_label(feature: Any, many: bool, config: DataConfig) -> bool:
    label = _element(feature)
    if many and label is not feature:  # a Sequence for each element of another one
        return False
    if isinstance(label, _kinds().ClassLabel) and label.num_classes:
        return label.num_classes >= 2
    return config.num_classes is not None and _is_number(label)


def _is_number(feature: Any) -> bool:
    """Whether a feature is a whole number that does not say how many classes there are."""
    kinds = _kinds()
    if isinstance(feature, kinds.ClassLabel):
        return not feature.num_classes
    is_scalar = isinstance(feature, kinds.Tensor) and not isinstance(feature, kinds.Text) and feature.shape == ()
    return is_scalar and np.issubdtype(feature.np_dtype, np.integer)


def _kind(feature: Any) -> str:
    """Describes a feature in TFDS's words."""
    kinds = _kinds()
    kind = type(feature).__name__
    if isinstance(feature, kinds.ClassLabel):
        return f"{kind} with {feature.num_classes or 'no'} class{'' if feature.num_classes == 1 else 'es'}"
    if isinstance(feature, kinds.Image):
        channels = f"{feature.shape[2] or 'any number of'} channel{'' if feature.shape[2] == 1 else 's'}"
        return f"{kind} of {np.dtype(feature.np_dtype).name} with {channels}"
    if isinstance(feature, kinds.FeaturesDict):
        return f"{kind} of {', '.join(map(repr, list(feature)[:5]))}"
    if isinstance(feature, kinds.Sequence):
        return f"{kind} of {_kind(feature.feature)}"
    if isinstance(feature, kinds.Text) or not isinstance(feature, kinds.Tensor):
        return kind
    return f"{kind} of {np.dtype(feature.np_dtype).name}" + (f", shape {feature.shape}" if feature.shape else "")


def _element(feature: Any) -> Any:
    """What a Sequence holds; any other feature itself."""
    return feature.feature if isinstance(feature, _kinds().Sequence) else feature


def _flat(
    features: Any, outer: tuple[str, ...] = (), many: bool = False
) -> Iterator[tuple[str, tuple[tuple[str, ...], Any, bool]]]:
    """Yields each feature's name, with the keys that lead to it, the feature itself, and whether it is in a Sequence.

    A feature inside another one has a name such as `outer/inner`. In a Sequence, an example has an array of its values.
    """
    for key, feature in features.items():
        path = (*outer, key)
        yield key, (path, feature, many)
        inner = _element(feature)
        if isinstance(inner, _kinds().FeaturesDict):
            for name, found in _flat(inner, path, many or inner is not feature):
                yield f"{key}/{name}", found


def inside(example: Any, path: tuple[str, ...]) -> Any:
    """The value to which the keys lead."""
    return functools.reduce(operator.getitem, path, example)


def skipping_images(features: Any) -> dict[str, Any]:
    """TFDS's decoders that leave images as they are stored."""
    import tensorflow_datasets as tfds

    decoders = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.Image):
            decoders[key] = tfds.decode.SkipDecoding()
        elif isinstance(feature, tfds.features.FeaturesDict) and (inner := skipping_images(feature)):
            decoders[key] = inner
    return decoders


def _kinds() -> Any:
    """TFDS's classes of features, typed as Any, because the type checker cannot follow their decorators."""
    import tensorflow_datasets as tfds

    return tfds.features


def name_key(features: Any) -> str | None:
    """The name of the feature by which a person can identify an image (a file name or an id); None if there is none."""
    import tensorflow_datasets as tfds

    scalars = [key for key, each in features.items() if isinstance(each, tfds.features.Tensor) and each.shape == ()]
    for pattern in (r"(.*[/_])?file_?(name|path)", r"(image[/_])?(name|path)", r"((image|file|example|sample)[/_])?id"):
        for key in scalars:
            if re.fullmatch(pattern, key):
                return key
    return None


def features_with_tensorflow(name: str, data_dir: Path | None) -> str:
    """Names the features of a prepared dataset for which TFDS needs TensorFlow, if its features.json has them."""
    found = []
    for path in sorted(data_dir.glob(f"{name}/**/features.json")) if data_dir else []:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads(path.read_text())
            features = (content.get("featuresDict") or content["content"])["features"]
            for key, feature in features.items():
                kind = str(feature.get("pythonClassName") or feature.get("type")).rpartition(".")[2]
                if kind in ("Audio", "Video"):
                    found.append(f"{key!r} is {kind}")
    return ", ".join(dict.fromkeys(found)) or "a feature is Video or Audio"
