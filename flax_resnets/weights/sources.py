"""Where weights come from: a file, the hub, or a mapping in memory. Each gives named tensors that are read later."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnets.copies import copied
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.storage import is_bucket
from flax_resnets.weights import hub
from flax_resnets.weights.mismatch import LONGEST_MESSAGE, cut, short_label
from flax_resnets.weights.msgpack_format import read_msgpack
from flax_resnets.weights.npz_format import read_npz
from flax_resnets.weights.safetensors_format import read_safetensors, read_sharded, shards_of
from flax_resnets.weights.stored import Stored
from flax_resnets.weights.torch_format import read_torch, stored_torch

# Readers by the ending of a file's name.
_READERS: dict[str, Callable[[Path], Mapping[Any, Any]]] = {
    ".safetensors": read_safetensors,
    ".safetensors.index.json": read_sharded,
    ".npz": read_npz,
    ".msgpack": read_msgpack,
    **dict.fromkeys((".pth", ".pt", ".bin", ".ckpt", ".pth.tar"), read_torch),
}

# What a training program saves beside weights, such as the state of an optimizer, has fewer values and levels.
_MOST_VALUES, _DEEPEST = 200_000, 50


def is_weights_file(source: str) -> bool:
    """Whether a path ends as that of a file of weights does.

    Example:
        >>> is_weights_file("resnet18.safetensors"), is_weights_file("runs/quickstart")
        (True, False)
    """
    return _reader(source) is not None and not source.startswith(hub.PREFIX)


def _reader(path: str | os.PathLike[str]) -> Callable[[Path], Mapping[Any, Any]] | None:
    name = os.path.basename(os.fspath(path)).lower()
    return next((reader for ending, reader in _READERS.items() if name.endswith(ending) and name != ending), None)


def open_source(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, dict[str, Stored]]:
    """Opens a source of weights. Returns its name for messages, and its tensors by name.

    The names in nested mappings are joined by `/`: `state_dict/conv1.weight`. What is no array, such as the number of
    an epoch, is left out; so is `num_batches_tracked`, because networks here have no use for it.

    Args:
        source: see `load_weights`.

    Raises:
        UserError: there is no such file, it cannot be read, or the mapping has something that is not an array under a
            name as tensors have them.

    Example:
        >>> label, tensors = open_source({"model": {"fc.bias": np.zeros(3, np.float16)}, "epoch": 7})
        >>> tensors["model/fc.bias"].shape, tensors["model/fc.bias"].dtype
        ((3,), 'float16')
    """
    if isinstance(source, Mapping):
        label, content = "source", source
    elif isinstance(source, (str, os.PathLike)):
        source = hub.by_name(source) if isinstance(source, str) else source
        label, content = str(source), _read_file(source)
    else:
        raise UserError(
            f"source={type(source).__name__}: must be a path, {hub.PREFIX}owner/name or a mapping of arrays"
        )
    tensors: dict[str, Stored] = {}
    for name, value in _flat(content, label):
        if name.endswith("num_batches_tracked"):
            continue
        stored = _stored(value, name, label)
        if name in tensors:
            raise UserError(f"{label}: {name[:80]!r} occurs twice")
        if stored is not None:
            tensors[name] = stored
    return label, tensors


def _flat(content: Mapping[Any, Any], label: str) -> Iterator[tuple[str, Any]]:
    """All values in nested mappings, by their joined keys.

    Raises:
        UserError: there are too many. A mapping that holds itself would never end.
    """
    waiting: list[tuple[str, Any]] = [(str(key), value) for key, value in content.items()][::-1]
    for _ in range(_MOST_VALUES):
        if not waiting:
            return
        name, value = waiting.pop()
        if isinstance(value, Mapping) and name.count("/") < _DEEPEST:
            waiting += [(f"{name}/{key}", inner) for key, inner in value.items()][::-1]
        else:
            yield name, value
    raise UserError(f"{label}: has more than {_MOST_VALUES:,} values; give the mapping of the weights alone")


def _read_file(source: str | os.PathLike[str]) -> Mapping[Any, Any]:
    try:
        return _read(source)
    except UserError as error:
        if len(str(error)) <= LONGEST_MESSAGE:
            raise
        raise UserError(cut(str(error).replace(str(source), short_label(str(source))))) from error


def _read(source: str | os.PathLike[str]) -> Mapping[Any, Any]:
    text = os.fspath(source)
    if re.match(r"(https?|ftp):", text, re.IGNORECASE):
        raise UserError(f"{text}: is an address; download the file, for example with curl -LO, and give its path")
    path = hub.weights(text) if text.startswith(hub.PREFIX) else expanded(source, "source", buckets=True)
    reader = _reader(path)
    if reader is None and os.path.isdir(path):
        raise UserError(
            f"{text}: is a directory; a run's or a saved folder's weights are load_classifier({text[:100]!r}).variables"
        )
    if reader is None:
        raise UserError(f"{text}: must end in {', '.join(_READERS)}, or be {hub.PREFIX}owner/name")
    if is_bucket(path):
        bucket, path = path.parent, copied(path, "source")
        for shard in shards_of(path) if reader is read_sharded else ():
            copied(bucket / shard, "source")
    if not os.path.isfile(path):  # Path.is_file raises an error if the name is too long
        raise UserError(f"{text}: no such file")
    return reader(path)


def _stored(value: Any, name: str, label: str) -> Stored | None:
    """None for what may stand beside tensors: a number, a word, settings."""
    if isinstance(value, Stored):
        return value
    if hasattr(value, "detach"):  # a torch.Tensor, recognised without importing torch
        return stored_torch(value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return Stored(tuple(value.shape), getattr(value.dtype, "name", str(value.dtype)), lambda: np.asarray(value))
    if name.endswith((".weight", ".bias")):
        raise UserError(f"{label}: {name[:80]!r} is a {type(value).__name__}, not an array")
    return None
