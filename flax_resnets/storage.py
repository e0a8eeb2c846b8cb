"""Reads, writes and lists files and directories by path, on this machine or in a bucket of Google Cloud Storage.

A path of a bucket is `gs://BUCKET/PATH`. It is an `etils.epath.Path`, which has the methods of `pathlib.Path` and which
Orbax takes. Orbax and TensorStore write checkpoints by themselves; everything else goes through this module. Names in a
bucket contain slashes, but a bucket has no directories: here a directory is what several names begin with.
"""

import contextlib
import errno
import importlib.util
import logging
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from google.cloud import storage

_PREFIX = "gs://"
_PATIENCE = 60.0  # seconds for which a request is repeated while a bucket does not answer, or answers 429 or 5xx
_BUCKET = r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"
# A path like s3://name, gs:/name or gs//name, which pathlib would take for a relative one.
_LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/|(gs|gcs|s3|hdfs|https?)(:|//)", re.IGNORECASE)


class BucketError(OSError):
    """A bucket does not answer, or refuses. `strerror` says why in one line, `filename` is the path."""


def is_bucket(path: str | os.PathLike[str]) -> bool:
    """Whether a path is one of a bucket.

    Example:
        >>> is_bucket("gs://bucket/runs/mine"), is_bucket("runs/mine")
        (True, False)
    """
    return os.fspath(path).startswith(_PREFIX)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, or was meant to be one.

    Example:
        >>> [is_url(path) for path in ("gs://bucket", "gs:/bucket", "gs//bucket", "s3://bucket", "runs/gs", "./gs:/b")]
        [True, True, True, True, False, False]
    """
    return _LIKE_A_URL.match(os.fspath(path)) is not None


def bucket_path(path: str | os.PathLike[str], named: str) -> Path:
    """The path of a directory or a file in a bucket, from what a user wrote. Nothing is asked of the bucket.

    Args:
        path: the path as the user wrote it.
        named: the flag or field that holds it, for the message.

    Raises:
        UserError: the path is no `gs://BUCKET/PATH`, or gcsfs is not installed.
    """
    text = os.fspath(path)
    if not is_bucket(text) and re.match(r"gc?s[:/]", text, re.IGNORECASE) is None:
        raise UserError(f"{named}={text}: only gs:// buckets are served; name a directory, or gs://BUCKET/PATH")
    if not re.fullmatch(rf"{_PREFIX}{_BUCKET}(/[^/#?*\[\]\x00-\x1f]+)*/?", text) or {".", ".."} & {*text.split("/")}:
        raise UserError(
            f"{named}={text}: must be gs://BUCKET/PATH; a bucket's name has small letters, digits, - _ . and the path "
            "no empty part, no . or .. and none of # ? * [ ]"
        )
    _prepare(f"{named}={text}")
    from etils import epath

    # An epath.Path has pathlib's methods, and the rest of the package calls no others.
    return cast(Path, epath.Path(text))


def _prepare(what: str) -> None:
    """Sets gcsfs, by which Orbax writes its small files, to what a run needs; before it is imported."""
    if importlib.util.find_spec("gcsfs") is None:  # which needs google-cloud-storage
        raise UserError(f"{what}: needs gcsfs, which is not installed: pip install 'flax_resnets[gcs]'")
    # Otherwise gcsfs asks for the kind of each bucket, by another protocol, and complains if it may not.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    os.environ.setdefault("EPATH_USE_TF", "false")  # where TensorFlow is installed, etils would use its file functions
    import fsspec.config

    # A listing kept for later would not have what TensorStore and other processes write.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # It logs a traceback for each error that it raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)


def exists(path: Path) -> bool:
    """Whether there is such a file or directory."""
    return (names(path) is not None or stored(path) is not None) if is_bucket(path) else os.path.exists(path)


def names(directory: Path) -> set[str] | None:
    """The names of the files and directories in a directory; None if there is no such directory.

    Raises:
        OSError: the directory cannot be listed, or the bucket does not exist.
    """
    if not is_bucket(directory):
        return set(os.listdir(directory)) if os.path.isdir(directory) else None
    with _answered(directory, bucket_only=True):
        bucket, name = _split(directory)
        prefix = f"{name}/" if name else ""
        blobs = _client().list_blobs(bucket, prefix=prefix, delimiter="/", **_patiently())
        found = {blob.name.removeprefix(prefix) for blob in blobs}
        found |= {each.removeprefix(prefix).rstrip("/") for each in cast(Any, blobs).prefixes}
    return found - {""} or None  # some programs mark a directory by a file without a name


class Stored(NamedTuple):
    """What a bucket says of a file: size in bytes, CRC32C in base64, and a number that each writing changes."""

    size: int
    crc32c: str
    generation: int


def files(directory: Path) -> dict[str, Stored]:
    """The files in a directory of a bucket and below it, by their paths relative to the directory.

    Raises:
        BucketError: the bucket cannot be listed, or does not exist.
        UserError: a file's name is no path, such as `../x`, which would be another file than the bucket's.
    """
    with _answered(directory, bucket_only=True):
        bucket, name = _split(directory)
        prefix = f"{name}/" if name else ""
        blobs = _client().list_blobs(bucket, prefix=prefix, **_patiently())
        found = {blob.name.removeprefix(prefix): _stored(blob) for blob in blobs if not blob.name.endswith("/")}
    for name in found:
        # A bucket takes any name, and it may be a stranger's bucket.
        if {"", ".", ".."} & {*name.split("/")} or "\0" in name:
            raise UserError(
                f"{directory}: has a file named {name[:200]!r}, which is no path; rename or remove it in the bucket"
            )
    return found


def stored(path: Path) -> Stored | None:
    """What a bucket says of a file; None if there is no such file."""
    with contextlib.suppress(FileNotFoundError), _answered(path):
        blob = _blob(path)
        blob.reload(**_patiently())
        return _stored(blob)
    return None


def _stored(blob: "storage.Blob") -> Stored:
    return Stored(cast(int, blob.size), cast(str, blob.crc32c), cast(int, blob.generation))


def read(path: Path) -> bytes | None:
    """The content of a file; None if there is no such file.

    Raises:
        OSError: the file cannot be read.
    """
    if not is_bucket(path):
        return path.read_bytes() if os.path.exists(path) else None  # Path.exists raises an error for some paths
    return found[0] if (found := read_state(path)) else None


def content(path: Path) -> bytes:
    """Like `read`, but raises FileNotFoundError if there is no such file."""
    if (found := read(path)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return found


def read_part(path: Path, begin: int, size: int, generation: int) -> bytes:
    """These bytes of a file in a bucket; raises BucketError if it has been written again since this generation."""
    from google.api_core.exceptions import PreconditionFailed

    try:
        with _answered(path):
            return _blob(path).download_as_bytes(
                start=begin,
                end=begin + size - 1,
                if_generation_match=generation,
                **_patiently(),
                checksum=cast(str, None),  # which is of the whole file; `copies` checks it
            )
    except (PreconditionFailed, FileNotFoundError):
        raise BucketError(errno.EAGAIN, "has changed since it was listed", str(path)) from None


def read_state(path: Path) -> tuple[bytes, int] | None:
    """The content of a file in a bucket and its generation, a number for each time it is written; None if none."""
    with contextlib.suppress(FileNotFoundError), _answered(path):
        blob = _blob(path)
        content = blob.download_as_bytes(**_patiently())
        return content, cast(int, blob.generation)
    return None


def write(path: Path, content: bytes, generation: int | None = None) -> int | None:
    """Writes a file of a bucket. Nobody ever reads a part of it.

    Args:
        path: of the file; an existing one is replaced.
        content: the whole new content.
        generation: if given, the file is written only if this is its generation, 0 if there must be no such file.

    Returns:
        The file's new generation; None if its generation is another one.

    Raises:
        BucketError: the file cannot be written.
    """
    from google.api_core.exceptions import PreconditionFailed

    with _answered(path):
        blob = _blob(path)
        try:
            blob.upload_from_string(
                content,
                "application/octet-stream",
                if_generation_match=generation,
                **_patiently(),
            )
        except PreconditionFailed:
            # If the answer to a first attempt was lost, a second one finds what the first one wrote.
            found = read_state(path)
            return found[1] if found and found[0] == content else None
        return cast(int, blob.generation)


def remove(path: Path) -> None:
    """Removes a file, or a directory with all that is in it, if there is one. Errors within a directory are ignored."""
    if not is_bucket(path):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return
    for each in (path, *(path / name for name in files(path))):
        with contextlib.suppress(FileNotFoundError), _answered(each):
            _blob(each).delete(**_patiently())


def remove_if(path: Path, generation: int) -> None:
    """Removes a file of a bucket if this is its generation."""
    from google.api_core.exceptions import PreconditionFailed

    with contextlib.suppress(FileNotFoundError, PreconditionFailed), _answered(path):
        _blob(path).delete(if_generation_match=generation, **_patiently())


def move(directory: Path, target: Path) -> None:
    """Gives a directory another path. In a bucket its files are copied, and removed when all are copied."""
    if not is_bucket(directory):
        target.parent.mkdir(exist_ok=True)
        directory.rename(target)
        return
    there = files(directory)
    for name in there:
        with _answered(directory / name):
            source = _blob(directory / name)
            source.bucket.copy_blob(source, source.bucket, _split(target / name)[1], **_patiently())
    for name in there:
        with contextlib.suppress(FileNotFoundError), _answered(directory / name):
            _blob(directory / name).delete(**_patiently())


def _client() -> "storage.Client":
    return _client_of(os.environ.get("STORAGE_EMULATOR_HOST"))


@cache
def _client_of(emulator: str | None) -> "storage.Client":
    from google.cloud import storage

    return storage.Client()  # which reads the variable


def _patiently() -> dict[str, Any]:
    """Arguments of a request: it is repeated, with growing pauses, if the bucket is overloaded or does not answer."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return {"retry": DEFAULT_RETRY.with_timeout(_PATIENCE), "timeout": _PATIENCE}


def _split(path: Path) -> tuple[str, str]:
    """The bucket and the name in it."""
    bucket, _, name = os.fspath(path).removeprefix(_PREFIX).partition("/")
    return bucket, name


def _blob(path: Path) -> "storage.Blob":
    bucket, name = _split(path)
    return _client().bucket(bucket).blob(name)


@contextlib.contextmanager
def _answered(path: Path, bucket_only: bool = False) -> Iterator[None]:
    """Turns all errors of the client into a `BucketError`, and a missing file into FileNotFoundError.

    If `bucket_only`, the requests are about the bucket, and it is the bucket that is missing.
    """
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError
    from requests import ConnectionError, RequestException, Timeout

    try:
        yield
    except exceptions.PreconditionFailed:
        raise
    except exceptions.NotFound as error:
        if bucket_only:
            raise BucketError(errno.ENOENT, f"there is no bucket gs://{_split(path)[0]}", str(path)) from error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except TransportError as error:
        raise BucketError(errno.EIO, f"the bucket cannot be reached: {_message(error)}", str(path)) from error
    except (exceptions.Unauthorized, GoogleAuthError) as error:
        raise BucketError(
            errno.EACCES,
            f"no valid credentials ({_message(error)}); on a VM its service account needs access to the bucket, "
            "elsewhere run `gcloud auth application-default login`",
            str(path),
        ) from error
    except (
        exceptions.RetryError,
        exceptions.ServerError,
        exceptions.TooManyRequests,
        ConnectionError,
        Timeout,
    ) as error:
        raise BucketError(
            errno.EIO, f"the bucket did not answer within {_PATIENCE:.0f} s: {_message(error)}", str(path)
        ) from error
    except exceptions.ClientError as error:  # 4xx, such as of a bucket whose readers pay
        raise BucketError(errno.EACCES, f"the bucket refuses it: {_message(error)}", str(path)) from error
    except Exception as error:  # also of the libraries below the client
        if isinstance(error, OSError) and not isinstance(error, RequestException):
            raise
        raise BucketError(errno.EIO, f"the request failed: {_message(error)}", str(path)) from error


def _message(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error  # of a RetryError
    response = getattr(cause, "response", None)
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        answer = cast(Any, response).json()["error"]
        return f"{answer['code']}, {answer['message']}"[:200]
    code = getattr(cause, "code", None)
    return (f"{int(code)}" if code else str(cause).partition("\n")[0][:200]) or type(cause).__name__
