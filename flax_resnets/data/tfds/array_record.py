"""Reads array_record files, which have an index of their own."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from flax_resnets.data.tfds.files import damaged, unreadable


class ArrayRecords:
    """Records of some array_record files. Threads may read at once.

    Args:
        files: the files.
        counts: number of records in each file, as the dataset's metadata says.

    Raises:
        UserError: a file is missing, damaged or cut short.
    """

    layout = b""  # the last block of a file, which is always hashed, has the positions of its records

    def __init__(self, files: Sequence[Path], counts: Sequence[int]):
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        for path, count in zip(files, counts, strict=True):
            _check(path, count)
        ranges = [f"{path}[0:{count}]" for path, count in zip(files, counts, strict=True)]
        self._records = ArrayRecordDataSource(ranges)
        self._starts = list(accumulate(counts, initial=0))

    def read(self, file: int, record: int) -> bytes:
        """The data of a record of a file, both counted from 0. Raises errors of array_record."""
        return self._records[self._starts[file] + record]


def _check(path: Path, count: int) -> None:
    """Raises UserError unless the file's index is complete and has as many records as the metadata says."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    try:
        open(path, "rb").close()
        reader = array_record_module.ArrayRecordReader(str(path))
        found, problem = reader.num_records(), ""
        reader.close()  # raises an error if the index at the file's end is damaged
    except OSError as error:
        raise unreadable(path, error) from error
    except RuntimeError as error:
        found, problem = 0, str(error)
    if found != count:
        raise damaged(path, found, count, problem)
