"""Opens the directory of a run, locks it against other processes, and refuses one that holds something else."""

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax_resnets import storage
from flax_resnets.data.config import name_and_version
from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.data.lock import locked
from flax_resnets.errors import UserError
from flax_resnets.paths import in_the_way
from flax_resnets.training import lineage
from flax_resnets.training.amendments import (
    Amendment,
    check_amendable,
    config_before,
    in_force,
    is_amendable,
    read_amendments,
    record,
)
from flax_resnets.training.atomic import temporary_of, write_whole
from flax_resnets.training.config import DEFAULTS, FIELD_TYPES, FREE_ON_RESUME, Config
from flax_resnets.training.lease import leased
from flax_resnets.training.metrics import read_rows, reopen
from flax_resnets.training.saved_steps import saved_steps

_FILES = (
    "config.json",
    "data.json",
    "metrics.jsonl",
    "curves.png",
    "broken_images.txt",
    lineage.FILE,
    "machine.json",
    "wandb.json",
)


class Course(NamedTuple):
    """How an amended run goes on.

    Attributes:
        amendment: the last one.
        before: the amendments before it.
        config: the configuration before it, which is that of the checkpoint of its step.
        is_new: whether it is not recorded yet.
    """

    amendment: Amendment
    before: Sequence[Amendment]
    config: Config
    is_new: bool


@contextlib.contextmanager
def opened(
    config: Config,
    workdir: Path,
    say: Callable[[str], None] = print,
    course: Course | None = None,
    amend: bool = False,
) -> Iterator[None]:
    """Makes the workdir, or checks that it holds this run, and locks it against other processes.

    If a new run fails with a UserError before its first checkpoint, the files that it wrote are removed. Otherwise the
    corrected command would be refused, because the workdir would hold another run. `say` is called with what the user
    should know about the lock of a workdir in a bucket. If `course` is a new amendment's, the amendment is recorded. A
    run that ended early goes on if `amend` is true, or if its `patience` is now another.
    """
    with contextlib.ExitStack() as stack:
        try:
            before = storage.names(workdir)
            if storage.is_bucket(workdir):
                stack.enter_context(leased(workdir, say))
            else:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(locked(workdir, wait=False))
            is_new = course is not None and course.is_new
            check_workdir(config, workdir, is_new)  # another process may have begun a run since the last check
            if amend and course_of(config, workdir, amend) != course:
                raise UserError(f"--amend: the run in {workdir} went on meanwhile; give the same command again")
            if course is not None and is_new:
                # Before the configuration: an amendment that the configuration does not follow is not in force.
                record(course.amendment, course.before, workdir)
            elif has_checkpoints(workdir) and (amend or recorded_config(workdir)["patience"] != config.patience):
                reopen(workdir / "metrics.jsonl")
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
            with contextlib.suppress(storage.BucketError, UserError):  # the first error is the one to tell
                if "config.json" not in (before or ()) and not has_checkpoints(workdir):
                    _take_away(workdir, before)
            raise


def has_checkpoints(workdir: Path) -> bool:
    """Whether the workdir has a checkpoint; it may be damaged."""
    return bool(saved_steps(workdir / "checkpoints"))


def _take_away(workdir: Path, before: set[str] | None) -> None:
    """Removes what the run wrote, except the names in `before`, which were in the workdir before it.

    If `before` is None, the run made the workdir, and the workdir is removed too.
    """
    for name in (*_FILES, "checkpoints", "tensorboard", "wandb"):
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
    """Whether the workdir's run ended (was killed, or diverged) before its first row and its first checkpoint.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return storage.read(workdir / "metrics.jsonl") == b"" and not any(
            storage.names(workdir / name) for name in ("checkpoints", "damaged")
        )
    except OSError as error:
        raise UserError(f"{error.filename or workdir}: {error.strerror}; pick another workdir") from None


def recorded_data(workdir: Path) -> Identity | None:
    """The identity of the data of the workdir's run; None if it is not recorded, or the run has nothing to resume."""
    try:
        return None if nothing_to_keep(workdir) else read_identity(workdir / "data.json")
    except OSError as error:
        raise UserError(f"workdir={workdir}: {error.strerror}") from None


def check_workdir(config: Config, workdir: Path, amend: bool = False) -> None:
    """Raises UserError if the workdir holds anything other than this run, except a run that has nothing to keep.

    Args:
        config: the run's configuration.
        workdir: its directory, which need not exist.
        amend: whether the fields that may change may differ from the workdir's.
    """
    try:
        str(workdir).encode()
        there = storage.names(workdir)
    except UnicodeEncodeError:
        raise UserError(f"workdir={workdir}: is not UTF-8, as checkpoints need it; pick another workdir") from None
    except (OSError, ValueError) as error:
        raise UserError(f"workdir={workdir}: {getattr(error, 'strerror', error)}; pick another workdir") from None
    if there is None and storage.exists(workdir):
        raise UserError(f"workdir={workdir}: is a file; name a directory")
    pictures = config.data_dir if config.dataset == "folder" else None
    if pictures and os.path.realpath(os.path.expanduser(pictures)) == os.path.realpath(workdir):
        raise UserError(f"workdir={workdir}: holds the pictures, among which the run's files would be; pick another")
    # Checked now, before hours go by with downloading and decoding.
    if not storage.is_bucket(workdir) and (other := in_the_way(workdir)) is not None:
        raise UserError(f"workdir={workdir}: {other} is no directory that can be written; pick another workdir")
    if there is None:
        return
    if not storage.is_bucket(workdir):
        _check_kinds(workdir)
    if "config.json" not in there:
        foreign = [name for name in ("checkpoints", *_FILES) if name in there]
        if foreign:
            raise UserError(f"workdir={workdir}: has {foreign[0]} and no config.json; pick another")
        return
    if nothing_to_keep(workdir):
        return
    changes = changed_fields(config, recorded_config(workdir), workdir)
    if amend:
        check_amendable(changes, workdir)
    elif changes:
        changed = ", ".join(f"{name}={_short(old)} (now {_short(new)})" for name, (old, new) in changes.items())
        way, rest = "", ""
        if not has_checkpoints(workdir):
            rest = ", or remove this one: it has no checkpoint"
        elif is_amendable(changes):
            way = "--amend goes on with it under the changed configuration; or "
        raise UserError(f"workdir={workdir}: holds another run, with {changed[:400]}; {way}pick another workdir{rest}")


def _short(value: Any) -> str:
    return str(value)[:100]


def recorded_config(workdir: Path) -> dict[str, Any]:
    """The values in a workdir's `config.json`; fields that an earlier version did not write have their defaults.

    Raises:
        UserError: it is no run's configuration.
    """
    path = workdir / "config.json"
    try:
        values = {**DEFAULTS, **json.loads(storage.read(path) or b"")}
        if missing := [name for name in FIELD_TYPES if name not in values]:
            raise ValueError(f"it has no {missing[0]}")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: is no run's configuration ({error}); pick another workdir") from None
    return values


def changed_fields(config: Config, theirs: Mapping[str, Any], workdir: Path) -> dict[str, tuple[Any, Any]]:
    """The fields that must not differ when a run resumes and do, with the recorded value and that of a configuration.

    Args:
        config: the configuration.
        theirs: the recorded values, as JSON holds them.
        workdir: of the run.
    """
    ours, recorded = json.loads(config.to_json()), recorded_data(workdir)
    theirs = dict(theirs)
    if _same_dataset(theirs.get("dataset"), config.dataset, recorded):
        theirs["dataset"] = config.dataset
    elif recorded is not None:
        theirs["dataset"] = recorded.pinned
    return {
        name: (theirs.get(name), value)
        for name, value in ours.items()
        if name not in FREE_ON_RESUME and theirs.get(name) != value
    }


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
        f"name the data_dir that has its data (dataset={recorded.pinned}), or pick another workdir, which may begin "
        f"with this run's weights: --config.weights={workdir}"
    )


def course_of(config: Config, workdir: Path, amend: bool) -> Course | None:
    """How the workdir's run goes on under this configuration; None if it was never amended and is not now.

    Args:
        config: the configuration under which it goes on.
        workdir: of the run; `check_workdir` has accepted it.
        amend: whether the configuration may differ from the run's, which is then amended.

    Raises:
        UserError: there is nothing to amend; or the checkpoint from which the run was amended is gone.
    """
    steps = saved_steps(workdir / "checkpoints")
    if not steps:
        if amend:
            raise UserError(f"--amend: {workdir} has no run with a checkpoint; without --amend the command begins one")
        return None
    values = recorded_config(workdir)
    amendments = in_force(read_amendments(workdir), values)
    # What was amended at the newest checkpoint, or after it, has no step of its own yet.
    kept = [each for each in amendments if each.step < steps[-1]]
    if not amend:
        if not amendments:
            return None
        last = amendments[-1]
        if last.step > steps[-1]:
            raise UserError(
                f"{workdir}: was amended at step {last.step}, but its newest checkpoint is of step {steps[-1]}; "
                "the same command with --amend amends it there"
            )
        return Course(last, amendments[:-1], _as_config(config_before([last], values), workdir), is_new=False)
    before = config_before(amendments[len(kept) :], values)
    changes = changed_fields(config, before, workdir)
    check_amendable(changes, workdir)
    if not changes:  # it is amended already, and the same command goes on
        return course_of(config, workdir, amend=False)
    rows, _ = read_rows(workdir / "metrics.jsonl")
    ended = [(0, 0), *((row.epoch, row.step) for row in rows if row.step <= steps[-1])]
    amendment = Amendment(steps[-1], *ended[-1], changes)
    if "batch_size" in changes and amendment.step != amendment.epoch_step:
        raise UserError(
            f"--amend: batch_size={config.batch_size}: the newest checkpoint, of step {amendment.step}, is within an "
            f"epoch that was not evaluated yet, whose images are drawn by batches of {changes['batch_size'][0]}; let "
            "the run evaluate this epoch"
        )
    if amendment.epoch < config.freeze_epochs:
        raise UserError(
            f"--amend: freeze_epochs={config.freeze_epochs}: {workdir} is in epoch {amendment.epoch + 1}, in which the "
            "head trains alone; let the run go beyond these epochs"
        )
    if config.epochs <= amendment.epoch:
        raise UserError(
            f"--amend: epochs={config.epochs}: must be above the {amendment.epoch} that {workdir} has trained"
        )
    left = config.epochs - amendment.epoch
    if config.schedule == "warmup_cosine" and config.warmup_epochs >= left:
        raise UserError(
            f"--amend: warmup_epochs={config.warmup_epochs:g}: warmup_cosine begins anew, and must be below the {left} "
            f"epochs that are left; give more epochs, or a shorter warm-up, such as 0"
        )
    return Course(amendment, kept, _as_config(before, workdir), is_new=True)


def _as_config(values: Mapping[str, Any], workdir: Path) -> Config:
    try:
        return Config(**{name: value for name, value in values.items() if name in FIELD_TYPES})
    except (UserError, TypeError) as error:
        raise UserError(f"{workdir / 'metrics.jsonl'}: its amendments do not fit config.json ({error})") from None
