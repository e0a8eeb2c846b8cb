"""Export: a network's variables under the names and in the shapes that torchvision or timm load."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
from flax import linen as nn

from flax_resnets.errors import UserError
from flax_resnets.models.resnet import ResNet
from flax_resnets.weights.load import expected_shapes
from flax_resnets.weights.mismatch import Mismatch
from flax_resnets.weights.names import first_conv, leaves, padded_shape, torch_name, torch_order

Layout = Literal["timm", "torchvision"]


def export_state_dict(model: nn.Module, variables: Mapping[str, Any], layout: Layout = "timm") -> dict[str, np.ndarray]:
    """Converts a network's variables to the `state_dict` of the same network in torch. `load_weights` reads it back.

    The result holds numpy arrays. As tensors they can be loaded by torch's `load_state_dict`; it does not need
    `num_batches_tracked`, which is left out. `numpy.savez(path, **state)` or
    `safetensors.numpy.save_file(state, path)` write them to a file.

    Args:
        model: a `ResNet`.
        variables: `{"params": ..., "batch_stats": ...}`, as `model.init` or training returned them.
        layout: whose names to use. `torchvision` is only for networks that torchvision has; for these both layouts give
            the same names. Neither library has small stems, padded shortcuts, strides on a 1x1, or pre-activated blocks
            with squeeze-excite or groups. With `timm` they get names of timm's scheme, which `load_weights` reads.

    Returns:
        float32 arrays by name, kernels `(O, I, H, W)`. They share no memory with the variables.

    Raises:
        UserError: the variables do not fit the model, its norms are folded, or torchvision has no such network and
            `layout` is `torchvision`.

    Example:
        >>> import flax_resnets, jax, jax.numpy as jnp
        >>> model = flax_resnets.ResNet(stage_sizes=(1,), width=8, num_classes=10)
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
        >>> state = export_state_dict(model, jax.tree.map(jnp.ones_like, shapes))
        >>> state["layer1.0.conv2.weight"].shape
        (8, 8, 3, 3)
    """
    if not isinstance(model, ResNet):
        raise UserError(f"model={type(model).__name__}: only a ResNet has names in torchvision and timm")
    if layout not in get_args(Layout):
        raise UserError(f"layout={layout!r}: must be one of {', '.join(get_args(Layout))}")
    if model.batch_norm == "folded":
        raise UserError("batch_norm='folded': torch's networks have norms; export the network that is not folded")
    if layout == "torchvision" and not _torchvision_has(model):
        timm = (
            "timm has: layout='timm'"
            if _timm_has(model)
            else "nor has timm, but layout='timm' gives names of its scheme, which load_weights reads"
        )
        raise UserError(f"layout='torchvision': torchvision has no such network; {timm}")
    state: dict[str, np.ndarray] = {}
    mismatch = Mismatch()
    given = dict(leaves(variables))
    kernel = given.get(first_conv(model), 0.0)
    channels = np.shape(kernel)[2] if np.ndim(kernel) == 4 else 3
    expected = expected_shapes(model, (32, 32, channels))
    mismatch.extra.extend("/".join(path) for path in given.keys() - expected.keys())
    for path, shape in expected.items():
        if path not in given:
            mismatch.missing.append("/".join(path))
        elif np.shape(given[path]) != shape:
            mismatch.misshaped.append(f"{'/'.join(path)!r} is {np.shape(given[path])}, not {shape}")
        else:
            name = torch_name(model, path)
            value = torch_order(np.asarray(given[path], np.float32))
            state[name] = np.array(value.reshape(padded_shape(name, value.shape)), order="C")
    mismatch.raise_if_any("variables")
    return state


# Attributes that all of torchvision's networks have as we have them by default.
_NOT_IN_TORCHVISION = (
    *("stem", "stem_channels", "stem_pool", "shortcut", "squeeze_excite", "activation", "stride_on", "blur_pool"),
    *("global_pool", "norm", "standardize_weights", "epsilon"),
)


def _torchvision_has(model: ResNet) -> bool:
    plain = all(getattr(model, name) == getattr(ResNet, name) for name in _NOT_IN_TORCHVISION)
    return plain and not model.block.preactivated


def _timm_has(model: ResNet) -> bool:
    unknown_there = (
        model.stem == "small"
        or model.shortcut == "pad"
        or model.stride_on == "1x1"
        or model.norm == "none"
        or (model.block.preactivated and (model.squeeze_excite or model.groups > 1))
    )
    return not unknown_there
