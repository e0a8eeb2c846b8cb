"""Compiler options, and the cache of compiled programs."""

import os
from functools import cache
from typing import Any

import jax
from jax.sharding import Mesh

from flax_resnets.cpu import XLA_OPTIONS
from flax_resnets.paths import cache_root, in_the_way


def keep_compiled_programs() -> None:
    """Makes JAX cache compiled programs beside the image cache, unless the user has chosen another place.

    The next start of a recipe then compiles nothing. The cache holds the executable itself, so it computes the same
    bits. If the cache cannot be written, it is not used, because JAX would warn at each program.
    """
    settings: Any = jax.config  # jax 0.10's annotations lack the setting
    if settings.jax_compilation_cache_dir is None and in_the_way(directory := cache_root() / "compiled") is None:
        jax.config.update("jax_compilation_cache_dir", str(directory))
        # The many small programs of a start add up. By default JAX caches only what took more than a second to compile.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def for_speed(mesh: Mesh) -> dict[str, Any]:
    """XLA's options for a program that runs many times on the mesh's devices: `jax.jit(..., compiler_options=...)`."""
    options = dict(XLA_OPTIONS)
    return options if _on_cpu(mesh) and _known(tuple(options.items())) else {}


def quick_to_compile(mesh: Mesh) -> dict[str, Any]:
    """XLA's options for a program that runs once. A level of optimisation that `XLA_FLAGS` sets stays."""
    # With all of LLVM's optimisations, the program that draws the initial weights takes many times longer to compile.
    level = "xla_backend_optimization_level"
    return {level: 1} if _on_cpu(mesh) and level not in os.environ.get("XLA_FLAGS", "") else {}


def _on_cpu(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


@cache
def _known(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether this XLA knows these options. Experimental options come and go; without them programs are only slower."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
