"""sha256 checksums of the files in a directory, in a list that `sha256sum --check` reads."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flax_resnets import storage
from flax_resnets.training.atomic import write_whole

LIST = "SHA256SUMS"


def write_checksums(directory: Path, files: Iterable[Path]) -> None:
    """Writes the checksums of files into the directory's `SHA256SUMS`.

    Args:
        directory: where the list is written.
        files: files in this directory or below it.

    Raises:
        OSError: a file cannot be read, or the list cannot be written.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> (directory / "empty").touch()
        >>> write_checksums(directory, [directory / "empty"])
        >>> print((directory / "SHA256SUMS").read_text(), end="")
        e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  empty
        >>> check_checksums(directory)
    """
    files = sorted(files)
    lines = [
        f"{digest}  {path.relative_to(directory).as_posix()}\n"
        for path, digest in zip(files, _digests(files), strict=True)
    ]
    write_whole(directory / LIST, "".join(lines).encode())


def check_checksums(directory: Path) -> None:
    """Checks that every file listed in `SHA256SUMS` has its checksum; files that are not listed are ignored.

    Args:
        directory: the directory with the list.

    Raises:
        ValueError: a file is missing or has changed (the message names it), or the list cannot be parsed.
        OSError: there is no list, or a file cannot be read.
    """
    found = {path.relative_to(directory).as_posix(): path for path in files_in(directory)}
    lines = storage.content(directory / LIST).decode(errors="replace").splitlines()
    expected: dict[str, str] = {}
    for line in lines or [""]:
        listed = re.fullmatch(r"([0-9a-f]{64})  ([\w./-]+)", line)
        if not listed:
            raise ValueError(f"{LIST} is no list of checksums")
        digest, name = listed.groups()
        if name not in found:
            raise ValueError(f"{name} is missing")
        expected[name] = digest
    for (name, digest), found_digest in zip(
        expected.items(), _digests([found[each] for each in expected]), strict=True
    ):
        if found_digest != digest:
            raise ValueError(f"{name} is not what was written")


def files_in(directory: Path) -> list[Path]:
    """All files in a directory and below it; raises OSError if one of the directories cannot be listed."""
    if storage.is_bucket(directory):
        return [directory / name for name in storage.files(directory)]

    def stop(error: OSError) -> None:  # rglob would leave out what it may not list
        raise error

    paths = (Path(parent, name) for parent, _, names in os.walk(directory, onerror=stop) for name in names)
    return [path for path in paths if path.is_file()]


def _digests(files: Sequence[Path]) -> Iterable[str]:
    """The files' checksums, in order. Those of a bucket are read at the same time, because each takes a while."""
    if not files or not storage.is_bucket(files[0]):
        return map(_sha256, files)
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda path: hashlib.sha256(storage.content(path)).hexdigest(), files))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
