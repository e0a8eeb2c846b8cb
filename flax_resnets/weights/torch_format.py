"""Reads what `torch.save` wrote. Such files are pickles, which only torch can read safely, so they alone need torch."""

import argparse
import importlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.weights.stored import Stored

# Classes that are allowed in a file beside tensors, numbers and words. Many trainers save their arguments in a
# `Namespace`, which only holds attributes and has no code that a file could run.
_HARMLESS = (argparse.Namespace,)

_REMEDY = "where you trust it, torch.save(model.state_dict(), path) makes a file of tensors alone"


def read_torch(path: Path) -> Mapping[Any, Any]:
    """Reads dictionaries of tensors that `torch.save` wrote. Other objects are refused, and no code in the file is run.

    Args:
        path: path of an existing file.

    Raises:
        UserError: torch is not installed, the file is damaged, or it holds anything but dictionaries, tensors, numbers,
            words and the arguments of a command line.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise UserError(
            f"{path}: {path.suffix} files are read by torch, which is not installed: "
            "pip install 'flax_resnets[torch]', or give the weights as .safetensors or .npz"
        ) from None
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        found = _refused_class(torch, path, str(error))
        why = (
            f"it holds a {found}, which is not read; {_REMEDY}"
            if found
            else f"it is damaged, or no such file; {_REMEDY}"
        )
        raise UserError(f"{path}: not read by torch.load(weights_only=True) ({type(error).__name__}): {why}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not the dictionary that model.state_dict() is")
    return content


def _refused_class(torch: Any, path: Path, error: str) -> str | None:
    """The class in a file that torch did not read; None if that is not why."""
    try:  # looks through the file without running it
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no file of torch's newer format, or a damaged one
        names = re.findall(r"(?:GLOBAL|Unsupported class) ([\w.]+)", error)
    harmless = {f"{each.__module__}.{each.__qualname__}" for each in _HARMLESS}
    return next((name[:100] for name in names if name not in harmless), None)


def stored_torch(tensor: Any) -> Stored:
    """Wraps a `torch.Tensor`. numpy cannot convert one that is bfloat16 or needs a gradient; this can."""

    def read() -> np.ndarray:
        try:
            return tensor.detach().cpu().float().numpy()
        except (RuntimeError, TypeError) as error:  # a sparse tensor, or one without values
            raise UserError(f"a tensor of {tuple(tensor.shape)} is not a plain one ({type(error).__name__})") from error

    return Stored(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), read)
