"""Finds the image, the label and the name among a dataset's TFDS features, and describes features in words."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnets.errors import UserError


def image_and_label(dataset: str, features: Any) -> tuple[Any, Any]:
    """The features `image` and `label` of a dataset.

    Raises:
        UserError: a feature is missing or of another kind. The message says which, what it is and what it must be.
    """
    kinds = _kinds()
    named: dict[str, Any] = dict(features.items()) if isinstance(features, kinds.FeaturesDict) else {}
    wanted = (
        ("image", kinds.Image, _is_image, "an Image of uint8 with 1 or 3 channels"),
        ("label", kinds.ClassLabel, _is_label, "a ClassLabel with at least 2 classes"),
    )
    problems = []
    for name, kind, is_right, right in wanted:
        if name not in named:
            there = sorted(key for key, each in _flat(named) if isinstance(each, kind)) or sorted(named)
            others = ", ".join(map(repr, there[:5])) + (", ..." if there[5:] else "") or _kind(features)
            problems.append(f"{name!r} is missing, must be {right} (there is {others[:150]})")
        elif not is_right(named[name]):
            problems.append(f"{name!r} is {_kind(named[name])}, must be {right}")
    if problems:
        raise UserError(f"dataset={dataset!r}: must have the features 'image' and 'label'; {'; '.join(problems)}")
    return named["image"], named["label"]


def _is_image(feature: Any) -> bool:
    kinds = _kinds()
    # TFDS's Video and Sequence hold images, but are not Image.
    return isinstance(feature, kinds.Image) and np.dtype(feature.np_dtype) == np.uint8 and feature.shape[2] in (1, 3)


def _is_label(feature: Any) -> bool:
    return isinstance(feature, _kinds().ClassLabel) and (feature.num_classes or 0) >= 2


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


def _flat(features: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields names and features. A feature inside another one has a name such as `outer/inner`."""
    for name, feature in features.items():
        yield name, feature
        inner = getattr(feature, "feature", feature)  # of a Sequence
        if hasattr(inner, "items"):
            yield from ((f"{name}/{key}", each) for key, each in _flat(dict(inner.items())))


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
