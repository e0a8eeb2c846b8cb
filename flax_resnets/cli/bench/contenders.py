"""The contenders of a case, and the process of each."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax_resnets
from flax_resnets.cli.bench.cases import Case
from flax_resnets.cli.bench.interleave import Contender, Process
from flax_resnets.cpu import MALLOC, fast_environment
from flax_resnets.paths import cache_root

OURS, LINEN, TORCH, CHECKOUT = "ours", "plain linen", "torchvision", "checkout"
IMPORTED, FAST = "imported", "imported, fast_cpu"
PEERS = (LINEN, IMPORTED, FAST, TORCH, CHECKOUT)
_HERE = Path(__file__).parent
_PATHS = [str(Path(flax_resnets.__file__).parents[1])]


def peers(
    case: Case,
    backend: str,
    wanted: Sequence[str] = PEERS,
    torch: str | Path | None = None,
    checkout: Path | None = None,
) -> list[Process]:
    """This package's contender and those it is compared with.

    Args:
        case: one that varies nothing.
        backend: as `jax.default_backend()` returns it.
        wanted: which of `PEERS` to measure besides this package.
        torch: python of an environment with torch and torchvision; None for this environment's, if it has them.
        checkout: another clone of this repository; None for none.
    """
    options = _options(case)
    jax_peers = [Contender(OURS, _HERE / "ours.py", options)]
    if LINEN in wanted:
        jax_peers.append(Contender(LINEN, _HERE / "plain_linen.py", options))
    processes = _jax_processes(jax_peers, backend)
    if backend == "cpu":  # elsewhere `fast_cpu` does nothing, and the network computes as in "ours"
        for name, environment in ((IMPORTED, {}), (FAST, fast_environment())):
            if name in wanted:
                contender = Contender(name, _HERE / "imported.py", options)
                processes.append(Process([contender], paths=_PATHS, environment=_environment() | environment))
    if CHECKOUT in wanted and checkout:
        # This tree's ours.py, since the other clone may have none; what it imports comes from the other clone.
        contender = Contender(CHECKOUT, _HERE / "ours.py", options)
        processes.append(Process([contender], paths=[str(checkout.resolve())], environment=_environment(malloc=True)))
    if TORCH in wanted and (torch or torch_is_here()):
        contender = Contender(TORCH, _HERE / "torch_peer.py", options)
        processes.append(Process([contender], torch or sys.executable, environment=foreign_environment(torch)))
    return processes


def scaling(case: Case, backend: str) -> list[Process]:
    """This package at each of the values of what the case varies; for the arguments see `peers`."""
    assert case.varied
    contenders = [
        Contender(f"{OURS}, {case.varied} {value}", _HERE / "ours.py", _options(case) | {case.varied: value})
        for value in case.values
    ]
    return _jax_processes(contenders, backend)


def torch_is_here() -> bool:
    """Whether this environment has torch and torchvision."""
    return all(importlib.util.find_spec(library) for library in ("torch", "torchvision"))


def foreign_environment(python: str | Path | None) -> dict[str, str] | None:
    """Environment variables for another environment's python, so that it does not import from this one."""
    if python is None:
        return None
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def _options(case: Case) -> dict[str, Any]:
    options = {"network": case.network, "work": case.work, "batch": case.batch, "size": case.size}
    return options | {"precision": case.precision}


def _jax_processes(contenders: list[Contender], backend: str) -> list[Process]:
    """One process for each contender; on a TPU one process for all, because only one process can use a TPU."""
    groups = [contenders] if backend == "tpu" else [[contender] for contender in contenders]
    return [Process(group, paths=_PATHS, environment=_environment(malloc=group[0].name != LINEN)) for group in groups]


def _environment(malloc: bool = False) -> dict[str, str]:
    defaults = {
        # Several processes share a GPU. By default JAX would give three quarters of its memory to the first.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        # This package caches its compiled programs anyway. The plain network's should not be compiled each time either.
        "JAX_COMPILATION_CACHE_DIR": str(cache_root() / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    if malloc:
        defaults["GLIBC_TUNABLES"] = MALLOC
    return defaults | os.environ
