"""What files hold, in 64 hex digits."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_WHOLE = 2**30  # bytes of a split that are hashed at each start
_BLOCKS, _BLOCK = 8, 2**16  # of each file of a larger one; array_record keeps a file's index in its last 64 KiB


def fingerprints(files: Sequence[Path], beside: bytes) -> tuple[str, str]:
    """What a split's files hold: the `fingerprint` and the `cache_key` of a `Source`.

    Up to 1 GiB a split is hashed whole: about a second. Of a larger one, such as ImageNet's 150 GB, each file's size
    and eight blocks of 64 KiB are, evenly spread, the first and the last among them. There a change is noticed if it
    changes a file's size or where its records lie, as other images do, or touches one of the blocks.

    Args:
        files: of the split, in order. Their paths and times are not in the fingerprint.
        beside: what describes them, hashed too.

    Returns:
        The fingerprint; and for a cache the same, but where a large split was not hashed whole: there the files' times
        are in it as well.

    Raises:
        OSError: a file cannot be read.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "file")
        >>> _ = path.write_text("a")
        >>> fingerprint, cache_key = fingerprints([path], b"")
        >>> len(fingerprint), fingerprint == cache_key
        (64, True)
    """
    sizes = [path.stat().st_size for path in files]
    sampled = sum(sizes) > _WHOLE

    def hashed(path: Path, size: int) -> str:
        with path.open("rb") as file:
            if not sampled:
                return hashlib.file_digest(file, "sha256").hexdigest()
            digest, last = hashlib.sha256(), max(size - _BLOCK, 0)
            for number in range(_BLOCKS):
                file.seek(last * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
            return digest.hexdigest()

    with ThreadPoolExecutor(16) as pool:  # a thousand files may lie on a network's disk
        hashes = list(pool.map(hashed, files, sizes))
    fingerprint = hashlib.sha256(beside + repr((sizes, hashes)).encode()).hexdigest()
    if not sampled:
        return fingerprint, fingerprint
    times = [path.stat().st_mtime_ns for path in files]
    return fingerprint, hashlib.sha256(f"{fingerprint} {times}".encode()).hexdigest()
