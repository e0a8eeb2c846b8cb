"""Where weights come from: a file, the hub, or a mapping in memory. Each gives named tensors that are read later."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnets.copies import copied
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.storage import is_bucket, is_url
from flax_resnets.weights import hub
from flax_resnets.weights.npz_format import read_npz
from flax_resnets.weights.safetensors_format import read_safetensors
from flax_resnets.weights.stored import Stored
from flax_resnets.weights.torch_format import read_torch, stored_torch

_READERS = {".safetensors": read_safetensors, ".npz": read_npz, ".pth": read_torch, ".pt": read_torch}

# Training programs save more than weights. They store the weights under one of these names.
_WEIGHTS_KEYS = ("state_dict", "model")


def is_weights_file(source: str) -> bool:
    """Whether a path ends as that of a file of weights does.

    Example:
        >>> is_weights_file("resnet18.safetensors"), is_weights_file("runs/quickstart")
        (True, False)
    """
    return Path(source).suffix in _READERS and not source.startswith(hub.PREFIX)


def open_source(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, dict[str, Stored]]:
    """Opens a source of weights. Returns its name for messages, and its tensors by name.

    If the source has a mapping under the key `state_dict` or `model`, the weights are taken from there. If all names
    begin with `module.`, as torch's DataParallel writes them, that prefix is removed. `num_batches_tracked` is left
    out, because networks here have no use for it.

    Args:
        source: see `load_weights`.

    Raises:
        UserError: there is no such file, it cannot be read, or the mapping holds something that is not an array.

    Example:
        >>> label, tensors = open_source({"module.fc.bias": np.zeros(3, np.float16)})
        >>> tensors["fc.bias"].shape, tensors["fc.bias"].dtype
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
    for wrapper in _WEIGHTS_KEYS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    names = [name for name in content if not str(name).endswith("num_batches_tracked")]
    prefix = "module." if names and all(str(name).startswith("module.") for name in names) else ""
    return label, {str(name).removeprefix(prefix): _stored(content[name], name, label) for name in names}


def _read_file(source: str | os.PathLike[str]) -> Mapping[Any, Any]:
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        path = hub.download(source)
    else:
        path = expanded(source, "source", buckets=True) if is_url(source) else Path(source)
    if path.suffix not in _READERS:
        raise UserError(f"{source}: must end in {', '.join(_READERS)}, or be {hub.PREFIX}owner/name")
    if is_bucket(path):
        path = copied(path, "source")
    if not os.path.isfile(path):  # Path.is_file raises an error if the name is too long
        raise UserError(f"{source}: no such file")
    return _READERS[path.suffix](path)


def _stored(value: Any, name: Any, label: str) -> Stored:
    if isinstance(value, Stored):
        return value
    if hasattr(value, "detach"):  # a torch.Tensor, recognised without importing torch
        return stored_torch(value)
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise UserError(f"{label}: {str(name)[:80]!r} is a {type(value).__name__}, not an array")
    return Stored(tuple(value.shape), getattr(value.dtype, "name", str(value.dtype)), lambda: np.asarray(value))
