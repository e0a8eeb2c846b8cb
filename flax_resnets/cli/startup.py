"""Starts and ends a process of the command line: what is done before JAX is imported and after the command."""

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

_STOPS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup sets this
    _STOPS.append(signal.SIGHUP)

# Huge pages, and one heap. By default malloc makes a heap for each thread that writes a checkpoint.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"


def hold_signals() -> None:
    """Blocks the signals that stop a run, until `run` handles them.

    The imports take seconds. A signal that comes during them takes effect afterwards, when `run` begins. After `run`
    there is nothing to stop, so the signals have no effect.
    """
    for number in _STOPS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def release_signals() -> None:
    """Lets signals end the process immediately: for commands that save nothing and may take minutes."""
    for number in _STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def start_with_huge_pages() -> None:
    """Restarts this process's program once, with an environment variable that makes glibc's malloc use huge pages.

    On a CPU each step allocates gigabytes for its activations, and the system maps and clears each page at its first
    use. With pages of 4 KiB this takes a quarter of a ResNet-50's step, with pages of 2 MiB almost no time. glibc reads
    the variable only when a process starts.

    Does nothing if the system has no huge pages; if the environment already configures malloc (by `GLIBC_TUNABLES`,
    `MALLOC_ARENA_MAX` and the like), as it does after the restart; or under a debugger or profiler, which would lose
    the process.
    """
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    if not _python_runs_the_program_itself():
        return
    with suppress(OSError):  # not Linux, or not allowed: the program is slower without it
        if "[never]" not in modes.read_text():
            environment = {**os.environ, "GLIBC_TUNABLES": MALLOC}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _python_runs_the_program_itself() -> bool:
    """Whether Python runs only the program's file. A debugger or profiler is a second file that is being run."""
    frame: FrameType | None = sys._getframe()
    files = 0
    while frame is not None:
        files += frame.f_code.co_name == "<module>"
        frame = frame.f_back
    return files == 1


def end(code: int) -> NoReturn:
    """Ends the process without waiting for threads whose work is no longer needed, such as those of a download.

    In a run of several processes, Python ends the process as usual, so that the others are notified.
    """
    jax = sys.modules.get("jax")  # not imported by --help
    if jax is None or not jax.distributed.is_initialized():
        with suppress(OSError):  # the terminal is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
