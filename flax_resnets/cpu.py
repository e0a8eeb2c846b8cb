"""The full speed of a CPU, for any program that uses JAX: huge pages, and XLA's faster kernels."""

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
"""What `GLIBC_TUNABLES` tells glibc: huge pages, and one heap instead of one for each thread."""

XLA_OPTIONS: Mapping[str, str] = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""XLA's options for programs that run many times on a CPU.

XLA may leave several kinds of operation to YNNPACK. Sums are faster there. Convolutions are not: Eigen takes half the
time for their gradients with respect to the kernel.
"""

_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd")
_STARTED_OVER = "FLAX_RESNETS_FAST_CPU"


def fast_cpu() -> None:
    """Gives a program on a CPU the speed that the trainer has: call it first, before JAX computes anything.

        import flax_resnets

        flax_resnets.fast_cpu()

    It starts the program over, once, with two environment variables. `GLIBC_TUNABLES` gives memory in huge pages: a
    training step allocates gigabytes anew, and the system clears each page at its first use. glibc reads it only when a
    process starts. `XLA_FLAGS` gets `XLA_OPTIONS`, where the installed XLA knows them. What the program did before the
    call is done twice.

    A program cannot be started over in a notebook, in an interactive session, in a test or under a debugger. There it
    sets `XLA_FLAGS` alone, for JAX to read when it starts. On a machine with an accelerator it does nothing. Variables
    that the user has set stay as they are. It raises no error.
    """
    if any(glob.glob(pattern) for pattern in _ACCELERATORS):
        return
    changes = _huge_pages() | _xla_flags()
    if not changes:
        return
    if _STARTED_OVER not in os.environ and can_start_over():
        start_over(changes | {_STARTED_OVER: "1"})
    os.environ.update({name: value for name, value in changes.items() if name == "XLA_FLAGS"})


def start_with_huge_pages() -> None:
    """Starts this process's program over, once, with memory in huge pages.

    Does nothing if the system has no huge pages to give; if the environment already tells malloc what to do
    (`GLIBC_TUNABLES`, `MALLOC_ARENA_MAX` and the like), as it does after the restart; or under a debugger or profiler,
    which would lose hold of the process.
    """
    changes = _huge_pages()
    if changes and can_start_over():
        start_over(changes)


def start_over(changes: Mapping[str, str]) -> None:
    """Starts this process's program over with changes to its environment; returns if the system forbids it."""
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **changes})


def can_start_over() -> bool:
    """Whether Python runs one file, the program's, so that its command line starts the same again.

    Under a debugger, a profiler, a notebook or pytest there is another file above the program's. An interactive session
    and a program that comes by standard input cannot be started over.
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
    """The variable that asks for them; none if it would change nothing, or what the user has set."""
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return {}
    with suppress(OSError):  # of a system without huge pages
        if "[never]" not in _PAGES.read_text():
            return {"GLIBC_TUNABLES": MALLOC}
    return {}


def _xla_flags() -> dict[str, str]:
    """`XLA_FLAGS` with `XLA_OPTIONS`; none if XLA does not know them, or the user has set one of them."""
    flags = os.environ.get("XLA_FLAGS", "")
    if any(option in flags for option in XLA_OPTIONS) or not _xla_knows(XLA_OPTIONS):
        return {}
    ours = " ".join(f"--{option}={value}" for option, value in XLA_OPTIONS.items())
    return {"XLA_FLAGS": f"{flags} {ours}".strip()}


def _xla_knows(options: Mapping[str, str]) -> bool:
    """Whether the names stand in XLA's library. XLA ends the process for a flag that it does not know."""
    found = importlib.util.find_spec("jaxlib")
    for directory in (found and found.submodule_search_locations) or ():
        for path in Path(directory).glob("*.so"):
            with (
                suppress(OSError, ValueError),  # of a file that cannot be read, or is empty
                path.open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                if all(content.find(option.encode()) >= 0 for option in options):
                    return True
    return False
