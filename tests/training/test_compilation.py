"""XLA's options for CPUs: used if this XLA knows them, left out if not."""

import jax
import jax.numpy as jnp
import pytest

from flax_resnets.training import compilation
from flax_resnets.training.placement import make_mesh


def test_this_xla_knows_the_options_for_speed():
    # If this fails, a new XLA has dropped the options: look for their replacement, and measure.
    assert compilation.for_speed(make_mesh())


@pytest.mark.parametrize("options_for", [compilation.for_speed, compilation.quick_to_compile])
def test_a_program_compiles_with_them(options_for, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS")
    options = options_for(make_mesh())
    assert options
    assert jax.jit(lambda x: x + 1, compiler_options=options)(jnp.ones(())) == 2


def test_a_level_of_optimisation_that_the_user_sets_stays(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=3")
    assert compilation.quick_to_compile(make_mesh()) == {}


@pytest.mark.parametrize("option", [("xla_cpu_no_such_option", "1"), ("xla_backend_optimization_level", "high")])
def test_an_option_that_xla_refuses_is_not_known(option):
    assert not compilation._known((option,))


@pytest.mark.parametrize("blocked", ["cache", "cache/compiled"])
def test_where_nothing_can_be_written_no_programs_are_kept(tmp_path, monkeypatch, blocked):
    """JAX would warn at each."""
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "cache"))
    kept = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache" / "compiled")
        (tmp_path / blocked).parent.mkdir(exist_ok=True)
        (tmp_path / blocked).touch()
        jax.config.update("jax_compilation_cache_dir", None)
        compilation.keep_compiled_programs()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", kept)
