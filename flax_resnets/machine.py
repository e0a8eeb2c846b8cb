"""Describes the machine and the libraries with which a run or a measurement was made."""

import contextlib
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Environment variables that change speed.
_SETTINGS = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_", "XLA_", "JAX_", "OMP_", "MKL_", "KMP_", "TF_ONEDNN", "DNNL_")

# Those that decide numbers and speed.
_LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe_machine() -> dict[str, Any]:
    """CPU, number of cores that this process may use, system, Python, and environment variables that change speed.

    Example:
        >>> sorted(describe_machine())
        ['cores', 'cpu', 'environment', 'platform', 'python']
    """
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_SETTINGS) and not name.endswith("_DIR")  # directories do not change speed
        },
    }


def library_versions(libraries: Sequence[str] = _LIBRARIES) -> dict[str, str]:
    """The versions of those libraries that are installed.

    Example:
        >>> list(library_versions(("numpy", "no-such-library")))
        ['numpy']
    """
    versions = {}
    for library in libraries:
        with contextlib.suppress(PackageNotFoundError):
            versions[library] = version(library)
    return versions


def cores() -> int:
    """The number of cores that this process may use: a scheduler may have given it a part of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
