"""Copies files of a bucket to this machine, once: a later start checks that they are the bucket's, and goes on."""

import base64
import errno
import glob
import json
import os
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from flax_resnets import storage
from flax_resnets.data.lock import locked
from flax_resnets.errors import UserError
from flax_resnets.paths import cache_root
from flax_resnets.progress import is_quiet

_PART = 2**24  # bytes of a request
_AT_ONCE = 8  # requests
_WORTH_A_WORD = 2**26  # bytes; more than this takes long enough for a message


def copied(path: Path, named: str) -> Path:
    """The local copy of a file in a bucket.

    Args:
        path: of the file.
        named: the flag, field or argument that holds it, for the message.

    Raises:
        UserError: there is no such file, or it cannot be copied.
    """
    directory = path.parent
    local = _local(directory)
    try:
        if (stored := storage.stored(path)) is None:
            raise UserError(f"{named}={path}: there is no such file in the bucket")
        local.mkdir(parents=True, exist_ok=True)
        with locked(local):
            _copy(directory, {path.name: stored}, local)
    except OSError as error:
        raise _refusal(path, local, named, error) from None
    return local / path.name


def copied_directory(directory: Path, named: str, wanted: Callable[[str], bool] = lambda name: True) -> Path:
    """The local directory with copies of files from a directory of a bucket.

    The copies are in the directory of caches. A file is copied unless its copy has the size and the checksum (CRC32C)
    that the bucket states for the file. What a copy that was cut off already has is not copied again. Copies of files
    that the bucket no longer has are removed. If several processes need the same files, one copies and the others wait.

    Args:
        directory: in the bucket.
        named: the flag, field or argument that holds it, for the message.
        wanted: which files are needed; is called with paths relative to the directory.

    Raises:
        UserError: files cannot be copied, or one of them has a name that would lie outside the directory.
    """
    local = _local(directory)
    try:
        listing = storage.files(directory)
        there = {name: stored for name, stored in listing.items() if wanted(name)}
        local.mkdir(parents=True, exist_ok=True)
        with locked(local):
            _remove_all_but(local, listing)
            _copy(directory, there, local)
    except OSError as error:
        raise _refusal(directory, local, named, error) from None
    return local


def _local(directory: Path) -> Path:
    return cache_root() / "buckets" / os.fspath(directory).removeprefix("gs://")


def _refusal(path: Path, local: Path, named: str, error: OSError) -> UserError:
    if isinstance(error, storage.BucketError):
        where, remedy = "" if error.filename == str(path) else f" {error.filename}:", ""
    else:  # of this machine, such as a full disk
        where, remedy = f" {error.filename or local}:", "FLAX_RESNETS_CACHE names another directory; "
    return UserError(f"{named}={path}:{where} {error.strerror or error}; {remedy}the same command goes on")


def _remove_all_but(local: Path, listing: Collection[str]) -> None:
    kept = {*listing, *(str(parent) for name in listing for parent in PurePosixPath(name).parents)}
    for path in local.rglob("*"):
        if path.relative_to(local).as_posix() not in kept and not path.name.startswith("."):
            storage.remove(path)


def _copy(directory: Path, there: dict[str, storage.Stored], local: Path) -> None:
    """Copies the files that are not copied yet. The directory's list of copies says which are."""
    from tqdm import tqdm

    listed = local / ".copied"
    known = _listed(listed)
    missing = {
        name: stored
        for name, stored in there.items()
        if name not in known or known[name] != _state(local / name, stored)
    }
    size = sum(stored.size for stored in missing.values())
    shown = size > _WORTH_A_WORD and not is_quiet()
    if shown:
        text = f"{directory}: copying {len(missing):,} files, {size / 2**30:.2f} GiB, to {local}"
        print(text, file=sys.stderr, flush=True)  # as the bar; to stdout it would be lost while TFDS is kept quiet
    with (
        listed.open("a") as record,
        tqdm(total=size, unit="B", unit_scale=True, disable=not shown or not sys.stderr.isatty()) as bar,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):

        def copy(name: str) -> None:
            _copy_file(directory / name, missing[name], local / name, bar.update)
            # The line break comes first: the line before may have been cut off by a kill.
            record.write("\n" + json.dumps([name, _state(local / name, missing[name])]))
            record.flush()

        try:
            for _ in pool.map(copy, missing):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _state(path: Path, stored: storage.Stored) -> list[object] | None:
    """What the list of copies says of a copy: the bucket's checksum, and the copy's size and time."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [stored.crc32c, stored.size, found.st_size, found.st_mtime_ns]


def _listed(path: Path) -> dict[str, list[object]]:
    """The list of copies; a line that was cut off by a kill is left out."""
    known = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            name, state = json.loads(line)
        except ValueError:
            continue
        known[name] = state
    return known


def _copy_file(path: Path, stored: storage.Stored, local: Path, copied: Callable[[int], object]) -> None:
    local.parent.mkdir(parents=True, exist_ok=True)
    for old in local.parent.glob(f".{glob.escape(local.name)}.*.part"):
        if f".{stored.generation}." not in old.name:
            old.unlink()
    part = local.with_name(f".{local.name}.{stored.generation}.part")
    with part.open("ab+") as file:
        copied(file.seek(0, os.SEEK_END))
        while (begun := file.seek(0, os.SEEK_END)) < stored.size:
            content = storage.read_part(path, begun, min(_PART, stored.size - begun), stored.generation)
            file.write(content)
            copied(len(content))
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        checksum = _crc32c(file)
    if checksum != stored.crc32c:
        part.unlink()
        wrong = f"the copy is not what the bucket has (CRC32C {checksum}, not {stored.crc32c})"
        raise storage.BucketError(errno.EIO, wrong, str(path))
    os.replace(part, local)


def _crc32c(file: BinaryIO) -> str:
    import google_crc32c

    checksum = google_crc32c.Checksum()
    while block := file.read(2**20):
        checksum.update(block)
    return base64.b64encode(checksum.digest()).decode()
