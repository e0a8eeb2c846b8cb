"""The fields that choose the network, and the network built from them."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, Rule
from flax_resnets.models.normalization import ghost_size
from flax_resnets.models.registry import create_model

Precision = Literal["float32", "bfloat16", "float16"]
DTYPES: Mapping[str, Dtype] = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float16": jnp.float16}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Fields):
    """The fields that choose the network and its precision.

    Attributes:
        model: a name from `flax_resnets.list_models()`.
        model_options: keywords for `flax_resnets.create_model`, such as `{"stem": "small"}`.
        precision: dtype of the network's computation; parameters stay float32. With `float16` the loss is scaled.
        batch_norm: `global`, `device` or `ghost:K`; see `flax_resnets.models.normalization.BatchNorm`.
    """

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"
    batch_norm: str = "global"

    RULES = (
        Rule("batch_norm", lambda v: v != "folded", "global, device or ghost:K: a folded network cannot be trained"),
    )

    def check(self) -> None:
        """See `Fields.check`."""
        super().check()
        try:
            json.dumps(self.model_options, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"model_options: must be what config.json can hold: {error}") from None
        try:
            ghost_size(self.batch_norm)
        except ValueError as error:
            raise UserError(str(error)) from None


@contextlib.contextmanager
def taking(config: NetworkConfig, image_shape: Sequence[int]) -> Iterator[None]:
    """Turns the errors of a network that does not take images of a shape, `(H, W, C)`, into a UserError."""
    try:
        yield
    except UserError:  # of a recipe's own optimizer, or of weights
        raise
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"model={config.model!r} on images of {tuple(image_shape)}: {error}") from error


def make_model(config: NetworkConfig, num_classes: int) -> nn.Module:
    """The network that a configuration names, with its precision and kind of BatchNorm.

    Raises:
        UserError: `model_options` has an option that another field or training itself sets.
        ValueError: there is no such network or option.
    """
    for option in ("dtype", "batch_norm", "axis_name", "num_classes", "name", "parent"):
        if option in config.model_options:
            right = {"dtype": "precision", "batch_norm": "batch_norm", "name": "model"}.get(
                option, "nothing: training decides it"
            )
            raise UserError(f"model_options.{option}={config.model_options[option]!r}: set {right} instead")
    # `global` is the default of every norm. A network without norms raises an error for any other value.
    norm = {} if config.batch_norm == "global" else {"batch_norm": config.batch_norm}
    return create_model(config.model, num_classes, dtype=DTYPES[config.precision], **norm, **config.model_options)
