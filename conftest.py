"""For tests and docstrings alike: caches go where they vanish, and a slow machine is no failure."""

import os
from importlib.metadata import version

import jax
import pytest
from hypothesis import settings

settings.register_profile("flax_resnets", deadline=None)
settings.load_profile("flax_resnets")

# Most of the tests' time is compiling. Without LLVM's optimisations it takes a third less; and what remains a third, in
# jax 0.10, with XLA's older way to write loops. Later versions have the new way alone, and end a process for the flag.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    QUICK_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false"

# The flags are read as the backend starts and then taken back, so that processes which tests start compile as a user's.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {QUICK_TO_COMPILE}")
    jax.devices()


@pytest.fixture(autouse=True, scope="session")
def _caches_of_the_session(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cache")
    jax.config.update("jax_compilation_cache_dir", str(directory / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAX_RESNETS_CACHE", str(directory))  # inherited by the processes that tests start
        yield


@pytest.fixture(scope="session")
def quick_to_compile() -> dict[str, str]:
    """The environment of a process that has another subject than the programs it compiles."""
    return {"XLA_FLAGS": QUICK_TO_COMPILE}


@pytest.fixture(scope="module")
def processes_compile_quickly(quick_to_compile):
    """For all processes of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", quick_to_compile["XLA_FLAGS"])
        yield
