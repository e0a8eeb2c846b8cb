"""The host's memory: kept by the process once it has it, and given back once a run needs it otherwise."""

import ctypes
import os
import sys

# mallopt's names for its parameters, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Has malloc keep what is freed for the next allocation, in place of returning it to the system.

    A step on processors allocates its activations anew, hundreds of megabytes at a time. Returned and asked for again,
    each of their pages is mapped and cleared by the system at first touch, which takes a fifth of a ResNet-50's step.
    Kept, it is touched once a run. The process holds more memory than it would, and several times as much where small
    allocations have come to lie in what a step left: 20 GB for a ResNet-50 on 64 images of 128 px, which needs 5.

    To be called before threads start. Does nothing where the C library is not glibc, and where the environment already
    tells malloc what to do (`GLIBC_TUNABLES`, `MALLOC_ARENA_MAX` and the like).
    """
    told = any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ)
    if sys.platform != "linux" or told:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return
    mallopt(_M_ARENA_MAX, 1)  # the others map and unmap whatever is large
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_freed_memory() -> None:
    """Returns to the system what malloc keeps for nothing.

    To be called where the steps to come allocate otherwise than those before, as on images of another size: what was
    kept for these fits no allocation of those, and would stay beside it to the end of the run. What does fit is faulted
    in anew, once. Does nothing where the C library is not glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
