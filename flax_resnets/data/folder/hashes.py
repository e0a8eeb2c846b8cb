"""Hashes of many small files, kept in an index, so that only files that changed are read again."""

import contextlib
import hashlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_resnets.data.folder.layout import Pictures
from flax_resnets.data.folder.names import Names
from flax_resnets.data.lock import locked
from flax_resnets.paths import cache_root

_WHOLE = 2**30  # bytes; if all files together are larger, parts of each file are hashed
_BLOCKS, _BLOCK = 3, 2**12  # the parts: as many blocks, evenly spread from the first to the last, of so many bytes
_CHUNK = 2**20
_HASH = 16  # bytes of a file's hash
_TASK = 512  # files in a thread's task
_SETTLED = 2 * 10**9  # nanoseconds after which another change surely has another time, on any file system


class Hashes(NamedTuple):
    """Hashes of files.

    Attributes:
        hashes: uint8 `(N, 16)`; zeros for a file that cannot be read.
        sampled: whether only parts of the files were hashed.
        note: why the index could not be kept; empty if it was.
    """

    hashes: np.ndarray
    sampled: bool
    note: str = ""


def file_hashes(pictures: Pictures) -> Hashes:
    """A hash of each file's content.

    Files of up to 1 GiB together are hashed whole. Of larger ones, three blocks of 4 KiB of each file are hashed.

    The hashes are kept in an index in `cache_root()`, one for each directory. A file is read again only if its size or
    one of its times (`mtime`, `ctime`) is no longer that in the index. The index is written as a whole and under a
    lock; one that is damaged is written anew.

    Args:
        pictures: the files.

    Example:
        >>> from flax_resnets.data.folder.layout import pictures
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "cat").mkdir()
        >>> _ = (root / "cat" / "1.jpg").write_bytes(b"not really a picture")
        >>> file_hashes(pictures(root, ["cat"], is_train=True)).hashes.shape
        (1, 16)
    """
    sampled = int(pictures.stats[:, 0].clip(0).sum()) > _WHOLE
    path = _index_path(pictures.root)
    hashes, missing = _known(path, pictures, sampled)
    if not len(missing):
        return Hashes(hashes, sampled)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent):
            hashes, missing = _known(path, pictures, sampled)  # another process may have written them meanwhile
            began = time.time_ns()
            _hash_files(pictures, missing, hashes, sampled)
            # A file that changed just now may change again without another size or time.
            settled = (pictures.stats[:, 1:].max(axis=1) < began - _SETTLED) & hashes.any(axis=1)
            if settled[missing].any():
                _write(path, pictures, hashes, settled, sampled)
        return Hashes(hashes, sampled)
    except OSError as error:
        _hash_files(pictures, missing[~hashes[missing].any(axis=1)], hashes, sampled)
        return Hashes(
            hashes, sampled, f"the index of {pictures.root} is not kept, so each start reads all files: {error}"
        )


def _index_path(root: Path) -> Path:
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return cache_root() / "folder-index" / key / "index.npz"


def _known(path: Path, pictures: Pictures, sampled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hashes as far as the index has them, and the indices of the files that must be read."""
    hashes = np.zeros((len(pictures.names), _HASH), np.uint8)
    wanted = pictures.stats[:, 0] >= 0
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as index:
            names, ends, stats, known = (index[each] for each in ("names", "ends", "stats", "hashes"))
            if bool(index["sampled"]) != sampled:
                raise ValueError("made in the other way")
        count = len(ends)
        if stats.shape != (count, 3) or known.shape != (count, _HASH) or known.dtype != np.uint8:
            raise ValueError("its parts do not fit together")
    except Exception:  # there is none, or it is damaged, in any of the ways that zipfile and numpy have errors for
        return hashes, np.flatnonzero(wanted)
    if count == len(pictures.names) and names.tobytes() == pictures.names.blob and (ends == pictures.names.ends).all():
        ours = theirs = np.arange(count)
    else:
        before = Names()
        before.blob, before.ends = names.tobytes(), ends
        places = {name: place for place, name in enumerate(before)}
        found = np.array([places.get(name, -1) for name in pictures.names], np.int64)
        ours = np.flatnonzero(found >= 0)
        theirs = found[ours]
    same = (pictures.stats[ours] == stats[theirs]).all(axis=1)
    hashes[ours[same]] = known[theirs[same]]
    return hashes, np.flatnonzero(wanted & ~hashes.any(axis=1))


def _hash_files(pictures: Pictures, missing: np.ndarray, hashes: np.ndarray, sampled: bool) -> None:
    root = os.fsencode(pictures.root) + b"/"

    def fill(rows: np.ndarray) -> None:
        for row in rows.tolist():
            size = int(pictures.stats[row, 0])
            # A file that cannot be read keeps zeros; `Source` names it when the picture is read.
            with contextlib.suppress(OSError):
                hashes[row] = np.frombuffer(_hashed(root + pictures.names[row], size, sampled), np.uint8)

    with ThreadPoolExecutor(16) as pool:  # the files may be on a network disk
        for _ in pool.map(fill, (missing[first : first + _TASK] for first in range(0, len(missing), _TASK))):
            pass


def _hashed(path: bytes, size: int, sampled: bool) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # for what has become a pipe meanwhile
    try:
        digest = hashlib.sha256()
        if sampled:
            last = max(size - _BLOCK, 0)
            for number in range(_BLOCKS):
                digest.update(os.pread(descriptor, _BLOCK, last * number // (_BLOCKS - 1)))
        else:
            while part := os.read(descriptor, min(size + 1, _CHUNK)):
                digest.update(part)
        return digest.digest()[:_HASH]
    finally:
        os.close(descriptor)


def _write(path: Path, pictures: Pictures, hashes: np.ndarray, settled: np.ndarray, sampled: bool) -> None:
    for left in path.parent.glob("tmp-*"):  # by processes that were killed
        left.unlink(missing_ok=True)
    descriptor, half_made = tempfile.mkstemp(prefix="tmp-", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            np.savez(
                file,
                names=np.frombuffer(pictures.names.blob, np.uint8),
                ends=pictures.names.ends,
                stats=np.where(settled[:, None], pictures.stats, -2),
                hashes=hashes,
                sampled=np.array(sampled),
            )
            file.flush()
            os.fsync(file.fileno())
        os.replace(half_made, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(half_made)
        raise
