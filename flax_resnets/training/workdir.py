"""Opens the directory of a run, locks it against other processes, and refuses one that holds something else."""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flax_resnets import storage
from flax_resnets.data.config import name_and_version
from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.data.lock import locked
from flax_resnets.errors import UserError
from flax_resnets.training import lineage
from flax_resnets.training.atomic import temporary_of, write_whole
from flax_resnets.training.config import DEFAULTS, FREE_FIELDS, Config
from flax_resnets.training.lease import leased

_FILES = ("config.json", "data.json", "metrics.jsonl", "curves.png", "broken_images.txt", lineage.FILE)


@contextlib.contextmanager
def opened(config: Config, workdir: Path, say: Callable[[str], None] = print) -> Iterator[None]:
    """Makes the workdir, or checks that it holds this run, and locks it against other processes.

    If a new run fails with a UserError before its first checkpoint, the files that it wrote are removed. Otherwise the
    corrected command would be refused, because the workdir would hold another run. `say` is called with what the user
    should know about the lock of a workdir in a bucket.
    """
    with contextlib.ExitStack() as stack:
        try:
            before = storage.names(workdir)
            if storage.is_bucket(workdir):
                stack.enter_context(leased(workdir, say))
            else:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(workdir, wait=False))
            check_workdir(config, workdir)  # another process may have begun a run since the last check
            write_whole(workdir / "config.json", config.to_json().encode())
        except BlockingIOError:
            raise UserError(f"workdir={workdir}: another process is training in it; wait, or pick another") from None
        except UserError:
            raise
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error  # ValueError: the path contains a NUL
            raise UserError(f"workdir={workdir}: {reason}; pick a directory that can be written") from None
        try:
            yield
        except UserError:
            with contextlib.suppress(storage.BucketError):  # the first error is the one to tell
                if "config.json" not in (before or ()) and not has_checkpoints(workdir):
                    _take_away(workdir, before)
            raise


def has_checkpoints(workdir: Path) -> bool:
    """Whether the workdir has a checkpoint; it may be damaged."""
    return any(name.isdecimal() for name in storage.names(workdir / "checkpoints") or ())


def _take_away(workdir: Path, before: set[str] | None) -> None:
    """Removes what the run wrote, except the names in `before`, which were in the workdir before it.

    If `before` is None, the run made the workdir, and the workdir is removed too.
    """
    for name in (*_FILES, "checkpoints", "tensorboard"):
        if name not in (before or ()):
            storage.remove(workdir / name)
    if before is None and not storage.is_bucket(workdir):
        with contextlib.suppress(OSError):
            workdir.rmdir()


def forget(workdir: Path) -> None:
    """Removes a run's files except TensorBoard's, so that any run can begin in the workdir."""
    for name in ("checkpoints", *reversed(_FILES)):  # config.json last: without it the others would be no run's
        storage.remove(workdir / name)


def nothing_to_keep(workdir: Path) -> bool:
    """Whether the workdir's run ended (was killed, or diverged) before its first row and its first checkpoint."""
    return storage.read(workdir / "metrics.jsonl") == b"" and not any(
        storage.names(workdir / name) for name in ("checkpoints", "damaged")
    )


def recorded_data(workdir: Path) -> Identity | None:
    """The identity of the data of the workdir's run; None if it is not recorded, or the run has nothing to resume."""
    try:
        return None if nothing_to_keep(workdir) else read_identity(workdir / "data.json")
    except OSError as error:
        raise UserError(f"workdir={workdir}: {error.strerror}") from None


def check_workdir(config: Config, workdir: Path) -> None:
    """Raises UserError if the workdir holds anything other than this run, except a run that has nothing to keep."""
    try:
        there = storage.names(workdir)
    except (OSError, ValueError) as error:
        raise UserError(f"workdir={workdir}: {getattr(error, 'strerror', error)}; pick another workdir") from None
    if there is None:
        if storage.exists(workdir):
            raise UserError(f"workdir={workdir}: is a file; name a directory")
        return
    if not storage.is_bucket(workdir):
        _check_kinds(workdir)
    path = workdir / "config.json"
    if path.name not in there:
        foreign = [name for name in ("checkpoints", *_FILES) if name in there]
        if foreign:
            raise UserError(f"workdir={workdir}: has {foreign[0]} and no config.json; pick another")
        return
    recorded = recorded_data(workdir)
    if recorded is None and nothing_to_keep(workdir):
        return
    try:
        theirs = json.loads(storage.read(path) or b"")
        ours = json.loads(config.to_json())
        # An earlier version may have written it without some fields. They get their defaults.
        theirs = {**DEFAULTS, **theirs}
        if _same_dataset(theirs.get("dataset"), config.dataset, recorded):
            theirs["dataset"] = config.dataset
        elif recorded is not None:
            theirs["dataset"] = recorded.pinned
        differing = [name for name in ours if name not in FREE_FIELDS and theirs.get(name) != ours[name]]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no run's configuration ({error}); pick another workdir") from None
    if differing:
        changed = ", ".join(f"{name}={str(theirs.get(name))[:100]} (now {ours[name]})" for name in differing)
        raise UserError(f"workdir={workdir}: holds another run, with {changed}; pick another workdir")


def _check_kinds(workdir: Path) -> None:
    """Raises UserError if a name of a run's files or directories is taken by something else."""
    # A link would lead writes elsewhere, and reading a device would never end.
    for name in _FILES:
        for path in (workdir / name, temporary_of(workdir / name)):
            if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
                raise UserError(f"{path}: must be a file, no link or directory; pick another workdir")
    for name in ("checkpoints", "damaged", "tensorboard"):
        if os.path.lexists(workdir / name) and not (workdir / name).is_dir():
            raise UserError(f"{workdir / name}: must be a directory; pick another workdir")


def _same_dataset(theirs: Any, ours: str, recorded: Identity | None) -> bool:
    """Whether two names mean the same dataset. A name without a version means the version that the run recorded."""
    (name, version), (our_name, our_version) = name_and_version(str(theirs)), name_and_version(ours)
    versions = {version, our_version, recorded.version if recorded else ""} - {""}
    return name == our_name and len(versions) <= 1


def check_data(found: Identity, config: Config, workdir: Path) -> None:
    """Raises UserError if the workdir's run has recorded its data, and this is other data."""
    recorded = recorded_data(workdir)
    if recorded is not None and (difference := recorded.difference(found)):
        raise other_data(recorded, difference, config, workdir)


def other_data(recorded: Identity, difference: str, config: Config, workdir: Path) -> UserError:
    """The error for a run that would resume with other data."""
    here = f"data_dir={config.data_dir}" if config.data_dir else f"dataset={config.dataset}"
    return UserError(
        f"workdir={workdir}: its run trains on {recorded.name}, but {here} has {difference}; "
        f"name the data_dir that has its data (dataset={recorded.pinned}), or pick another workdir"
    )
