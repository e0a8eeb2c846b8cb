"""Compiled programs, kept from one start to the next."""

from typing import Any

import jax

from flax_resnets.data.cache import cache_root


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles beside the image cache, unless the user has told it where already.

    A second start of a recipe then compiles nothing. What is kept is the executable itself: it computes the same bits.
    """
    settings: Any = jax.config  # jax 0.10's annotations lack the setting
    if settings.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_root() / "compiled"))
        # The many small programs of a start add up; by default only what took over a second is kept.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
