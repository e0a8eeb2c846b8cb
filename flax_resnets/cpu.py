"""Settings that make JAX faster on a CPU, for any program: huge pages, and XLA's faster kernels."""

import glob
import importlib.util
import mmap
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
"""Value of `GLIBC_TUNABLES`: memory in huge pages, and one heap instead of one for each thread."""

XLA_OPTIONS: Mapping[str, str] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""XLA's options for programs that run many times on a CPU.

By default XLA computes several kinds of operation with the library YNNPACK. These options leave it only the reductions,
which it computes faster. Convolutions go to Eigen, which takes half the time for their gradients with respect to the
kernel.
"""

_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")
_STARTED_OVER = "FLAX_RESNETS_FAST_CPU"


def fast_cpu() -> None:
    """Makes a program as fast on a CPU as the trainer. Call it first, before JAX computes anything.

        import flax_resnets

        flax_resnets.fast_cpu()

    It sets two environment variables and restarts the program, once. `GLIBC_TUNABLES` asks for memory in huge pages: a
    training step allocates gigabytes, and the system clears each new page, which takes less time for fewer, larger
    pages. glibc reads that variable only when a process starts. `XLA_OPTIONS` are added to `XLA_FLAGS`, if the
    installed XLA knows them. What the program did before the call is done again after the restart.

    A program in a notebook, in an interactive session, in a test or under a debugger cannot be restarted. There only
    `XLA_FLAGS` is set, which JAX reads when it starts. On a machine with an accelerator nothing is done. Variables that
    the user has set are not changed. No error is raised.
    """
    if any(glob.glob(pattern) for pattern in _ACCELERATORS):
        return
    changes = fast_environment()
    if not changes:
        return
    if _STARTED_OVER not in os.environ and can_start_over():
        start_over(changes | {_STARTED_OVER: "1"})
    os.environ.update({name: value for name, value in changes.items() if name == "XLA_FLAGS"})


def fast_environment() -> dict[str, str]:
    """The environment variables that `fast_cpu` sets; without those that the user has set otherwise."""
    return _huge_pages() | _xla_flags()


def start_with_huge_pages() -> None:
    """Restarts this process's program, once, with memory in huge pages.

    It does nothing in three cases: the system has no huge pages; the environment already configures malloc
    (`GLIBC_TUNABLES`, `MALLOC_ARENA_MAX` and the like), as it does after the restart; or the program runs under a
    debugger or profiler, which would lose the process.
    """
    changes = _huge_pages()
    if changes and can_start_over():
        start_over(changes)


def start_over(changes: Mapping[str, str]) -> None:
    """Restarts this process's program with changes to its environment. Returns only if the system forbids it."""
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **changes})


def can_start_over() -> bool:
    """Whether running the same command line again would restart this program.

    That is so if Python runs one file, the program's. Under a debugger, a profiler, a notebook or pytest Python also
    runs that tool's file. An interactive session and a program that is read from standard input cannot be restarted.
    """
    if sys.flags.interactive or hasattr(sys, "ps1") or sys.argv[:1] in ([""], ["-"]):
        return False
    frame: FrameType | None = sys._getframe()
    files = 0
    while frame is not None:
        files += frame.f_code.co_name == "<module>"
        frame = frame.f_back
    return files == 1


def _huge_pages() -> dict[str, str]:
    """The variable for huge pages. Empty if the system has none, or the user has configured malloc."""
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return {}
    with suppress(OSError):  # the system has no huge pages
        if "[never]" not in _PAGES.read_text():
            return {"GLIBC_TUNABLES": MALLOC}
    return {}


def _xla_flags() -> dict[str, str]:
    """`XLA_FLAGS` with `XLA_OPTIONS` added. Empty if XLA does not know them, or the user has set one of them."""
    flags = os.environ.get("XLA_FLAGS", "")
    if any(option in flags for option in XLA_OPTIONS) or not _xla_knows(XLA_OPTIONS):
        return {}
    ours = " ".join(f"--{option}={value}" for option, value in XLA_OPTIONS.items())
    return {"XLA_FLAGS": f"{flags} {ours}".strip()}


def _xla_knows(options: Mapping[str, str]) -> bool:
    """Whether the installed XLA knows these options, by a search of its library's file.

    XLA ends the process if `XLA_FLAGS` has an unknown option, so trying is no way to find out.
    """
    found = importlib.util.find_spec("jaxlib")
    for directory in (found and found.submodule_search_locations) or ():
        for path in Path(directory).glob("*.so"):
            with (
                suppress(OSError, ValueError),  # the file cannot be read, or is empty
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                if all(content.find(option.encode()) >= 0 for option in options):
                    return True
    return False
