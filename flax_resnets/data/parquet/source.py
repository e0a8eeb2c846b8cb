"""A split of a dataset of parquet files."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flax_resnets.data.fingerprint import fingerprints
from flax_resnets.data.labels import Label, is_multilabel
from flax_resnets.data.parquet.columns import Columns, damaged, open_file
from flax_resnets.data.source import Source

_KEPT = 2**28  # bytes of row groups that are kept; the one that was read last is always kept


class ParquetSource(Source):
    """Images in parquet files.

    A parquet file is read in row groups. Those that were read last are kept, up to 256 MiB.

    Args:
        dataset: the name by which the dataset was opened.
        split: name of the split.
        version: version of the dataset; empty if it has none.
        directory: directory of the dataset's files.
        files: files of the split, and perhaps of others, in order.
        columns: the two columns.
        class_names: names of the classes.
        labels: int32 `(N,)` or int8 `(N, classes)`, the label of each row of the files.
        rows: which of the rows are in this split, int64, in order; None for all.

    Raises:
        UserError: a file is damaged.
    """

    exif_orientation = white_background = draft = True
    labels_at_hand = True

    def __init__(
        self,
        dataset: str,
        split: str,
        version: str,
        directory: Path,
        files: Sequence[Path],
        columns: Columns,
        class_names: Sequence[str],
        labels: np.ndarray,
        rows: np.ndarray | None,
    ):
        self.dataset = dataset
        self.split = split
        self.version = version
        self.directory = directory
        self.class_names = tuple(class_names)
        self.channels = columns.channels
        self._files = list(files)
        self._columns = columns
        self.is_share = rows is not None
        self._rows = np.arange(len(labels)) if rows is None else rows
        self._labels = labels[self._rows]
        self.multilabel = is_multilabel(labels)
        self._metadata = []
        groups, sizes = [], []  # of each row group: its file, its number in it, its number of rows; its bytes
        for number, path in enumerate(self._files):
            with open_file(path) as file:
                self._metadata.append(file.metadata)
            for group in range(file.metadata.num_row_groups):
                described = self._metadata[-1].row_group(group)
                groups.append((number, group, described.num_rows))
                sizes.append(described.total_byte_size)
        self._groups = np.array(groups, np.int64).reshape(-1, 3)
        self._ends = np.cumsum(self._groups[:, 2])
        self._sizes = sizes
        self._kept: OrderedDict[int, Future[pa.ChunkedArray]] = OrderedDict()
        self._lock = threading.Lock()
        beside = repr((columns.image, columns.label, self.class_names)).encode()
        try:
            self.fingerprint, self.cache_key = fingerprints(self._files, beside)
        except OSError as error:
            raise damaged(Path(error.filename or directory), error) from error

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> tuple[bytes, Label]:
        """See `Source`; raises errors of pyarrow, and ValueError if the row has no image."""
        group, row = self._place(index)
        value = self._images(group)[row].as_py()
        encoded = value.get("bytes") if isinstance(value, dict) else value
        if encoded is None:
            raise ValueError("it has no bytes")
        return encoded, self.label(index)

    def labels(self) -> np.ndarray:
        """See `Source`; no image is read."""
        return self._labels

    def image_name(self, index: int) -> str:
        """The file, the row in it, and the path of the image if the row has one."""
        group, row = self._place(index)
        number, in_file, _ = self._groups[group].tolist()
        before = sum(self._metadata[number].row_group(each).num_rows for each in range(in_file))
        where = f"{self._files[number]}, row {before + row}"
        if self._columns.in_struct:
            with contextlib.suppress(Exception):  # the row is damaged, which may be why the name is asked for
                paths = self._read(group, f"{self._columns.image}.path")
                if path := paths[row].as_py()["path"]:
                    return f"{where}, path {path[:200]!r}"
        return where

    def _place(self, index: int) -> tuple[int, int]:
        """The row group of an image, and its row there."""
        row = int(self._rows[index])
        group = int(np.searchsorted(self._ends, row, side="right"))
        return group, row - int(self._ends[group] - self._groups[group, 2])

    def _images(self, group: int) -> pa.ChunkedArray:
        """The images of a row group. If several threads want the same one, one reads it and the others wait."""
        with self._lock:
            mine = group not in self._kept
            future = self._kept.setdefault(group, Future())
            self._kept.move_to_end(group)
            while len(self._kept) > 1 and sum(self._sizes[each] for each in self._kept) > _KEPT:
                self._kept.popitem(last=False)
        if mine:
            try:
                future.set_result(self._read(group, self._columns.image + ".bytes" * self._columns.in_struct))
            except BaseException as error:
                with self._lock:  # the next one tries again: the disk may answer then, or it was Ctrl-C
                    if self._kept.get(group) is future:
                        del self._kept[group]
                future.set_exception(error)
        return future.result()

    def _read(self, group: int, column: str) -> pa.ChunkedArray:
        number, in_file, _ = self._groups[group].tolist()
        # An object for each reading, because pyarrow does not promise that threads may share one.
        with pq.ParquetFile(self._files[number], metadata=self._metadata[number], memory_map=True) as file:
            return file.read_row_group(in_file, columns=[column], use_threads=False).column(0)
