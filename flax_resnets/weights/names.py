"""The names that torchvision and timm give to the tensors of a `ResNet`.

Where both have a network, their names are the same: `conv1`, `bn1`, `layer1.0.conv1`, ..., `fc`. Networks that only
timm has use the same scheme (the `d` variants, squeeze-excite) or another one (the pre-activated `resnetv2`:
`stem.conv`, `stages.0.blocks.0.norm1`, ..., `head.fc`). So each tensor of a network has exactly one name. It follows
from the network's attributes and the tensor's path in the variables; the order of the tensors does not matter.

The names are those of torchvision 0.29 (`torchvision.models.resnet`) and timm 1.0 (`timm.models.resnet`,
`timm.models.resnetv2`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from flax_resnets.models.resnet import ResNet

Path = tuple[str, ...]

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "gain": "gain",
    "mean": "running_mean",
    "var": "running_var",
}

_STEM_POOL = {"stem_pool_conv": "maxpool.0", "stem_pool_norm": "maxpool.1"}

# The deep stem has three convolutions, of which `stem_conv` is the last. timm also numbers the activations between
# them.
_DEEP_STEM = {
    "stem_conv1": "conv1.0",
    "stem_norm1": "conv1.1",
    "stem_conv2": "conv1.3",
    "stem_norm2": "conv1.4",
    "stem_conv": "conv1.6",
    "stem_norm": "bn1",
    "head": "fc",
}
_STEM = {"stem_conv": "conv1", "stem_norm": "bn1", "head": "fc"}
_V2_DEEP_STEM = {
    "stem_conv1": "stem.conv1",
    "stem_norm1": "stem.norm1",
    "stem_conv2": "stem.conv2",
    "stem_norm2": "stem.norm2",
    "stem_conv": "stem.conv3",
    "head_norm": "norm",
    "head": "head.fc",
}
_V2_STEM = {"stem_conv": "stem.conv", "head_norm": "norm", "head": "head.fc"}
BLOCK = re.compile(r"stage(\d+)_block(\d+)")


def torch_name(model: ResNet, path: Path) -> str:
    """The name that torchvision and timm give to a tensor of a network.

    Args:
        model: the network.
        path: the tensor's path in the variables, such as `("params", "stage1_block1", "conv1", "kernel")`.

    Raises:
        KeyError: the network has no such tensor.

    Example:
        >>> from flax_resnets import ResNet50
        >>> torch_name(ResNet50(), ("batch_stats", "stage2_block1", "shortcut_norm", "mean"))
        'layer2.0.downsample.1.running_mean'
    """
    _, module, *inner, leaf = path
    deep = model.stem.startswith("deep")
    block = BLOCK.fullmatch(module)
    if model.block.preactivated:
        outer = _V2_DEEP_STEM if deep else _V2_STEM
        prefix = f"stages.{int(block[1]) - 1}.blocks.{int(block[2]) - 1}" if block else outer[module]
    else:
        outer = (_DEEP_STEM if deep else _STEM) | _STEM_POOL
        prefix = f"layer{block[1]}.{int(block[2]) - 1}" if block else outer[module]
    return ".".join([prefix, *_inside_block(model, inner), LEAVES[leaf]])


def _inside_block(model: ResNet, inner: list[str]) -> list[str]:
    if not inner:
        return []
    if inner[0] == "channel_attention":
        return ["se", "conv"]
    if inner[0] == "squeeze_excite":
        return ["se", {"reduce": "fc1", "expand": "fc2"}[inner[1]]]
    if inner[0].startswith("shortcut"):
        if model.block.preactivated:
            return ["downsample", "conv"]
        # In `d` networks a layer comes before them: the average-pool, or an identity where nothing is halved.
        place = ["shortcut_conv", "shortcut_norm"].index(inner[0]) + (model.shortcut == "avg_pool")
        return ["downsample", str(place)]
    return [inner[0] if model.block.preactivated else inner[0].replace("norm", "bn")]


def first_conv(model: ResNet) -> Path:
    """The path of the kernel that takes the images.

    Example:
        >>> from flax_resnets import create_model
        >>> first_conv(create_model("resnet50d"))
        ('params', 'stem_conv1', 'kernel')
    """
    return ("params", "stem_conv1" if model.stem.startswith("deep") else "stem_conv", "kernel")


def head_names(model: ResNet) -> tuple[str, str]:
    """The names of the weight and the bias of the head.

    Example:
        >>> from flax_resnets import ResNet18
        >>> head_names(ResNet18())
        ('fc.weight', 'fc.bias')
    """
    return torch_name(model, ("params", "head", "kernel")), torch_name(model, ("params", "head", "bias"))


def features_of(model: ResNet) -> int:
    """The number of features that the head takes.

    Example:
        >>> from flax_resnets import ResNet50
        >>> features_of(ResNet50())
        2048
    """
    pools = 2 if model.global_pool == "catavgmax" else 1
    return model.width * 2 ** (len(model.stage_sizes) - 1) * model.block.expansion * pools


def is_pointwise(name: str) -> bool:
    """Whether timm stores this fully connected layer as a 1x1 convolution, so that its weight ends in two axes of 1.

    Example:
        >>> is_pointwise("layer1.0.se.fc1.weight"), is_pointwise("fc.weight")
        (True, False)
    """
    return name.endswith((".fc1.weight", ".fc2.weight", "head.fc.weight"))


def padded_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which timm stores a tensor: some have axes of 1 at their end.

    Args:
        name: of the tensor.
        shape: its shape in torch's order.

    Example:
        >>> padded_shape("layer1.0.se.fc1.weight", (4, 64)), padded_shape("stem.conv.gain", (64,))
        ((4, 64, 1, 1), (64, 1, 1, 1))
    """
    ones = 2 if is_pointwise(name) else 3 if name.endswith(".gain") else 0
    return shape + (1,) * ones


def torch_order(kernel: np.ndarray) -> np.ndarray:
    """A tensor with its axes in torch's order: `(H, W, I, O)` to `(O, I, H, W)`, `(I, O)` to `(O, I)`, `(C,)` as it is.

    Example:
        >>> torch_order(np.zeros((3, 5, 8, 16))).shape
        (16, 8, 3, 5)
    """
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of `torch_order`'s result.

    Example:
        >>> torch_shape((3, 5, 8, 16))
        (16, 8, 3, 5)
    """
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def linen_order(kernel: np.ndarray) -> np.ndarray:
    """The inverse of `torch_order`.

    Example:
        >>> linen_order(np.zeros((16, 8, 3, 5))).shape
        (3, 5, 8, 16)
    """
    return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T


def leaves(variables: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All tensors in nested mappings, each with its path.

    Example:
        >>> list(leaves({"params": {"head": {"bias": 1, "kernel": 2}}}))
        [(('params', 'head', 'bias'), 1), (('params', 'head', 'kernel'), 2)]
    """
    for name, value in variables.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def nested(tensors: Mapping[Path, Any]) -> dict[str, Any]:
    """The inverse of `leaves`.

    Example:
        >>> nested({("params", "head", "bias"): 1, ("params", "head", "kernel"): 2})
        {'params': {'head': {'bias': 1, 'kernel': 2}}}
    """
    tree: dict[str, Any] = {}
    for (*scopes, leaf), value in tensors.items():
        branch = tree
        for scope in scopes:
            branch = branch.setdefault(scope, {})
        branch[leaf] = value
    return tree
