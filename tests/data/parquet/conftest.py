"""Parquet files, made here. They need pyarrow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write(tmp_path) -> Callable[..., Path]:
    """A function that writes tables as files with these names, two rows in a row group; returns their directory."""

    def write(files: dict[str, Any], root: str = "set") -> Path:
        pq = pytest.importorskip("pyarrow.parquet")
        for name, each in files.items():
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(each, path, row_group_size=2)
        return tmp_path / root

    return write
