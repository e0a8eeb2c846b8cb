"""Reads `.pth` and `.pt` files. They are pickles, which only torch can read safely, so they alone need torch."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.weights.stored import Stored


def read_torch(path: Path) -> Mapping[Any, Any]:
    """Reads dictionaries of tensors that `torch.save` wrote. Other objects are refused, and no code in the file is run.

    Args:
        path: path of an existing file.

    Raises:
        UserError: torch is not installed, the file is damaged, or it holds anything but dictionaries of tensors.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise UserError(
            f"{path}: {path.suffix} files are read by torch, which is not installed: "
            "pip install 'flax_resnets[torch]', or give the weights as .safetensors or .npz"
        ) from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle may raise anything
        raise UserError(
            f"{path}: not read by torch.load(weights_only=True) ({type(error).__name__}): it is damaged, or holds more "
            "than tensors; what torch.save(model.state_dict(), path) writes would be right"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not the dictionary that model.state_dict() is")
    return content


def stored_torch(tensor: Any) -> Stored:
    """Wraps a `torch.Tensor`. numpy cannot convert one that is bfloat16 or needs a gradient; this can."""

    def read() -> np.ndarray:
        try:
            return tensor.detach().cpu().float().numpy()
        except (RuntimeError, TypeError) as error:  # a sparse tensor, or one without values
            raise UserError(f"a tensor of {tuple(tensor.shape)} is not a plain one ({type(error).__name__})") from error

    return Stored(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), read)
