"""How programs are compiled, and that they are kept from one start to the next."""

from functools import cache
from typing import Any

import jax
from jax.sharding import Mesh

from flax_resnets.data.cache import cache_root
from flax_resnets.speed import KERNELS


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles beside the image cache, unless the user has told it where already.

    A second start of a recipe then compiles nothing. What is kept is the executable itself: it computes the same bits.
    """
    settings: Any = jax.config  # jax 0.10's annotations lack the setting
    if settings.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
        # The many small programs of a start add up; by default only what took over a second is kept.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def for_speed(mesh: Mesh) -> dict[str, Any]:
    """XLA's options for a program that runs many times on the mesh's devices: `jax.jit(..., compiler_options=...)`."""
    return dict(KERNELS) if _on_cpus(mesh) and _known(tuple(KERNELS.items())) else {}


def for_once(mesh: Mesh) -> dict[str, Any]:
    """XLA's options for a program that runs once."""
    # With all of LLVM's optimisations, drawing the initial weights takes a CPU many times longer to compile.
    return {"xla_backend_optimization_level": 1} if _on_cpus(mesh) else {}


def _on_cpus(mesh: Mesh) -> bool:
    return mesh.devices.flat[0].platform == "cpu"


@cache
def _known(options: tuple[tuple[str, Any], ...]) -> bool:
    """Whether this XLA has such options: experimental ones come and go, and their loss costs speed alone."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
