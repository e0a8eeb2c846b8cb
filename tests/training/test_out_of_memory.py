"""The message for too little memory, by asking for more than any CPU can address."""

import jax
import jax.numpy as jnp
import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.out_of_memory import out_of_memory


def test_memory_that_no_device_has_names_what_asked_for_it():
    words = r"^batch_size=9: out of the device's memory \(.*\d{15} bytes\); take fewer$"
    with pytest.raises(UserError, match=words), out_of_memory("batch_size=9", "take fewer"):
        jax.block_until_ready(jax.jit(lambda: jnp.ones((2**24, 2**23)))())


def test_another_error_of_xlas_stays_itself():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), out_of_memory("batch_size=9", "take fewer"):
        raise jax.errors.JaxRuntimeError("INTERNAL: RESOURCE_EXHAUSTED: no")
