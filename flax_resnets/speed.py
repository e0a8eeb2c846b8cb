"""What makes JAX's programs faster on a CPU, for a whole process: XLA's kernels, and memory in huge pages.

Both are decided as a process or its backend starts, so a program asks for them before anything else. Nothing is
imported here but the standard library, for the same reason.
"""

import glob
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NamedTuple

# Of what XLA leaves to YNNPACK on CPUs, sums are faster there. Convolutions are not: their gradients by the kernel take
# Eigen half the time.
KERNELS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

# Huge pages, and one heap, not one for each thread that writes a checkpoint.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"

_FLAGS = tuple(f"--{name}={value}" for name, value in KERNELS.items())
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# How GPUs and TPUs show themselves.
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*")


class SpeedUp(NamedTuple):
    """What is in force in this process.

    Attributes:
        kernels: XLA takes the faster of its kernels for convolutions.
        huge_pages: malloc asks the system for memory in huge pages.
    """

    kernels: bool
    huge_pages: bool


def speed_up_cpu() -> SpeedUp:
    """Makes this process's programs faster on a CPU: call it first thing in a program, before JAX computes anything.

    It puts an option for XLA into `XLA_FLAGS`, if this XLA has it. And it starts the program over, once, with
    `GLIBC_TUNABLES` in its environment: glibc decides on huge pages as a process starts, and a library has no say in it
    later. What stands before the call therefore runs twice.

    It starts nothing over where that was done already or the environment tells malloc something else; where JAX has
    computed already; and where the call is not in the file that Python was told to run, as in a notebook, a test, a
    library, a thread. There, `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before the command gives the same.

    Where JAX will find a GPU or TPU, it does nothing. It never raises an error.

    Returns:
        What is in force from here on. Where XLA has no such option, JAX has computed already, or the system has no huge
        pages, that is `False`.

    Example:
        >>> speed_up_cpu().huge_pages  # doctest: +SKIP
        True
    """
    if _on_a_cpu() and not _jax_has_started():
        set_already = os.environ.get("XLA_FLAGS", "")
        flags = " ".join([*set_already.split(), *_FLAGS])
        if not any(name in set_already for name in KERNELS) and _xla_takes(flags):
            os.environ["XLA_FLAGS"] = flags
        if _can_start_over(sys._getframe(1)):
            start_with_huge_pages()
    kernels = all(flag in os.environ.get("XLA_FLAGS", "").split() for flag in _FLAGS)
    return SpeedUp(kernels, "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", ""))


def start_with_huge_pages() -> None:
    """Starts this process's program over, once, with glibc's malloc told to ask the system for huge pages.

    A step on CPUs allocates its activations anew, gigabytes at a time, and the system maps and clears each page at
    first touch: a quarter of a ResNet-50's step with pages of 4 KiB, next to nothing with those of 2 MiB.

    Does nothing where the system has no huge pages to give, and where the environment already tells malloc what to do
    (`GLIBC_TUNABLES`, `MALLOC_ARENA_MAX` and the like), as it does after the restart.
    """
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError):  # another system, or one that forbids it: slower, and no less right
        if "[never]" not in _HUGE_PAGES.read_text():
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            environment = {**os.environ, "GLIBC_TUNABLES": MALLOC}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _on_a_cpu() -> bool:
    """Whether JAX will compute on the CPU, as far as can be told without starting it."""
    jax = sys.modules.get("jax")
    platforms = jax.config.jax_platforms if jax else os.environ.get("JAX_PLATFORMS")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    plugin = any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
    return not (plugin and any(glob.glob(pattern) for pattern in _ACCELERATORS))


def _jax_has_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")  # JAX has no public word for it
    return bridge is not None and getattr(bridge, "backends_are_initialized", lambda: False)()


def _xla_takes(flags: str) -> bool:
    """Whether this XLA knows the flags: it ends the process that has one it does not know, so another one asks."""
    if getattr(sys, "frozen", False) or not sys.executable:  # a program that is no Python to ask
        return False
    command = [sys.executable, "-c", "from jaxlib import _jax; _jax.CompileOptions()"]
    quiet = subprocess.DEVNULL
    with suppress(OSError, subprocess.SubprocessError):
        environment = {**os.environ, "XLA_FLAGS": flags}
        return not subprocess.run(command, env=environment, stdout=quiet, stderr=quiet, timeout=60).returncode
    return False


def _can_start_over(caller: FrameType) -> bool:
    """Whether the file that Python was told to run is calling, and nothing would be lost by running it again."""
    first = caller
    while first.f_back is not None:
        first = first.f_back
    main = sys.modules["__main__"].__dict__
    told = first.f_globals is main or first.f_globals.get("__name__") == "runpy"  # python FILE or python -m MODULE
    has_command = sys.argv[:1] not in ([], [""], ["-"])  # not typed in, and not from a pipe
    interactive = hasattr(sys, "ps1") or sys.flags.interactive or sys.flags.inspect
    alone = threading.active_count() == 1 and multiprocessing.parent_process() is None
    watched = sys.gettrace() is not None or getattr(sys, "frozen", False)
    return told and caller.f_globals is main and has_command and alone and not interactive and not watched
