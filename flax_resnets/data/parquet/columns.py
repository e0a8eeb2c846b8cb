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
from flax_resnets.data.labels import multi_hot
from flax_resnets.errors import UserError


class Columns(NamedTuple):
    """The two columns of a dataset.

    Attributes:
        image: name of the column of images.
        label: name of the column of labels.
        in_struct: whether an image is a struct whose field `bytes` holds the file.
        label_type: type of the labels; in a list, of those in it.
        multilabel: whether a label is a list: any number of classes for an image.
        class_names: the names that the file declares; None if it declares none.
        channels: 1 if the file declares grey images, otherwise 3.
    """

    image: str
    label: str
    in_struct: bool
    label_type: pa.DataType
    multilabel: bool
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
    label = _column(
        path, schema, "label_key", config.label_key or "label", _is_label, "whole numbers or text, or lists of them"
    )
    label_type = schema.field(label).type
    names = _of_element(features.get(label, {})).get("names")
    declared = isinstance(names, list) and len(names) >= 2 and all(isinstance(name, str) for name in names)
    return Columns(
        image,
        label,
        pa.types.is_struct(schema.field(image).type),
        label_type.value_type if _is_list(label_type) else label_type,
        _is_list(label_type),
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


def _of_element(feature: Any) -> Any:
    """The description of what a list holds, in either of Hugging Face's forms; any other feature itself."""
    inner = feature.get("feature") if feature.get("_type") in ("Sequence", "List", "LargeList") else None
    return inner if isinstance(inner, dict) else feature


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
    kind = field.type.value_type if _is_list(field.type) else field.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if _is_list(field.type) and pa.types.is_boolean(kind):  # perhaps a truth value for each class
        return False
    return any(
        is_kind(kind)
        for is_kind in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string)
    )


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


class Values(NamedTuple):
    """The labels of rows, one after the other.

    Attributes:
        values: the labels.
        counts: int64, how many each row has, if they are lists; None for one each.
    """

    values: pa.ChunkedArray
    counts: np.ndarray | None


def read_labels(paths: Sequence[Path], columns: Columns) -> Values:
    """The labels of all rows of these files. A row without a list has no labels.

    Raises:
        UserError: a file is damaged, or has other columns than the first.
    """
    chunks, counts = [], [np.zeros(0, np.int64)]
    for path in paths:
        try:
            with open_file(path) as file:
                labels = file.read(columns=[columns.label])[columns.label]
        except (pa.ArrowException, OSError) as error:
            raise damaged(path, error) from error
        if columns.multilabel:
            lengths = pc.call_function("list_value_length", [labels])
            counts.append(np.array([length or 0 for length in lengths.to_pylist()], np.int64))
            labels = pc.call_function("list_flatten", [labels])
        if pa.types.is_dictionary(labels.type):
            labels = labels.cast(labels.type.value_type)
        chunks += labels.chunks
    kind = columns.label_type
    values = pa.chunked_array(chunks, kind.value_type if pa.types.is_dictionary(kind) else kind)
    return Values(values, np.concatenate(counts) if columns.multilabel else None)


def distinct(labels: Values) -> list[Any]:
    """The distinct labels, in order."""
    return sorted(value for value in labels.values.unique().to_pylist() if value is not None)


def as_numbers(labels: Values, classes: Sequence[Any], where: str) -> np.ndarray:
    """The labels of the rows as numbers of these classes, in one of the forms of `flax_resnets.data.labels`.

    Raises:
        UserError: a label is missing, or not among them.
    """
    values, counts = labels
    if pa.types.is_integer(values.type) and values.type.bit_width < 64:
        values = values.cast(pa.int64())  # there may be more classes than int8 has numbers
    options = pc.SetLookupOptions(pa.array(classes, values.type))
    places = pc.call_function("index_in", [values], options)
    if places.null_count:
        place = int(np.flatnonzero(places.is_null().to_numpy())[0])
        row = place if counts is None else int(np.searchsorted(np.cumsum(counts), place, side="right"))
        label = str(values[place].as_py())[:60]
        raise UserError(
            f"{where}: row {row} has the label {label!r}, which is none of the {len(classes)} classes; train_split and "
            "validation_split name splits with labels"
        )
    numbers = places.to_numpy().astype(np.int32)
    if counts is None:
        return numbers
    return multi_hot(np.split(numbers, np.cumsum(counts)[:-1]) if len(counts) else [], len(classes))
