"""For tests and docstrings alike: caches go where they vanish, and a slow machine is no failure."""

import gc
import itertools
import os
from importlib.metadata import version

import jax
import pytest
from hypothesis import settings

settings.register_profile("flax_resnets", deadline=None)
settings.load_profile("flax_resnets")

# Most of the tests' time is compiling. Without LLVM's optimisations it takes a third less; and what remains a third, in
# jax 0.10, with XLA's older way to write loops. Later versions have the new way alone, and end a process for the flag.
# Splitting each program for several compiling threads costs a tenth more, and tests have a core for each process.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    QUICK_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"

# Processes which tests start inherit the flags: compiled as a user's, a small run takes them four times as long.
if QUICK_TO_COMPILE not in os.environ.get("XLA_FLAGS", ""):  # a worker of pytest-xdist has them from the first process
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}".strip()
jax.devices()


@pytest.fixture(autouse=True, scope="session")
def _caches_of_the_session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAX_RESNETS_CACHE", str(directory))  # inherited by the processes that tests start
        yield


_modules = itertools.count(1)


@pytest.fixture(autouse=True, scope="module")
def _what_a_module_leaves_is_not_searched_again():
    """Traces of programs stay in JAX's caches: a million objects, which every later collection would go through."""
    yield
    if next(_modules) % 30 == 0:  # then what has become garbage since is found, in up to five seconds
        gc.unfreeze()
    gc.collect()
    gc.freeze()
