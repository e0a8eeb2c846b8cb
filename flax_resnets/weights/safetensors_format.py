"""Reads and writes `.safetensors` files: eight bytes with the length of a JSON header, the header, and the numbers.

The format is https://github.com/huggingface/safetensors#format. It is simple enough to be read here, so that loading
weights needs no package besides jax. Everything in a header is checked before it is used.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.weights.stored import Stored

_DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}

# A ResNet-152's header takes 0.1 MB. A longer one is refused before it is read: parsed JSON takes far more memory.
_LONGEST_HEADER = 4_000_000


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file, by name. The file is mapped into memory, so only the tensors that are used are read.

    Args:
        path: path of an existing file.

    Raises:
        UserError: the file breaks a rule of the format; the message says which.

    Example:
        >>> import tempfile
        >>> header = b'{"fc.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'
        >>> content = len(header).to_bytes(8, "little") + header + np.float32([1, 2]).tobytes()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "model.safetensors")
        ...     _ = path.write_bytes(content)
        ...     read_safetensors(path)["fc.bias"].read().tolist()
        [1.0, 2.0]
    """
    try:
        size = path.stat().st_size
        if size < 8:
            raise _Broken(f"{size} bytes are too few for a header")
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size - 8, _LONGEST_HEADER):
                raise _Broken(
                    f"its header claims {length} bytes; the file has {size}, a header {_LONGEST_HEADER} at most"
                )
            header = _parse(file.read(length))
        data_size = size - 8 - length
        places = {name: _check(entry, name, data_size) for name, entry in header.items() if name != "__metadata__"}
        _check_coverage([(begin, end) for _, _, begin, end in places.values()], data_size)
        # An empty file cannot be mapped.
        data = np.memmap(path, np.uint8, "r", offset=8 + length) if data_size else np.empty(0, np.uint8)
    except _Broken as rule:
        raise UserError(f"{path}: not a whole .safetensors file: {rule}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return {name: _stored(data, *place) for name, place in places.items()}


def read_sharded(path: Path) -> dict[str, Stored]:
    """The tensors of the `.safetensors` files that an index beside them names, by name.

    transformers writes such files for large models: https://huggingface.co/docs/transformers/big_models.

    Args:
        path: of the index, such as `model.safetensors.index.json`.

    Raises:
        UserError: it is no such index; or a file is missing, is broken, or has other tensors than the index says.
    """
    places = _places(path)
    tensors: dict[str, Stored] = {}
    for name in dict.fromkeys(places.values()):
        if not os.path.isfile(path.parent / name):
            raise UserError(f"{path}: names {name}, which is not beside it")
        found = read_safetensors(path.parent / name)
        there = {tensor for tensor, file in places.items() if file == name}
        if wrong := sorted(found.keys() ^ there):
            raise UserError(f"{path}: {name} has other tensors than the index says, such as {wrong[0][:80]!r}")
        tensors |= found
    return tensors


def shards_of(path: Path) -> list[str]:
    """The names of the files that an index names, see `read_sharded`."""
    return list(dict.fromkeys(_places(path).values()))


def _places(path: Path) -> dict[str, str]:
    """The name of each tensor's file, which lies beside the index."""
    try:
        if path.stat().st_size > _LONGEST_HEADER:
            raise _Broken(f"has more than {_LONGEST_HEADER:,} bytes")
        places = _parse(path.read_bytes()).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise _Broken("has no weight_map")
        for name in places.values():
            if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
                raise _Broken(f"names {str(name)[:80]!r}, which is no .safetensors file beside it")
    except _Broken as rule:
        raise UserError(f"{path}: no index of .safetensors files: {rule}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return places


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes tensors into a file that does not exist yet.

    Args:
        path: of the file.
        tensors: float32 arrays by name.

    Raises:
        OSError: the file exists, or cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "model.safetensors")
        ...     write_safetensors(path, {"fc.bias": np.float32([1, 2])})
        ...     read_safetensors(path)["fc.bias"].read().tolist()
        [1.0, 2.0]
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # some of torch's readers ask for it
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 4 * tensor.size
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers begin at a multiple of 8
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, "<f4").data)
        file.flush()
        os.fsync(file.fileno())  # otherwise the file may be empty after a power cut


class _Broken(Exception):
    """A file breaks a rule of the format; the text says which."""


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique_names)
    # ValueError: not UTF-8, not JSON, or a number of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise _Broken(f"its header is no JSON ({type(error).__name__})") from None
    if not isinstance(header, dict):
        raise _Broken("its header is no JSON object")
    return header


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Broken("a name occurs twice in its header")
    return dict(pairs)


def _check(entry: Any, name: str, data_size: int) -> tuple[np.dtype, tuple[int, ...], int, int]:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if all(
            type(number) is int and number >= 0 for number in (*shape, begin, end)
        ):
            pass
        case _:
            raise _Broken(f"the entry of {name[:80]!r} is not a dtype, a shape and two offsets")
    if dtype not in _DTYPES:
        raise _Broken(f"{name[:80]!r} has the dtype {dtype[:20]!r}")
    if len(shape) > 8 or max(shape, default=0) > data_size:
        raise _Broken(f"{name[:80]!r} has an impossible shape")
    if not begin <= end <= data_size or math.prod(shape) * _DTYPES[dtype].itemsize != end - begin:
        raise _Broken(f"{name[:80]!r} has data_offsets that do not fit its shape and dtype")
    return _DTYPES[dtype], tuple(shape), begin, end


def _check_coverage(places: list[tuple[int, int]], data_size: int) -> None:
    """Checks that each byte belongs to exactly one tensor. Overlaps, gaps and trailing bytes could hide other data."""
    reached = 0
    for begin, end in sorted(places):
        if begin != reached:
            raise _Broken("its tensors overlap, or leave a gap")
        reached = end
    if reached != data_size:
        raise _Broken(f"{data_size - reached} bytes belong to no tensor")


def _stored(data: np.ndarray, dtype: np.dtype, shape: tuple[int, ...], begin: int, end: int) -> Stored:
    def read() -> np.ndarray:
        content = data[begin:end]
        if content.size and content.ctypes.data % dtype.itemsize:  # some writers do not align the numbers
            content = content.copy()
        return content.view(dtype).reshape(shape)

    return Stored(shape, dtype.name, read)
