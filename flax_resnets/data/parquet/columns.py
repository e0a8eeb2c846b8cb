"""Finds the image and the label among the columns of parquet files, and reads the labels."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from flax_resnets.data.config import DataConfig
from flax_resnets.errors import UserError


class Columns(NamedTuple):
    """The two columns of a dataset.

    Attributes:
        image: name of the column of images.
        label: name of the column of labels.
        in_struct: whether an image is a struct whose field `bytes` holds the file.
        label_type: type of the labels.
        class_names: the names that the file declares; None if it declares none.
        channels: 1 if the file declares grey images, otherwise 3.
    """

    image: str
    label: str
    in_struct: bool
    label_type: pa.DataType
    class_names: tuple[str, ...] | None
    channels: int


def open_file(path: Path) -> pq.ParquetFile:
    """Opens a file.

    Raises:
        UserError: it cannot be opened, or is no parquet file.
    """
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> UserError:
    """The error for a file that cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UserError(f"{path}: cannot be read as parquet ({reason[:200]}); download it again")


def find_columns(path: Path, config: DataConfig) -> Columns:
    """Finds the columns in a file.

    Raises:
        UserError: there is no such column, or it holds something else. The message names columns that do.
    """
    with open_file(path) as file:
        schema = file.schema_arrow
    features = _features(path, schema)
    image = _column(path, schema, "image_key", config.image_key or "image", _is_image, "bytes, or a struct with bytes")
    label = _column(path, schema, "label_key", config.label_key or "label", _is_label, "whole numbers or text")
    names = features.get(label, {}).get("names")
    declared = isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)
    return Columns(
        image,
        label,
        pa.types.is_struct(schema.field(image).type),
        schema.field(label).type,
        tuple(names) if declared else None,
        1 if features.get(image, {}).get("mode") == "L" else 3,
    )


def _features(path: Path, schema: pa.Schema) -> dict[str, Any]:
    """Hugging Face's description of the columns, by name; empty if the file has none."""
    encoded = (schema.metadata or {}).get(b"huggingface")
    if encoded is None:
        return {}
    try:
        features = json.loads(encoded)["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: its description of the columns ('huggingface') is damaged ({error})") from error


def _column(
    path: Path, schema: pa.Schema, field: str, name: str, is_right: Callable[[pa.Field], bool], right: str
) -> str:
    if schema.names.count(name) == 1 and is_right(schema.field(name)):
        return name
    problem = (
        f"column {name!r} is {str(schema.field(name).type)[:80]}" if name in schema.names else f"no column {name!r}"
    )
    fitting = [each.name for each in schema if is_right(each) and each.name != name]
    fitting.sort(key=lambda each: "label" not in each)
    hint = (
        f"; {field}={' or '.join(fitting[:3])} would be" if fitting else f"; there is {', '.join(schema.names)[:100]}"
    )
    raise UserError(f"{path}: {problem}, must be {right}{hint}")


def _is_image(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes"))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_label(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    )


def read_labels(paths: Sequence[Path], columns: Columns) -> pa.ChunkedArray:
    """The labels of all rows of these files.

    Raises:
        UserError: a file is damaged, or has other columns than the first.
    """
    chunks = []
    for path in paths:
        try:
            with open_file(path) as file:
                labels = file.read(columns=[columns.label])[columns.label]
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
        if pa.types.is_dictionary(labels.type):
            labels = labels.cast(labels.type.value_type)
        chunks += labels.chunks
    return pa.chunked_array(chunks)


def distinct(labels: pa.ChunkedArray) -> list[Any]:
    """The distinct labels, in order."""
    return sorted(value for value in labels.unique().to_pylist() if value is not None)


def as_numbers(labels: pa.ChunkedArray, values: Sequence[Any], where: str) -> np.ndarray:
    """The place of each label among these values, int32.

    Raises:
        UserError: a label is missing, or not among them.
    """
    options = pc.SetLookupOptions(pa.array(values, labels.type))
    places = pc.call_function("index_in", [labels], options)
    if places.null_count:
        row = int(np.flatnonzero(places.is_null().to_numpy())[0])
        label = str(labels[row].as_py())[:60]
        raise UserError(
            f"{where}: row {row} has the label {label!r}, which is none of the {len(values)} classes; train_split and "
            "validation_split name splits with labels"
        )
    return places.to_numpy().astype(np.int32)
