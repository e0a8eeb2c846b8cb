"""BatchNorm folded into the convolutions before it: what a trained network that only classifies can do without."""

from collections.abc import Mapping
from typing import Any

import jax

from flax_resnets.models.normalization import EPSILON
from flax_resnets.models.resnet import ResNet


def fold_batch_norm(model: ResNet, variables: Mapping[str, Any]) -> tuple[ResNet, dict[str, Any]]:
    """The same network for inference alone, its norms multiplied into their convolutions.

    A norm by running statistics is a slope and an offset a channel. The slope goes into the kernel of the convolution
    before it, and only the offset stays: Jacob et al. 2017, arXiv:1712.05877, section 3.2. Logits stay the same to
    float32's rounding.

    Args:
        model: a `ResNet` whose norms follow their convolutions, so any but the pre-activated ones.
        variables: its `params` and `batch_stats`.

    Returns:
        The network with `batch_norm="folded"`, which cannot be trained, and its variables: `params` alone.

    Raises:
        ValueError: the network is no `ResNet` or pre-activated, its norms are folded already, or the variables have no
            `params` or `batch_stats`.

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
    if not isinstance(model, ResNet):
        raise ValueError(f"model={type(model).__name__}: only a ResNet's norms can be folded")
    if model.block.preactivated:
        raise ValueError(f"block={model.block.__name__}: its norms come before their convolutions and cannot be folded")
    if model.batch_norm == "folded":
        raise ValueError("batch_norm='folded': is folded already")
    if missing := {"params", "batch_stats"} - variables.keys():
        raise ValueError(f"variables: have no {' and no '.join(sorted(missing))}; must be as model.init gives them")
    params = _folded(variables["params"], variables["batch_stats"])
    return model.clone(batch_norm="folded"), {"params": params}


def _folded(params: Mapping[str, Any], statistics: Mapping[str, Any]) -> dict[str, Any]:
    """One module's parameters, and those of the modules in it."""
    folded = {}
    for name, own in params.items():
        if name in statistics and "mean" in statistics[name]:
            slope = own["scale"] * jax.lax.rsqrt(statistics[name]["var"] + EPSILON)
            folded[name] = {"bias": own["bias"] - statistics[name]["mean"] * slope}
            conv = name.replace("norm", "conv")  # every norm is named after its convolution
            folded[conv] = {"kernel": params[conv]["kernel"] * slope}
        elif name in statistics:
            folded[name] = _folded(own, statistics[name])
        else:
            folded.setdefault(name, own)
    return folded
