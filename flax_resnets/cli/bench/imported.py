"""This package's network in a program that only imports it: what a user gets without the trainer."""

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp

from flax_resnets import create_model
from flax_resnets.cli.bench import plain_step
from flax_resnets.cli.bench.plain_step import CLASSES


def prepare(
    network: str,
    work: Literal["train", "inference"],
    batch: int,
    size: int,
    precision: Literal["float32", "bfloat16"] = "float32",
) -> tuple[Callable[[int], None], dict[str, Any]]:
    """Prepares a contender; for the arguments see `ours.prepare`."""
    return plain_step.prepare(create_model(network, CLASSES, dtype=jnp.dtype(precision)), work, batch, size)
