"""Contexts that change TFDS inside a `with` block, and restore it afterwards.

If an upgrade of TFDS renames or moves something that they change, a test in tests/data/tfds/test_patches.py fails.
"""

import contextlib
import glob
import io
import logging
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from flax_resnets.errors import UserError


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Suppresses logs and output of TFDS and its downloader, since the user cannot act on any of it."""
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def no_network_for_metadata() -> Iterator[None]:
    """Makes TFDS build a builder without asking Google's storage for metadata that the builder already has.

    Each such request would also leave an empty temporary directory.
    """
    import tensorflow_datasets as tfds

    with mock.patch.object(tfds.core.DatasetInfo, "initialize_from_bucket"):
        yield


@contextlib.contextmanager
def only_features_of_tfds() -> Iterator[None]:
    """Allows only TFDS's own features in features.json. Without this, TFDS imports any module that the file names."""
    import tensorflow_datasets as tfds

    with mock.patch.object(tfds.features.FeatureConnector, "cls_from_name", _feature_of_tfds):
        yield


def _feature_of_tfds(name: str) -> type:
    """The class of a feature that features.json names, which must be one of TFDS's own."""
    from tensorflow_datasets.core.features.feature import FeatureConnector

    known = FeatureConnector._registered_features
    if name not in known:
        raise UserError(f"features.json names {name!r}, which is no feature of TFDS; prepare the dataset again")
    return known[name]


@contextlib.contextmanager
def few_retries() -> Iterator[None]:
    """Makes a download fail after four tries, which take three seconds. TFDS's ten tries take minutes."""
    from tensorflow_datasets.core.download import downloader

    with mock.patch.object(downloader, "MAX_RETRIES", 4):
        yield


class NeedsTensorFlow(Exception):
    """A dataset's builder used a part of TensorFlow that the stand-in does not have."""


class _StandIn(SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        raise NeedsTensorFlow(f"TensorFlow's {name!r}")


@contextlib.contextmanager
def tensorflow_stand_in() -> Iterator[None]:
    """Lets TFDS's builders and downloader work without TensorFlow, inside the `with` block.

    TFDS's modules share one lazy `tf` object, which imports TensorFlow when it is first used. Each module's reference
    is replaced by an object with the few functions that preparing images needs, and is restored afterwards.
    `sys.modules` does not change, so no other library can mistake the stand-in for TensorFlow.

    Example:
        >>> with tensorflow_stand_in():
        ...     pass  # builder.download_and_prepare(file_format="array_record")
    """
    from tensorflow_datasets.core.utils import lazy_imports_utils

    tensorflow = lazy_imports_utils.tensorflow
    gfile = _StandIn(
        GFile=open,
        copy=shutil.copy,
        exists=os.path.exists,
        glob=glob.glob,
        isdir=os.path.isdir,
        listdir=os.listdir,
        remove=os.remove,
        walk=os.walk,
    )
    unraised = type("Unraised", (Exception,), {})  # stands for errors of TensorFlow's file functions
    stand_in = _StandIn(
        io=_StandIn(gfile=gfile, encode_jpeg=_encode_jpeg),
        image=_StandIn(
            decode_image=_decode,
            decode_jpeg=_decode,
            decode_png=_decode,
            encode_jpeg=_encode_jpeg,
            encode_png=_encode_png,
        ),
        compat=_StandIn(as_bytes=os.fsencode, as_text=os.fsdecode),
        errors=_StandIn(ResourceExhaustedError=unraised, UnimplementedError=unraised),
        executing_eagerly=lambda: True,
        shape=np.shape,
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # TFDS sorts a large dataset through a thousand open files, and relies on an error of TensorFlow to raise the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft < 4096 <= hard else soft, hard))
    _replace_in_tfds(tensorflow, stand_in)
    try:
        yield
    finally:
        _replace_in_tfds(stand_in, tensorflow)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _replace_in_tfds(old: object, new: object) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "tensorflow_datasets":
            for attribute in ("tf", "tensorflow"):
                if vars(module).get(attribute) is old:
                    setattr(module, attribute, new)


class _Tensor(np.ndarray):
    """An array with the method by which TFDS gets the content of a tensor."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def _decode(encoded: bytes, channels: int = 0) -> _Tensor:
    """Stands in for `tf.image.decode_image` and its relatives: uint8, `(height, width, channels)`.

    With 0 channels, an image keeps its own number: 1 for grey, 3 for colour, 4 with transparency.
    """
    with Image.open(io.BytesIO(encoded)) as image:
        own = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
        mode = {0: own, 1: "L", 3: "RGB", 4: "RGBA"}[channels]
        # If a palette with transparency is converted directly to RGB, Pillow warns.
        pixels = np.array((image.convert("RGBA") if image.mode == "P" else image).convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1).view(_Tensor)


def _encode_png(pixels: np.ndarray) -> SimpleNamespace:
    """Stands in for `tf.image.encode_png`: returns an object with `numpy()`, all that TFDS calls."""
    return _encoded(pixels, "PNG")


def _encode_jpeg(pixels: np.ndarray, format: str = "", quality: int = 95) -> SimpleNamespace:
    """The same for `tf.image.encode_jpeg` and `tf.io.encode_jpeg`; `format` is that of the pixels, which they tell."""
    return _encoded(pixels, "JPEG", quality=quality)


def _encoded(pixels: np.ndarray, image_format: str, **options: Any) -> SimpleNamespace:
    buffer = io.BytesIO()
    pixels = np.asarray(pixels)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, image_format, **options)
    return SimpleNamespace(numpy=buffer.getvalue)
