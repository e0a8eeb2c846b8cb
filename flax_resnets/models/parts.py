"""The parts of a network, in order from its first layer to its head. They can be frozen, and follow rates by depth."""

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

HEAD = "head"
"""The last part of every network."""

_BLOCK = re.compile(r"stage\d+_block\d+")


def parts_of(model: nn.Module, image_shape: Sequence[int]) -> dict[str, tuple[str, ...]]:
    """The parts of a network, each with the names of its modules in the variables; all in the order of the layers.

    The parts of a `ResNet` are `stem`, `stage1` and so on, and `head`: the names that its attribute `frozen` takes.
    Those of the other networks are their modules in the variables, such as `conv1` or `inception3a`, and `head`. A norm
    belongs to the layer that it follows. Nothing is computed.

    Args:
        model: the network.
        image_shape: `(H, W, C)` of the images.

    Raises:
        ValueError: the network does not take images of this shape.

    Example:
        >>> from flax_resnets import create_model
        >>> parts = parts_of(create_model("resnet18"), (64, 64, 3))
        >>> list(parts), parts["stage2"]
        (['stem', 'stage1', 'stage2', 'stage3', 'stage4', 'head'], ('stage2_block1', 'stage2_block2'))
    """
    modules: list[str] = []

    def init(images: jax.Array) -> None:
        modules.extend(model.init(jax.random.key(0), images)["params"])  # in the order in which they are applied

    jax.eval_shape(init, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    parts: dict[str, tuple[str, ...]] = {}
    for module in modules:
        name = module.partition("_")[0]
        if name.startswith("norm"):
            name = next(reversed(parts))
        parts[name] = (*parts.get(name, ()), module)
    return parts


def layers_of(parts: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """The modules of a network in groups of equal depth: the stem, each residual block, and the head.

    These are timm's (`timm.models.group_parameters` with the networks' `group_matcher`): the norm before the head
    belongs to the last block. In a network without residual blocks each part is a group.

    Args:
        parts: as `parts_of` returns them.

    Returns:
        The groups, the stem's first and the head's last.

    Example:
        >>> layers_of({"stem": ["stem_conv"], "stage1": ["stage1_block1", "stage1_block2"], "head": ["head"]})
        [('stem_conv',), ('stage1_block1',), ('stage1_block2',), ('head',)]
    """
    layers: list[tuple[str, ...]] = []
    for part, modules in parts.items():
        norms = tuple(module for module in modules if part == HEAD and "norm" in module)
        if norms:
            layers[-1] += norms
        others = [module for module in modules if module not in norms]
        blocks = all(_BLOCK.fullmatch(module) for module in others)
        layers += [(module,) for module in others] if blocks else [tuple(others)]
    return layers
