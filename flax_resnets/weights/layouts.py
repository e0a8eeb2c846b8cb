"""How libraries call the tensors of a `ResNet`. A further library is a function and a line of `LAYOUTS`.

The names of the head are given apart from those of the body, because many files have a body alone, or keep the head in
another place.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from flax_resnets.models.resnet import ResNet
from flax_resnets.weights.names import BLOCK, LEAVES, Path, head_names, torch_name


class Place(NamedTuple):
    """Where a tensor of the body is.

    Attributes:
        stage: from 1; 0 in the stem.
        block: from 1 in each stage; 0 in the stem.
        kind: `conv` or `norm`.
        number: of the convolution, or of the norm after it, from 1 in each block and in the stem; 0 for the shortcut's.
        leaf: `kernel`, `scale`, `bias`, `mean` or `var`.
    """

    stage: int
    block: int
    kind: str
    number: int
    leaf: str


@dataclass(frozen=True)
class Layout:
    """The names that a library gives to the tensors of a `ResNet`.

    Attributes:
        library: as messages call it.
        body: the name of a tensor. Raises `KeyError` if the library has no such network.
        head: the name of the head's kernel without its last part.
        linen: whether the tensors are in Flax's trees: axes as here, and `/` between the parts of a name.
        prefix: what usually precedes the names of the body.
        differs: in what the library's network may differ from ours though all tensors fit; empty if in nothing.
    """

    library: str
    body: Callable[[ResNet, Path], str]
    head: Callable[[ResNet], str]
    linen: bool = False
    prefix: str = ""
    differs: Callable[[ResNet], str] = lambda model: ""

    def name(self, model: ResNet, path: Path) -> str:
        """The name of any tensor.

        Args:
            model: the network.
            path: the tensor's path in the variables, such as `("params", "stage1_block1", "conv1", "kernel")`.

        Raises:
            KeyError: the library has no such network.

        Example:
            >>> from flax_resnets import ResNet50
            >>> LAYOUTS[1].name(ResNet50(), ("params", "stage2_block1", "shortcut_conv", "kernel"))
            'encoder.stages.1.layers.0.shortcut.convolution.weight'
        """
        if path[1] != "head":
            return self.body(model, path)
        return f"params/{self.head(model)}/{path[-1]}" if self.linen else f"{self.head(model)}.{LEAVES[path[-1]]}"


_MODULE = re.compile(r"(?:stem_)?(conv|norm)(\d?)")


def _place(model: ResNet, path: Path) -> Place:
    """Raises `KeyError` for what only timm has: pre-activation, attention, other norms, a convolution as pool."""
    _, module, *inner, leaf = path
    block = BLOCK.fullmatch(module)
    parsed = _MODULE.fullmatch((inner[0] if block else module).removeprefix("shortcut_"))
    if parsed is None or model.block.preactivated or model.norm != "batch" or model.standardize_weights:
        raise KeyError(module)
    if not block:
        return Place(0, 0, parsed[1], int(parsed[2] or (3 if model.stem.startswith("deep") else 1)), leaf)
    return Place(int(block[1]), int(block[2]), parsed[1], int(parsed[2] or 0), leaf)


def _torch(name: Callable[[ResNet, Place], str]) -> Callable[[ResNet, Path], str]:
    """Names of torch, from a function that names the module."""
    return lambda model, path: f"{name(model, _place(model, path))}.{LEAVES[path[-1]]}"


def _linen(name: Callable[[ResNet, Place], str]) -> Callable[[ResNet, Path], str]:
    """Names of Flax's trees, from a function that names the module."""
    return lambda model, path: f"{path[0]}/{name(model, _place(model, path))}/{path[-1]}"


def _only(model: ResNet, stem: str, shortcut: str) -> None:
    if (model.stem, model.shortcut) != (stem, shortcut):
        raise KeyError(f"{model.stem}, {model.shortcut}")


def _timm_head(model: ResNet) -> str:
    return head_names(model)[0].removesuffix(".weight")


def _transformers(model: ResNet, at: Place) -> str:
    """Hugging Face transformers 5, `models/resnet/modeling_resnet.py`."""
    _only(model, "imagenet", "conv")
    layer = {"conv": "convolution", "norm": "normalization"}[at.kind]
    if not at.stage:
        return f"embedder.embedder.{layer}"
    inside = f"layer.{at.number - 1}" if at.number else "shortcut"
    return f"encoder.stages.{at.stage - 1}.layers.{at.block - 1}.{inside}.{layer}"


def _mmpretrain_deep(model: ResNet, at: Place) -> str:
    """The deep stem of mmpretrain 1, `models/backbones/resnet.py`. Otherwise its names are torchvision's."""
    _only(model, "deep", model.shortcut)
    if not at.stage:
        return f"stem.{at.number - 1}.{ {'conv': 'conv', 'norm': 'bn'}[at.kind] }"
    if at.number:
        return f"layer{at.stage}.{at.block - 1}.{ {'conv': 'conv', 'norm': 'bn'}[at.kind] }{at.number}"
    pooled = model.shortcut == "avg_pool" and at.stage > 1
    return f"layer{at.stage}.{at.block - 1}.downsample.{(at.kind == 'norm') + pooled}"


def _detectron2(model: ResNet, at: Place) -> str:
    """detectron2 0.6, `modeling/backbone/resnet.py`."""
    _only(model, "imagenet", "conv")
    module = f"conv{at.number}" if at.number else "shortcut"
    place = f"res{at.stage + 1}.{at.block - 1}" if at.stage else "stem"
    return f"{place}.{module}" + (".norm" if at.kind == "norm" else "")


def _detectron2_differs(model: ResNet) -> str:
    if model.block.expansion == 1 or model.stride_on == "1x1":
        return ""
    return "detectron2 may have the stride on the 1x1 (STRIDE_IN_1X1: True), here it is on the 3x3: stride_on='1x1'"


def _sequence(model: ResNet, path: Path) -> str:
    """The layers of torchvision in an `nn.Sequential`, as `nn.Sequential(*network.children())` makes them."""
    _only(model, "imagenet", model.shortcut)
    first, rest = torch_name(model, path).split(".", 1)
    place = {"conv1": 0, "bn1": 1, **{f"layer{stage}": stage + 3 for stage in range(1, 10)}}[first]
    return f"{place}.{rest}"


def _fastai(convolutions: str, shortcut: Callable[[int], str]) -> Callable[[ResNet, Path], str]:
    def name(model: ResNet, at: Place) -> str:
        _only(model, "deep", "avg_pool")
        last = int(at.kind == "norm")
        if not at.stage:
            return f"{at.number - 1}.{last}"
        inside = f"{convolutions}.{at.number - 1}" if at.number else shortcut(at.stage)
        return f"{at.stage + 3}.{at.block - 1}.{inside}.{last}"

    return _torch(name)


def _before(model: ResNet, at: Place) -> int:
    """The number of blocks in the network before a block."""
    return sum(model.stage_sizes[: at.stage - 1]) + at.block - 1


def _jax_resnet(model: ResNet, at: Place) -> str:
    """jax-resnet 0.0.4, `jax_resnet/resnet.py`: its networks are an `nn.Sequential`, whose second layer is the pool."""
    if (model.stem, model.shortcut) not in (("imagenet", "conv"), ("deep", "avg_pool")):
        raise KeyError(model.stem)
    skip = "ResNetSkipConnection_0" if model.shortcut == "conv" else "ResNetDSkipConnection_0"
    inside = f"ConvBlock_{at.number - 1}" if at.number else f"{skip}/ConvBlock_0"
    layer = f"layers_{_before(model, at) + 2}" if at.stage else "layers_0"
    return f"{layer}/{inside}/{ {'conv': 'Conv_0', 'norm': 'BatchNorm_0'}[at.kind] }"


def _flax_example(model: ResNet, at: Place) -> str:
    """Flax's own ImageNet example, `examples/imagenet/models.py`."""
    _only(model, "imagenet", "conv")
    if not at.stage:
        return {"conv": "conv_init", "norm": "bn_init"}[at.kind]
    block = f"{'ResNetBlock' if model.block.expansion == 1 else 'BottleneckResNetBlock'}_{_before(model, at)}"
    if not at.number:
        return f"{block}/{at.kind}_proj"
    return f"{block}/{ {'conv': 'Conv', 'norm': 'BatchNorm'}[at.kind] }_{at.number - 1}"


def _here(model: ResNet, path: Path) -> str:
    return "/".join(path)


LAYOUTS = (
    Layout("torchvision and timm", torch_name, _timm_head),
    Layout("transformers", _torch(_transformers), lambda model: "classifier.1", prefix="resnet."),
    Layout("mmpretrain", _torch(_mmpretrain_deep), lambda model: "head.fc"),
    Layout("detectron2", _torch(_detectron2), lambda model: "linear", differs=_detectron2_differs),
    Layout("nn.Sequential", _sequence, lambda model: str(len(model.stage_sizes) + 5)),
    Layout(
        "fastai",
        _fastai("convpath", lambda stage: f"idpath.{int(stage > 1)}"),
        lambda model: str(len(model.stage_sizes) + 7),
    ),
    Layout("fastai 1", _fastai("convs", lambda stage: "idconv"), lambda model: str(len(model.stage_sizes) + 6)),
    Layout("jax-resnet", _linen(_jax_resnet), lambda model: f"layers_{sum(model.stage_sizes) + 3}", linen=True),
    Layout(
        "Flax's example",
        _linen(_flax_example),
        lambda model: "Dense_0",
        linen=True,
        differs=lambda model: "Flax's example pads strided layers at the bottom and right alone, here on all sides",
    ),
    Layout("flax_resnets", _here, lambda model: "head", linen=True),
)

# Where a head may be that is not a part of the body, from there or further out: what people call it.
HEADS = ("fc", "head.fc", "classifier.1", "classifier", "linear", "head", "last_linear")
