"""Saving and restoring a run: Orbax in the background; the latest two checkpoints are kept, and chosen ones."""

import contextlib
import errno
import itertools
import logging
import os
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.training.checksums import LIST, check_checksums, files_in, write_checksums
from flax_resnets.training.lease import check_held
from flax_resnets.training.processes import first_text, is_first, wait_for_all
from flax_resnets.training.saved_weights import abandoned_reads_are_silent, errno_of, first_line, is_of_the_system
from flax_resnets.training.state import TrainState, tree_digest

_ORBAX = str(Path(ocp.__file__).parent)
_TEMPORARY = ".orbax-checkpoint-tmp"  # Orbax's suffix of a directory that is not complete yet


class _LatestAndChosen(checkpoint_managers.PreservationPolicy):
    """Keeps the latest two checkpoints, and chosen ones, such as the best.

    While steps are being skipped, it also keeps the latest two from before the first skipped step. Otherwise newer
    checkpoints would replace them, and the newer ones may be the cause of the losses that are not finite.

    Orbax's own best-n policy ranks checkpoints by the metrics saved with them. Checkpoints in the middle of an epoch
    have no metrics, so it would delete the latest one.
    """

    def __init__(self, chosen: Callable[[], Collection[int]]):
        self._chosen = chosen
        self.finite_until = 0
        self.keeps_all = False

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        kept = {*steps[-2:], *[step for step in steps if step <= self.finite_until][-2:], *self._chosen()}
        return [self.keeps_all or step in kept for step in steps]


class Checkpoints:
    """The `checkpoints/` directory of a run, with one subdirectory for each saved step.

    Args:
        directory: is made if it does not exist.
        chosen: returns the steps to keep besides the latest two.

    Raises:
        UserError: the content of the directory cannot be listed.
    """

    def __init__(self, directory: Path, chosen: Callable[[], Collection[int]]):
        # Orbax logs every phase of every save at INFO, and a full traceback when `restore` is about to try another one.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        _quieten_late_writes()
        self._in_bucket = storage.is_bucket(directory)
        self.directory = directory if self._in_bucket else directory.resolve()
        self._damaged = self.directory.parent / "damaged"
        self._policy = _LatestAndChosen(chosen)
        self._under_way: int | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            cleanup_tmp_directories=True,  # left by a save that was killed
            enable_background_delete=self._in_bucket,  # where it takes seconds, for which the next save would wait
            # The first process calls it when all processes have written, before the directory gets its final name.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._list_checksums),
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except Exception as error:
            # From files that Orbax reads to list the steps; from a bucket's libraries anything.
            if not (self._in_bucket or isinstance(error, OSError | ValueError | RecursionError)):
                raise
            raise UserError(
                f"{self.directory}: its checkpoints cannot be listed ({error}); pick another workdir"
            ) from None

    def save(self, state: TrainState, stopping: bool = False) -> None:
        """Saves a state under its step. Returns once the state is copied; writing continues in the background.

        The state's digest is saved too, so that `restore` can check what it reads. A checksum of every file is saved,
        so that `restore` can find damage before it reads the state.

        Args:
            state: the state.
            stopping: whether the run stops after this save. In a bucket old checkpoints are then left to the next save
                of the next start, because removing them takes seconds, and a machine that is taken away gives few.

        Raises:
            OSError: this checkpoint or the previous one cannot be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return  # saved already, by an interruption before the evaluation
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), proof=ocp.args.JsonSave({"digest": tree_digest(state)})
        )
        check_held(self.directory)
        self._policy.keeps_all = stopping and self._in_bucket
        self._policy.finite_until = step - int(state.skipped_in_a_row)
        self.wait()  # Orbax waits too; until then `_under_way` is the previous step
        self._under_way = step
        with self._writing():
            saved = self._manager.save(step, args=items)
        if not saved:  # Orbax declines a step at or below its latest
            raise RuntimeError(f"{self.directory}: step {step} was not saved; latest is {self._manager.latest_step()}")

    def restore(self, like: Callable[[int], TrainState], say: Callable[[str], None]) -> TrainState | None:
        """The newest state that can be read as it was saved; None if nothing was ever saved.

        Args:
            like: for a saved step, a state with the structure, shapes, dtypes and placement of the restored one.
            say: is called with a message for each checkpoint that cannot be read and is moved away.

        Raises:
            UserError: there are checkpoints, but none can be read; or the newest one is not damaged, and cannot be read
                all the same, such as for lack of memory. Then it stays where it is.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like(step))
            with abandoned_reads_are_silent() as failed:
                try:
                    return self._read(step, abstract)
                except (storage.BucketError, UserError):  # they say nothing about the checkpoint
                    raise
                except Exception as error:  # a damaged file can raise anything
                    failed.append(first_line(error))
            aside = self._set_aside(step)
            say(f"checkpoint {step} is damaged ({failed[0]}); moved to {aside}, trying the one before")
        if storage.exists(self._damaged):  # this start or an earlier one moved checkpoints there
            raise UserError(
                f"{self.directory}: none of its checkpoints can be read; pick another workdir to start over"
            )
        return None

    def _list_checksums(self) -> None:
        # A bucket's directory has its final name from the beginning, and at the end gets a file that says so.
        directory = self.directory / (str(self._under_way) if self._in_bucket else f"{self._under_way}{_TEMPORARY}")
        parts = {directory / "state", directory / "proof"}
        write_checksums(directory, [path for path in files_in(directory) if parts & {*path.parents}])

    def _read(self, step: int, abstract: TrainState) -> TrainState:
        # A changed byte can end the process in a thread of TensorStore, so changed files must not be read at all.
        # Checkpoints of earlier versions have no checksums.
        directory = self.directory / str(step)
        listed = False
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), proof=ocp.args.JsonRestore())
        try:
            if storage.exists(directory / LIST):
                _check_in_all(directory)
                listed = True
            restored = self._manager.restore(step, args=items)
        except storage.BucketError:
            raise
        except Exception as error:
            # If its files are as they were written, it is something else that failed.
            if self._in_bucket and listed:
                raise storage.BucketError(errno.EIO, f"cannot be read: {first_line(error)}", str(directory)) from error
            if (listed and not isinstance(error, RecursionError)) or is_of_the_system(error):
                raise UserError(
                    f"{directory}: cannot be read ({first_line(error)}), but nothing says that it is damaged; once "
                    "that is put right, the same command goes on"
                ) from error
            raise
        # Orbax casts to the requested dtype and does not notice a changed byte.
        if tree_digest(restored["state"]) != restored["proof"]["digest"]:
            raise ValueError("its content is not what was saved")
        if int(restored["state"].step) != step:
            raise ValueError(f"its content is of step {int(restored['state'].step)}")
        return restored["state"]

    def steps(self) -> list[int]:
        """The steps that are saved, in order."""
        return sorted(self._manager.all_steps())

    def wait(self) -> None:
        """Waits until everything saved is on the disk; raises errors of the background writes, as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes saving and closes threads and files; raises what `wait` raises."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns errors of Orbax's threads into an OSError, and removes directories that are not complete."""
        try:
            yield
        except Exception as error:
            if self._in_bucket:  # the next start removes what is not complete
                reason = f"cannot be saved: {getattr(error, 'strerror', None) or first_line(error)}"
                raise storage.BucketError(errno.EIO, reason, str(self.directory)) from error
            number = errno_of(error)
            reason = os.strerror(number) if number else f"cannot be saved in: {first_line(error)}"
            for path in self.directory.glob(f"*{_TEMPORARY}"):
                storage.remove(path)
            raise OSError(number or errno.EIO, reason, str(self.directory)) from error

    def _set_aside(self, step: int) -> Path:
        target = next(path for n in itertools.count() if not storage.exists(path := self._damaged / f"{step}.{n}"))
        wait_for_all(f"{step} found damaged")
        if is_first():
            storage.move(self.directory / str(step), target)
        wait_for_all(f"{step} set aside")
        self._manager.reload()
        return target


def _check_in_all(directory: Path) -> None:
    """`check_checksums` in all processes; raises ValueError in all of them if one finds a file changed.

    Otherwise that one alone would go on to the checkpoint before.
    """
    damage = ""
    try:
        check_checksums(directory)
    except (ValueError, FileNotFoundError) as error:
        damage = first_line(error)
    if damage := first_text(damage):
        raise ValueError(damage)


@cache
def _quieten_late_writes() -> None:
    """Suppresses the errors that follow a failed write, so that the failure is reported once, by `save` or `wait`.

    The first failed write ends Orbax's event loop. Later writes find it closed, and for each of them Python and asyncio
    would print a traceback, or a warning if it had not begun.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", r"coroutine '(async_serialize|\w+Handler\.)", RuntimeWarning)
    others = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        # A coroutine in the middle of a write fails in other words, such as that it ignored the end of its loop.
        code = getattr(unraisable.object, "cr_code", None)
        if str(unraisable.exc_value) != "Event loop is closed" and (code is None or _ORBAX not in code.co_filename):
            others(unraisable)

    sys.unraisablehook = hook
