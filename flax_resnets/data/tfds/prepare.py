"""Download and prepare a TFDS dataset, with TensorFlow or without it.

To prepare an image dataset, TFDS needs only TensorFlow's file functions and its codecs of PNG and JPEG: TFDS serialises
examples with its own protocol buffers, and array_record writes the records. If TensorFlow is not installed,
`tensorflow_stand_in` supplies these functions during the preparation. TFDS reads the result on any machine. The bytes
of a PNG may differ from those of TensorFlow's encoder, but its pixels are the same. The pixels of the few JPEGs that a
builder encodes anew may differ a little.
"""

import contextlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flax_resnets.data.lock import locked
from flax_resnets.data.tfds.patches import NeedsTensorFlow, few_retries, quiet_tfds, tensorflow_stand_in
from flax_resnets.errors import UserError
from flax_resnets.progress import is_quiet

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


class Prepared(NamedTuple):
    """What `flax_resnets.data.tfds.prepare_dataset` returns.

    Attributes:
        name: the dataset's name with its version.
        directory: directory of its files.
        file_format: TFDS's name of the files' format.
        splits: number of examples in each split.
        before: whether it was prepared already.
    """

    name: str
    directory: str
    file_format: str
    splits: dict[str, int]
    before: bool


def declared_splits(builder: "DatasetBuilder") -> list[str] | None:
    """Names of the splits of a dataset that is not prepared, without downloading anything.

    TFDS keeps no list of them. A builder's code makes the splits from the paths of its downloads, and most builders do
    so before they read any file. They are given paths at which there is nothing.

    Args:
        builder: as in `prepare`.

    Returns:
        The names; None if the builder reads its downloads to know them.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_tfds())
        _without_tensorflow(stack)
        try:
            made: Any = builder._split_generators(_NoDownloads())  # pyright: ignore[reportAttributeAccessIssue]
            return [str(getattr(each, "name", each)) for each in made]
        except Exception:
            return None


class _NoDownloads:
    """Stands in for TFDS's download manager: its paths do not exist."""

    manual_dir = download_dir = Path(os.devnull, "nothing")

    def download(self, urls: Any) -> Any:
        if isinstance(urls, dict):
            return {key: self.download(each) for key, each in urls.items()}
        if isinstance(urls, list | tuple):
            return [self.download(each) for each in urls]
        return self.manual_dir

    download_and_extract = extract = download

    def iter_archive(self, path: Any) -> Iterator[Any]:
        return iter(())


def _without_tensorflow(stack: contextlib.ExitStack) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        stack.enter_context(tensorflow_stand_in())


def prepare(builder: "DatasetBuilder") -> None:
    """Downloads a dataset and writes it as array_record files into the builder's `data_dir`.

    After an error or an interruption, unfinished files are removed and complete downloads are kept, so that the next
    attempt need not download them again. If several processes prepare the same dataset, one works and the others wait.

    Args:
        builder: from `tfds.builder(name, data_dir=...)`. To read the dataset, make a new builder: this one keeps the
            metadata from before the preparation.

    Raises:
        UserError: `data_dir` is not writable, the download fails or is not what TFDS expects, the disk is full, or the
            dataset's builder needs TensorFlow.
    """
    import tensorflow_datasets as tfds

    root = Path(builder.data_dir_root)
    what = f"dataset={builder.info.full_name!r} is not prepared in data_dir={str(root)!r}"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_existing(root))
            _check_writable(root)
            # Without locks two processes may both do the work; TFDS then renames the result into place.
            stack.enter_context(locked(root))
            stack.enter_context(_leaving_no_rubbish(root, builder.name))
        except OSError as error:
            raise UserError(f"{what}, and cannot be: {error.strerror}; name a writable data_dir") from error
        with quiet_tfds():
            if builder.is_prepared():  # by another process, while this one waited for the lock
                return
        if not is_quiet():
            print(f"{what}: downloading and preparing it", flush=True)
        stack.enter_context(quiet_tfds())
        _without_tensorflow(stack)
        stack.enter_context(few_retries())
        if is_quiet() or not sys.stderr.isatty():
            tfds.disable_progress_bar()
        try:
            config = tfds.download.DownloadConfig(try_download_gcs=False)
            builder.download_and_prepare(file_format="array_record", download_config=config)
        except Exception as error:
            raise UserError(f"{what}, and preparing it failed: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """The cause of an error, in one line: TFDS wraps a refused connection in five exceptions."""
    import requests

    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    for each in chain:
        if isinstance(each, NeedsTensorFlow):
            return f"its builder uses {each}; install tensorflow for that once, or copy it from where it is prepared"
        if isinstance(each, requests.ConnectionError | requests.Timeout):
            url = each.request.url if each.request is not None else "its address"
            return f"{url} cannot be reached; connect to the internet, or name a data_dir that holds it prepared"
        if isinstance(each, OSError) and each.strerror:
            return f"{each.strerror}: {each.filename}" if each.filename else each.strerror
    return str(error)[:1000] or type(error).__name__


@contextlib.contextmanager
def _existing(root: Path) -> Iterator[None]:
    """Makes the directory and its parents; on failure removes those that this made and that are still empty."""
    missing = [path for path in (root, *root.parents) if not path.exists()]
    root.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the directory holds a complete download
            for path in missing:
                path.rmdir()
        raise


def _check_writable(root: Path) -> None:
    # Tested by writing: os.access knows nothing of what a server of a network disk refuses, nor of a full disk.
    with tempfile.TemporaryFile(dir=root):
        pass


@contextlib.contextmanager
def _leaving_no_rubbish(root: Path, dataset: str) -> Iterator[None]:
    """On failure removes unfinished files, and the directories that are then empty."""
    before = _entries(root, dataset)
    try:
        yield
    except BaseException:
        # TFDS's threads go on writing what they had started. Remove files until nothing new comes for half a second.
        found_nothing, until = 0, time.monotonic() + 10
        while found_nothing < 10 and time.monotonic() < until:
            new = sorted(_entries(root, dataset) - before, reverse=True)  # children before their parents
            for path in new:
                with contextlib.suppress(OSError):  # a directory with complete files in it
                    if path.is_dir():
                        path.rmdir()
                    elif _half_made(path.relative_to(root)):
                        path.unlink()
            found_nothing = 0 if any(_half_made(path.relative_to(root)) for path in new) else found_nothing + 1
            time.sleep(0.05)
        raise


def _entries(root: Path, dataset: str) -> set[Path]:
    """All paths under the directories to which TFDS writes when it prepares this dataset."""
    # os.walk ignores directories that vanish meanwhile. Path.rglob raises there before Python 3.13.
    tops = [path for path in (root / dataset, root / "downloads") if path.exists()]
    return {*tops} | {
        Path(parent) / name
        for top in tops
        for parent, directories, files in os.walk(top)
        for name in (*directories, *files)
    }


def _half_made(path: Path) -> bool:
    """Whether TFDS writes this path before a download or a dataset is complete."""
    return any(part.startswith("incomplete.") or ".tmp." in part or part == ".config" for part in path.parts)
