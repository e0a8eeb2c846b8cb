"""What a measurement was made on."""

import os
import platform
from pathlib import Path
from typing import Any

# Settings that change speed from outside.
_SETTINGS = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_", "XLA_", "JAX_", "OMP_", "MKL_", "KMP_", "TF_ONEDNN", "DNNL_")


def describe_machine() -> dict[str, Any]:
    """Processor, cores this process may use, system, python, and the environment variables that change speed.

    Example:
        >>> sorted(describe_machine())
        ['cores', 'environment', 'platform', 'processor', 'python']
    """
    return {
        "processor": _processor(),
        "cores": cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_SETTINGS) and not name.endswith("_DIR")  # where things lie changes no speed
        },
    }


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
