"""Reads TFRecord files by index, without TensorFlow and without a second copy of the data.

A TFRecord file has no index. One is made when the file is first opened, and kept in the directory of the caches: the
offsets of its records. It is made anew if the file's size or modification time changes.

A record is the length of its data (8 bytes), the length's checksum (4 bytes), the data, and the data's checksum (4
bytes). Making the index verifies the checksum of each length, and that the records fill the file. Reading a record
verifies that its length is still that of the index. The checksums of the data are not verified, because without a
compiled library this takes longer than decoding the image. So damaged data is found if the record or the image in it
cannot be decoded.
"""

import contextlib
import hashlib
import os
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_resnets.data.lock import locked
from flax_resnets.data.tfds.files import damaged, unreadable
from flax_resnets.paths import cache_root
from flax_resnets.progress import is_quiet

_HEAD = struct.Struct("<QI")
_AROUND = _HEAD.size + 4  # bytes of a record beside its data
_LARGE = 2**30  # bytes; the index of smaller files is made within seconds


class TfRecords:
    """Records of some TFRecord files, which stay open. Threads may read at once.

    Args:
        files: the files.
        counts: number of records in each file, as the dataset's metadata says.

    Attributes:
        layout: bytes that differ if a record has another length.

    Raises:
        UserError: a file is missing, damaged or cut short.

    Warns:
        RuntimeWarning: the index cannot be kept, so the next start makes it again.
    """

    def __init__(self, files: Sequence[Path], counts: Sequence[int]):
        self._opened: list[int] = []
        self._offsets = _offsets([_file(path, count) for path, count in zip(files, counts, strict=True)])
        self.layout = hashlib.sha256(b"".join(offsets.tobytes() for offsets in self._offsets)).digest()
        for path in files:
            try:
                self._opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise unreadable(path, error) from error

    def __del__(self):
        for descriptor in self._opened:
            os.close(descriptor)

    def read(self, file: int, record: int) -> bytes:
        """The data of a record of a file, both counted from 0.

        Raises:
            ValueError: the file has changed since it was opened.
            OSError: the file cannot be read.
        """
        start, end = self._offsets[file][record : record + 2].tolist()
        content = os.pread(self._opened[file], end - start, start)  # threads share a file, so no seeking
        if len(content) < end - start or _HEAD.unpack_from(content)[0] != end - start - _AROUND:
            raise ValueError(f"at byte {start} there is no record of {end - start - _AROUND} bytes any more")
        return content[_HEAD.size : -4]


class _File(NamedTuple):
    path: Path
    examples: int
    size: int
    modified: int
    kept: Path


def _file(path: Path, count: int) -> _File:
    try:
        status = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    name = hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    return _File(path, count, status.st_size, status.st_mtime_ns, _directory() / f"{name}.npy")


def _directory() -> Path:
    return cache_root() / "tfrecord-offsets"


def _offsets(files: list[_File]) -> list[np.ndarray]:
    """The offsets of each file's records, int64; the last one is the file's size."""
    with ThreadPoolExecutor(16) as pool:  # a thousand files may be on a network disk
        kept = list(pool.map(_kept, files))
        missing = [file for file, offsets in zip(files, kept, strict=True) if offsets is None]
        if not missing:
            return [offsets for offsets in kept if offsets is not None]
        size = sum(file.size for file in missing)
        with _alone() as keeping:
            if size > _LARGE and not is_quiet():
                where = f"{missing[0].path.parent}: looking for the records in {len(missing)} files"
                print(f"{where} of {size / 2**30:,.0f} GiB, once; the index is kept", file=sys.stderr, flush=True)

            def made(file: _File) -> np.ndarray:
                offsets = _kept(file)  # perhaps by another process, while this one waited
                if offsets is None:
                    offsets = _found(file)
                    if keeping:
                        _keep(file, offsets)
                return offsets

            return list(pool.map(made, files))


@contextlib.contextmanager
def _alone() -> Iterator[bool]:
    """Holds the lock of the indexes' directory; yields False if no index can be kept there."""
    with contextlib.ExitStack() as stack:
        try:
            _directory().mkdir(parents=True, exist_ok=True)
            if stack.enter_context(locked(_directory())):
                for left in _directory().glob("tmp*"):  # by a process that was killed
                    left.unlink()
            with tempfile.TemporaryFile(dir=_directory()):
                keeping = True
        except OSError as error:
            _warn(error)
            keeping = False
        yield keeping


def _warn(error: OSError) -> None:
    warnings.warn(
        f"index of tfrecord files not kept, the next start makes it again: {error}; FLAX_RESNETS_CACHE names another "
        "directory",
        RuntimeWarning,
        stacklevel=2,
    )


def _kept(file: _File) -> np.ndarray | None:
    """The offsets that were kept; None if there are none, or the file has changed since."""
    try:
        content = np.load(file.kept, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if content.dtype != np.int64 or content.shape != (file.examples + 2,) or content[0] != file.modified:
        return None
    offsets = content[1:]
    whole = offsets[0] == 0 and offsets[-1] == file.size and bool((np.diff(offsets) >= _AROUND).all())
    return offsets if whole else None


def _keep(file: _File, offsets: np.ndarray) -> None:
    descriptor, half_made = tempfile.mkstemp(prefix="tmp", dir=_directory())
    try:
        with os.fdopen(descriptor, "wb") as opened:
            np.save(opened, np.concatenate([[file.modified], offsets]), allow_pickle=False)
        os.replace(half_made, file.kept)
    except OSError as error:
        os.unlink(half_made)
        _warn(error)


def _found(file: _File) -> np.ndarray:
    """Goes through a file from record to record, without reading their data."""
    from tensorboardX.record_writer import masked_crc32c  # the one checksum of this kind among the dependencies

    offsets = [0]
    try:
        with open(file.path, "rb") as opened:
            while offsets[-1] < file.size:
                head = os.pread(opened.fileno(), _HEAD.size, offsets[-1])
                if len(head) < _HEAD.size:
                    break
                length, checksum = _HEAD.unpack(head)
                end = offsets[-1] + length + _AROUND
                if masked_crc32c(head[:8]) != checksum or end > file.size:
                    break
                offsets.append(end)
    except OSError as error:
        raise unreadable(file.path, error) from error
    if len(offsets) - 1 != file.examples or offsets[-1] != file.size:
        problem = f"at byte {offsets[-1]} there is no whole record" if offsets[-1] != file.size else ""
        raise damaged(file.path, len(offsets) - 1, file.examples, problem)
    return np.array(offsets, np.int64)
