"""Saving a run and finding it again: Orbax, in the background, the latest two and the best."""

import contextlib
import errno
import gc
import itertools
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from flax_resnets.errors import UserError
from flax_resnets.training.checksums import LIST, check_checksums, write_checksums
from flax_resnets.training.processes import is_first, wait_for_all
from flax_resnets.training.state import TrainState, tree_digest

_TEMPORARY = ".orbax-checkpoint-tmp"  # what Orbax appends to the name of a directory until it is whole


class _LatestAndBest(checkpoint_managers.PreservationPolicy):
    """Keeps the latest two, and the step of the highest accuracy.

    Of a run whose steps are being skipped also the latest two from before the first of those: what is saved in between
    would push them out, and may be what the loss is not finite for.

    Orbax's own best-n ranks by metrics saved with a checkpoint; those saved in the middle of an epoch have none, and
    it would delete the latest for them.
    """

    def __init__(self, best_step: Callable[[], int | None]):
        self._best_step = best_step
        self.finite_until = 0

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [info.step for info in checkpoints]
        kept = {*steps[-2:], *[step for step in steps if step <= self.finite_until][-2:], self._best_step()}
        return [step in kept for step in steps]


class Checkpoints:
    """A run's `checkpoints/` directory, one subdirectory a step.

    Args:
        directory: made if it is not there.
        best_step: gives the step to keep besides the latest two; None for none.

    Raises:
        UserError: what lies in the directory cannot be listed.
    """

    def __init__(self, directory: Path, best_step: Callable[[], int | None]):
        # Orbax logs every phase of every save at INFO, and a full traceback where a fallback is about to be tried.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        _quieten_late_writes()
        self.directory = directory.resolve()
        self._damaged = self.directory.parent / "damaged"
        self._policy = _LatestAndBest(best_step)
        self._under_way: int | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=self._policy,
            cleanup_tmp_directories=True,  # what a killed save left
            # Called by the first process once all have written all, before the directory gets the name of its step.
            async_options=ocp.AsyncOptions(post_finalization_callback=self._list_checksums),
        )
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except (OSError, ValueError, RecursionError) as error:  # of what it reads to list the steps
            raise UserError(
                f"{self.directory}: its checkpoints cannot be listed ({error}); pick another workdir"
            ) from None

    def save(self, state: TrainState) -> None:
        """Saves a state under its step and returns once it is copied; writing goes on behind.

        The digest goes with it, so that `restore` can tell whether what it reads is what was saved; and a checksum of
        every file, so that it need not try.

        Raises:
            OSError: the disk did not take it, or the one before.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return  # saved when it was interrupted, before it was evaluated
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), proof=ocp.args.JsonSave({"digest": tree_digest(state)})
        )
        self._policy.finite_until = step - int(state.skipped_in_a_row)
        self.wait()  # as Orbax would: the one before is the one under way until then
        self._under_way = step
        with self._writing():
            saved = self._manager.save(step, args=items)
        if not saved:  # Orbax declines a step at or below its latest
            raise RuntimeError(f"{self.directory}: step {step} was not saved; latest is {self._manager.latest_step()}")

    def restore(self, like: TrainState, say: Callable[[str], None]) -> TrainState | None:
        """The newest state that reads back as it was saved; None where nothing was ever saved.

        Args:
            like: a state of the same structure, whose shapes, dtypes and placement the restored one takes.
            say: told of each checkpoint that does not read, and where it was moved to.

        Raises:
            UserError: there are checkpoints, and none of them reads.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            with _abandoned_reads_are_silent():
                try:
                    return self._read(step, abstract)
                except Exception as error:  # whatever a damaged file makes the readers below Orbax raise
                    reason = _first_line(error)
            aside = self._set_aside(step)
            say(f"checkpoint {step} is damaged ({reason}); moved to {aside}, trying the one before")
        if self._damaged.exists():  # from this start or an earlier one
            raise UserError(
                f"{self.directory}: none of its checkpoints can be read; pick another workdir to start over"
            )
        return None

    def _list_checksums(self) -> None:
        directory = self.directory / f"{self._under_way}{_TEMPORARY}"
        parts = (directory / "state", directory / "proof")
        write_checksums(directory, [path for part in parts for path in part.rglob("*") if path.is_file()])

    def _read(self, step: int, abstract: TrainState) -> TrainState:
        # A changed byte can end the process in TensorStore's threads, so what has one must not come to them. What an
        # earlier version saved has no checksums.
        if (self.directory / str(step) / LIST).exists():
            check_checksums(self.directory / str(step))
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), proof=ocp.args.JsonRestore())
        restored = self._manager.restore(step, args=items)
        # Orbax casts to the dtype it is asked for, and does not notice a changed byte.
        if tree_digest(restored["state"]) != restored["proof"]["digest"]:
            raise ValueError("its content is not what was saved")
        if int(restored["state"].step) != step:
            raise ValueError(f"its content is of step {int(restored['state'].step)}")
        return restored["state"]

    def steps(self) -> list[int]:
        """The steps that are saved, in order."""
        return sorted(self._manager.all_steps())

    def wait(self) -> None:
        """Returns once everything saved is on the disk; raises what went wrong in the background, as `save` does."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Finishes what is under way and lets go of threads and files; raises what `wait` does."""
        with self._writing():
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes an OSError of what went wrong in Orbax's threads, and removes what was half written."""
        try:
            yield
        except Exception as error:
            number = _errno(error)
            reason = os.strerror(number) if number else f"cannot be saved in: {_first_line(error)}"
            for path in self.directory.glob(f"*{_TEMPORARY}"):
                shutil.rmtree(path, ignore_errors=True)
            raise OSError(number or errno.EIO, reason, str(self.directory)) from error

    def _set_aside(self, step: int) -> Path:
        target = next(path for n in itertools.count() if not (path := self._damaged / f"{step}.{n}").exists())
        wait_for_all(f"{step} found damaged")
        if is_first():
            self._damaged.mkdir(exist_ok=True)
            (self.directory / str(step)).rename(target)
        wait_for_all(f"{step} set aside")
        self._manager.reload()
        return target


@contextlib.contextmanager
def _abandoned_reads_are_silent() -> Iterator[None]:
    """Has a checkpoint that cannot be read be told of once, by `restore`.

    Orbax abandons its other reads when one fails. As Python collects them, each complains in a traceback of its own.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook


@cache
def _quieten_late_writes() -> None:
    """Has a save that fails be told of once, by `save` or `wait`.

    The first write that fails ends Orbax's event loop. Those that come after it find it closed, each of which Python
    and asyncio would print with a traceback.
    """
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    others = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            others(unraisable)

    sys.unraisablehook = hook


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _errno(error: BaseException) -> int | None:
    """The system's number of what went wrong, if it was the system's."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # TensorStore's are ValueErrors.
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None
