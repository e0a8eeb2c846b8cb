"""What commands write: directories, names that are not taken, whole files, and the progress on a terminal."""

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from flax_resnets.errors import UserError
from flax_resnets.paths import expanded, in_the_way
from flax_resnets.progress import is_quiet

_EVERY = 0.2  # seconds between two updates of the progress


def check_directory(command: str, directory: Path) -> None:
    """Checks, before anything is computed, the directory of a command's `--output`. One that is not there is not made.

    Raises:
        UserError: it cannot be written to, or cannot be made.
    """
    if (there := in_the_way(directory)) is not None:
        which = "" if there == directory else f"{there} "
        raise UserError(f"{command}: --output={directory}: {which}is no directory that can be written")


def make_directory(command: str, directory: Path) -> None:
    """Makes the directory of a command's `--output`, unless it exists.

    Raises:
        UserError: see `check_directory`.
    """
    check_directory(command, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{command}: --output={directory}: {error.strerror}; name a directory to write") from None


def free_names(name: str) -> Iterator[str]:
    """Endless names to try one after the other, so that no earlier file is overwritten.

    Example:
        >>> from itertools import islice
        >>> list(islice(free_names("lr_find"), 3))
        ['lr_find', 'lr_find-2', 'lr_find-3']
    """
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def is_file_or_new(path: Path) -> bool:
    """Whether there is a regular file, or nothing; a device, a pipe or a directory must not be replaced."""
    return os.path.isfile(path) or not os.path.lexists(path)


def new_file(command: str, path: str, force: bool) -> Path:
    """The file that a command's `--output` names; it is checked before anything is computed.

    Raises:
        UserError: it exists and `force` is not set, it is no file, or its directory cannot be written.
    """
    target = expanded(path, f"{command}: --output")
    if not target.name or "\0" in target.name or not is_file_or_new(target):
        raise UserError(f"{command}: --output={target}: is no name of a file")
    if os.path.lexists(target) and not force:
        raise UserError(f"{command}: --output={target}: exists; name another file, or replace it with --force")
    if not os.access(target.parent, os.W_OK | os.X_OK):  # also if there is no such directory
        raise UserError(f"{command}: --output={target}: {target.parent} is no directory that can be written")
    return target


def write_file(command: str, target: Path, content: bytes) -> None:
    """Writes a command's file as a whole; an existing one is replaced.

    Raises:
        UserError: it cannot be written.
    """
    try:
        with whole_file(target) as temporary:
            temporary.write_bytes(content)
    except (OSError, ValueError) as error:  # ValueError: the name contains a NUL
        raise _unwritable(command, target, error) from None


def write_new(command: str, directory: Path, name: str, contents: Mapping[str, bytes]) -> list[Path]:
    """Writes files that belong together, under the first name that is free: `name`, `name-2`, `name-3`, ...

    Args:
        command: which writes them.
        directory: of the files; it must exist.
        name: without a suffix.
        contents: of the files, by suffix, such as `.png`.

    Returns:
        The paths, in the order of `contents`.

    Raises:
        UserError: a file cannot be written; then none is left.
    """
    for free in free_names(name):
        written: list[Path] = []
        path = directory / free
        try:
            for suffix, content in contents.items():
                path = directory / f"{free}{suffix}"
                with path.open("xb") as file:
                    written.append(path)
                    file.write(content)
        except OSError as error:
            for each in written:
                each.unlink(missing_ok=True)
            if isinstance(error, FileExistsError):
                continue
            raise _unwritable(command, path, error) from None
        return written
    raise AssertionError("names do not end")


def _unwritable(command: str, path: Path, error: Exception) -> UserError:
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    return UserError(f"{command}: {path}: {reason}; name a place that can be written")


@contextlib.contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yields a path to write to. When the block ends, the file there gets the name `target`.

    After an error nothing is left, and a file that was at `target` is unchanged. No other file is touched: the path is
    in a temporary directory beside `target`.

    Raises:
        OSError: the file cannot be written or renamed.
    """
    directory = Path(tempfile.mkdtemp(prefix=".", suffix=".tmp", dir=target.parent))
    try:
        temporary = directory / target.name
        yield temporary
        os.replace(temporary, target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def progress_of_images(out: TextIO | None = None) -> Iterator[Callable[[int, int | None], None] | None]:
    """Yields a function that shows on a terminal how many images are done, or None if nothing is to be shown.

    The function takes the number of images that are done and that of all; with None for all it shows the speed. When
    the block ends, also by an error, the line is cleared.

    Args:
        out: to which results are printed meanwhile. If that is a terminal, nothing else is shown there.
    """
    if is_quiet() or not sys.stderr.isatty() or (out is not None and out.isatty()):
        yield None
        return
    started = shown = time.monotonic()

    def show(done: int, of: int | None) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > _EVERY:
            shown = now
            text = (
                f"{done:,} images, {done / (now - started):,.0f} images/s"
                if of is None
                else f"{done:,} of {of:,} images"
            )
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        yield show
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def size_in_words(count: int) -> str:
    """The size of a file of so many bytes.

    Example:
        >>> size_in_words(21_500), size_in_words(1_234_000)
        ('21.5 kB', '1.2 MB')
    """
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"
