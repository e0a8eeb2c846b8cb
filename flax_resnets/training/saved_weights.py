"""Reads the weights in a checkpoint, and nothing else of it. Reading takes no lock and writes nothing.

A run may be under way in the same workdir, on any number of devices. This module does not import the trainer.
"""

import contextlib
import errno
import gc
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from flax_resnets.training.checksums import LIST, check_checksums

# What keeps a good file from being read.
_OF_THE_SYSTEM = {
    getattr(errno, name) for name in ("EMFILE", "ENFILE", "EACCES", "EPERM", "ENOMEM", "EIO", "ESTALE", "ETIMEDOUT")
}


def read_weights(checkpoint: Path, average: bool = False) -> dict[str, Any] | None:
    """The weights that a checkpoint holds.

    Only the weights' arrays are read, but first the checksums of all files are compared: a changed byte can end the
    process in a thread of TensorStore. Checkpoints of earlier versions have no checksums.

    Args:
        checkpoint: the directory of one saved step.
        average: whether to read the average of the weights (EMA) instead of the weights themselves.

    Returns:
        `{"params": ..., "batch_stats": ...}`, nested dicts of numpy arrays as they were saved; None if the run keeps no
        average and `average` asks for it.

    Raises:
        Exception: of any class: the checkpoint is damaged, or is gone. Catch it inside `abandoned_reads_are_silent`.
    """
    if (checkpoint / LIST).exists():
        check_checksums(checkpoint)
    with _orbax_is_silent(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as orbax:
        state = (checkpoint / "state").resolve()
        saved = _tree(orbax.metadata(state))
        if average:
            saved = saved.get("ema") or {}
            if "params" not in saved:
                return None
        weights = {part: saved[part] for part in ("params", "batch_stats")}
        wanted: Any = {"ema": weights} if average else weights
        as_numpy = _mapped(wanted, ocp.RestoreArgs(restore_type=np.ndarray))
        arguments = ocp.args.PyTreeRestore(item=wanted, restore_args=as_numpy, partial_restore=True)
        restored = orbax.restore(state, args=arguments)
    return restored["ema"] if average else restored


def _tree(metadata: Any) -> dict[str, Any]:
    return metadata.item_metadata.tree


def _mapped(tree: Any, value: Any) -> Any:
    return {name: _mapped(branch, value) for name, branch in tree.items()} if isinstance(tree, dict) else value


@contextlib.contextmanager
def _orbax_is_silent() -> Iterator[None]:
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def abandoned_reads_are_silent() -> Iterator[list[str]]:
    """Suppresses the warnings that follow a failed read, so that the failure is reported once, by the caller.

    When one read fails, Orbax abandons its other reads. Each prints a traceback when Python collects it. The list that
    this gives takes what the failed read said; without an entry nothing is collected, which takes a second where there
    are many objects.
    """
    failed: list[str] = []
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield failed
            if failed:
                gc.collect()
    finally:
        sys.unraisablehook = hook


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def errno_of(error: BaseException) -> int | None:
    """The errno of an operating system error; None if the error is of another kind."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # TensorStore raises ValueErrors that contain the number.
    found = re.search(r"os_error_code='(\d+)'", str(error))
    return int(found[1]) if found else None


def is_of_the_system(error: BaseException) -> bool:
    """Whether an error of reading is one that a good file gives too, such as "Permission denied"."""
    return errno_of(error) in _OF_THE_SYSTEM
