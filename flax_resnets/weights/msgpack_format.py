"""Reads `.msgpack` files: trees of arrays that `flax.serialization.to_bytes` wrote. Nothing in them is executed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_resnets.errors import UserError


def read_msgpack(path: Path) -> Mapping[Any, Any]:
    """Reads a tree of arrays.

    Args:
        path: path of an existing file.

    Raises:
        UserError: the file is damaged, or holds something else.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from flax.serialization import to_bytes
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "model.msgpack")
        ...     _ = path.write_bytes(to_bytes({"params": {"Dense_0": {"bias": np.float32([1, 2])}}}))
        ...     read_msgpack(path)["params"]["Dense_0"]["bias"].tolist()
        [1.0, 2.0]
    """
    from flax.serialization import msgpack_restore

    try:
        content = msgpack_restore(path.read_bytes())
    except Exception as error:  # a damaged file may raise anything
        raise UserError(
            f"{path}: not a whole .msgpack file as flax.serialization.to_bytes writes it ({type(error).__name__})"
        ) from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a tree of arrays")
    return content
