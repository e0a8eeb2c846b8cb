"""How a process of the command line begins and ends: before JAX is imported, and after everything is done."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_STOPS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
    _STOPS.append(signal.SIGHUP)

# Huge pages, and one heap, not one for each thread that writes a checkpoint.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"


def hold_signals() -> None:
    """Keeps requests to stop waiting until somebody listens.

    The imports take seconds: whoever asks for a stop meanwhile is heard after them, when `run` listens. And after `run`
    nothing is left to stop.
    """
    for number in _STOPS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def release_signals() -> None:
    """Lets requests to stop end the process at once: where there is nothing to save, and minutes of waiting."""
    for number in _STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def start_with_huge_pages() -> None:
    """Starts this process's program over, once, with glibc's malloc told to ask the system for huge pages.

    A step on a CPU allocates its activations anew, gigabytes at a time, and the system maps and clears each page at
    first touch: a quarter of a ResNet-50's step with pages of 4 KiB, next to nothing with those of 2 MiB. glibc decides
    on them as a process starts, by an environment variable; a library has no say in it later.

    Does nothing where the system has no huge pages to give; where the environment already tells malloc what to do
    (`GLIBC_TUNABLES`, `MALLOC_ARENA_MAX` and the like), as it does after the restart; and under a debugger or profiler,
    which would lose hold of the process.
    """
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    if not _python_runs_the_program_itself():
        return
    with suppress(OSError):  # another system, or one that forbids it: slower, and no less right
        if "[never]" not in modes.read_text():
            environment = {**os.environ, "GLIBC_TUNABLES": MALLOC}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _python_runs_the_program_itself() -> bool:
    """Whether one file is being run, the program's: under a debugger or profiler there is that one's as well."""
    frame: FrameType | None = sys._getframe()
    files = 0
    while frame is not None:
        files += frame.f_code.co_name == "<module>"
        frame = frame.f_back
    return files == 1


def end(code: int) -> NoReturn:
    """Ends the process, without waiting for threads that have nothing to say any more, as those of a download.

    One of several processes ends as Python does: the others are told.
    """
    jax = sys.modules.get("jax")  # --help has not waited for it
    if jax is None or not jax.distributed.is_initialized():
        with suppress(OSError):  # the terminal is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
