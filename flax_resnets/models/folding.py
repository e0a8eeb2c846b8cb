"""Folding: BatchNorm multiplied into the convolutions before it, for networks that are only used for inference."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from flax_resnets.models.resnet import ResNet


def fold_batch_norm(model: ResNet, variables: Mapping[str, Any]) -> tuple[ResNet, dict[str, Any]]:
    """Makes a network for inference, whose BatchNorm layers (norms) are multiplied into their convolutions.

    With running statistics, a norm multiplies each channel by a factor and adds an offset. The factor goes into the
    kernel of the convolution before the norm, and only the offset stays: Jacob et al. 2017, arXiv:1712.05877, section
    3.2. The logits stay the same, up to rounding in float32.

    Args:
        model: a `ResNet` in which each BatchNorm follows its convolution: any but the pre-activated ones and those with
            group norm or standardised weights.
        variables: its `params` and `batch_stats`.

    Returns:
        The network with `batch_norm="folded"`, which cannot be trained, and its variables: `params` alone.

    Raises:
        ValueError: the network is none of these or has been folded already, or the variables have no `params` or no
            `batch_stats`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from flax_resnets import BasicBlock, ResNet
        >>> model = ResNet(stage_sizes=(1,), block=BasicBlock, num_classes=10, width=8)
        >>> x = jnp.ones((1, 32, 32, 3))
        >>> variables = jax.jit(model.init)(jax.random.key(0), x)
        >>> folded, folded_variables = fold_batch_norm(model, variables)
        >>> bool(jnp.allclose(folded.apply(folded_variables, x), model.apply(variables, x), atol=1e-4))
        True
    """
    if reason := why_not_folded(model):
        raise ValueError(reason)
    if missing := {"params", "batch_stats"} - variables.keys():
        raise ValueError(f"variables: have no {' and no '.join(sorted(missing))}; must be as model.init gives them")
    params = _folded(variables["params"], variables["batch_stats"], model.epsilon)
    return model.clone(batch_norm="folded"), {"params": params}


def why_not_folded(model: nn.Module) -> str:
    """Why a network cannot be folded; empty if it can.

    Example:
        >>> why_not_folded(ResNet(stage_sizes=(1,), norm="group"))
        "norm='group': has no running statistics, so it cannot be folded"
    """
    if not isinstance(model, ResNet):
        return f"model={type(model).__name__}: only a ResNet's norms can be folded"
    if model.norm != "batch":
        return f"norm={model.norm!r}: has no running statistics, so it cannot be folded"
    if model.standardize_weights:
        return "standardize_weights=True: would undo what is folded into a kernel"
    if model.block.preactivated:
        return f"block={model.block.__name__}: its norms come before their convolutions and cannot be folded"
    if model.batch_norm == "folded":
        return "batch_norm='folded': the network is folded already"
    return ""


def _folded(params: Mapping[str, Any], statistics: Mapping[str, Any], epsilon: float) -> dict[str, Any]:
    """The folded parameters of a module and of its submodules."""
    folded = {}
    for name, own in params.items():
        if name in statistics and "mean" in statistics[name]:
            slope = own["scale"] * jax.lax.rsqrt(statistics[name]["var"] + epsilon)
            folded[name] = {"bias": own["bias"] - statistics[name]["mean"] * slope}
            conv = name.replace("norm", "conv")  # every norm is named after its convolution
            folded[conv] = {"kernel": params[conv]["kernel"] * slope}
        elif name in statistics:
            folded[name] = _folded(own, statistics[name], epsilon)
        else:
            folded.setdefault(name, own)
    return folded
