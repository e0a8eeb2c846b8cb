"""Computes 64 hex digits from the content of files."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_WHOLE = 2**30  # bytes; a split up to this size is hashed whole, at each start
_BLOCKS, _BLOCK = 8, 2**16  # of each file of a larger split; an array_record file's last 64 KiB are its index


def fingerprints(files: Sequence[Path], beside: bytes) -> tuple[str, str]:
    """The `fingerprint` and the `cache_key` of a `Source`, computed from the files of its split.

    A split of up to 1 GiB is hashed whole, which takes about a second. Of a larger split, such as ImageNet's 150 GB,
    each file's size and eight of its blocks of 64 KiB are hashed. The blocks are evenly spread, from the first to the
    last. A change of a larger split is noticed if it lies in one of these blocks, or changes a file's size or the
    positions of its records, as new images usually do. If no block holds the positions, `beside` must.

    Args:
        files: files of the split, in order. Their paths and times do not change the fingerprint.
        beside: further bytes to hash, which describe the files.

    Returns:
        The fingerprint and the cache key. They are equal if the split was hashed whole. Otherwise the cache key also
        depends on the files' modification times.

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

    with ThreadPoolExecutor(16) as pool:  # a thousand files may be on a network disk
        hashes = list(pool.map(hashed, files, sizes))
    fingerprint = hashlib.sha256(beside + repr((sizes, hashes)).encode()).hexdigest()
    if not sampled:
        return fingerprint, fingerprint
    times = [path.stat().st_mtime_ns for path in files]
    return fingerprint, hashlib.sha256(f"{fingerprint} {times}".encode()).hexdigest()
