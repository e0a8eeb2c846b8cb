"""The cases that are compared with torchvision and timm, and their weights and images. Both sides import this module.

Weights, images and labels are random numbers. The seed of each tensor is its name. So both sides draw the same bits,
and no weights need to be stored or sent. This module needs numpy alone.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

CLASSES = 1000

# The tensors of a module, in the order in which the golden files list their figures.
LEAVES = ("weight", "bias", "running_mean", "running_var")


Size = int | tuple[int, int]


@dataclass(frozen=True)
class Case:
    """A network of this library, and the same network in another library.

    Attributes:
        model: name of the network here.
        library: `torchvision` or `timm`.
        reference: name of the network in that library.
        sizes: side of the images in pixels, or height and width. Odd sizes show on which side the padding is.
        batch: number of images.
        options: attributes of the network here.
        reference_options: arguments of the library's constructor.
    """

    model: str
    library: str
    reference: str
    sizes: tuple[Size, ...]
    batch: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    reference_options: Mapping[str, Any] = field(default_factory=dict)


# Networks that timm alone has, at two sizes, of which one is odd and not square.
_TIMMS = (
    *("resnet10t", "resnet14t", "resnet26t", "resnet50t", "resnet50s"),
    *("resnetblur18", "resnetblur50", "resnetblur50d", "resnetaa50", "resnetaa50d"),
    *("resnet50_gn", "resnetv2_50d_gn", "ecaresnet26t", "ecaresnet50d", "ecaresnet50t", "resnetrs50"),
    *("resnext50d_32x4d", "seresnext26d_32x4d", "seresnext50_32x4d", "seresnext101_32x8d"),
    *("resnext101_64x4d", "resnext101_32x16d", "resnetrs101", "resnetrs152", "resnet200d"),
    *("resnetv2_50x1_bit", "resnetv2_101x1_bit", "resnetv2_50x3_bit", "resnetv2_101x3_bit"),
)
_SIZES: tuple[Size, ...] = (96, (107, 75))
_EVEN: tuple[Size, ...] = (96, (64, 96))  # for timm's resnetaa*, which refuses odd sizes

_ONE = (1, 1, 1, 1)
_GROUP_NORM = {"norm_layer": "GroupNormAct"}
# Networks with one block in each stage, which is enough to compare an option: timm's network, and its arguments.
_ONE_BLOCK: dict[str, tuple[str, Mapping[str, Any]]] = {
    "resnetaa50d": ("resnetaa50d", {}),
    "ecaresnet26t": ("ecaresnet26t", {}),
    "resnetrs50": ("resnetrs50", {}),
    "resnet50_gn": ("resnet50_gn", {}),
    "resnetv2_50d_gn": ("resnetv2_50d_gn", {}),
    # timm's resnetv2_50x1_bit does not let its number of blocks be chosen.
    "resnetv2_50": ("resnetv2_50", {"conv_layer": "ScaledStdConv2d", "norm_layer": "none"}),
    "resnetv2_50x1_bit": ("resnetv2_50", {"stem_type": "fixed", "conv_layer": "StdConv2d", **_GROUP_NORM}),
}


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    # Deeper networks get smaller images, so that a laptop's CPU can compute their gradients.
    sizes = {18: (160, 193, 224), 34: (161,), 50: (129,), 101: (97,), 152: (97,)}
    for depth, of_depth in sizes.items():
        once, batch = of_depth[:1], 4 if depth > 50 else 2
        d_once = (193,) if depth == 18 else once
        cases[f"resnet{depth}"] = Case(f"resnet{depth}", "torchvision", f"resnet{depth}", of_depth, batch)
        cases[f"resnet{depth}d"] = Case(f"resnet{depth}d", "timm", f"resnet{depth}d", d_once, batch)
        cases[f"resnetv2_{depth}"] = Case(f"resnetv2_{depth}", "timm", f"resnetv2_{depth}", once, batch)
        cases[f"seresnet{depth}"] = Case(f"seresnet{depth}", "timm", f"seresnet{depth}", once, batch)
    for name in ("resnet26", "resnet26d"):
        cases[name] = Case(name, "timm", name, (129,))
    for name in ("resnext50_32x4d", "wide_resnet50_2"):
        cases[name] = Case(name, "torchvision", name, (97,))
    for name in ("resnext101_32x8d", "wide_resnet101_2"):
        cases[name] = Case(name, "torchvision", name, (97,), 4)
    for name in _TIMMS:
        cases[name] = Case(name, "timm", name, _EVEN if "aa" in name else _SIZES)
    for name, (reference, arguments) in _ONE_BLOCK.items():  # with a smooth activation function, see below
        norm = {"norm": "none"} if "none" in arguments.values() else {}
        options = (
            {"stage_sizes": _ONE, "activation": "silu", **norm},
            {"layers": _ONE, "act_layer": "silu", **arguments},
        )
        name_of_case = "+".join((name, *(["norm_none"] if norm else []), "one_block", "silu"))
        cases[name_of_case] = Case(name, "timm", reference, _EVEN if "aa" in name else _SIZES, 2, *options)
    for pool in ("max", "avgmax", "catavgmax"):
        options = {"global_pool": pool, "activation": "gelu"}, {"global_pool": pool, "act_layer": "gelu"}
        cases[f"resnet10t+global_pool_{pool}+gelu"] = Case("resnet10t", "timm", "resnet10t", _SIZES, 2, *options)
    stride_on = {"stride_on": "1x1", "stage_sizes": _ONE, "activation": "silu"}
    cases["resnet26+stride_on_1x1+one_block+silu"] = Case(
        *("resnet26", "timm", "resnet26", _SIZES, 2),
        options=stride_on,
        reference_options={"layers": _ONE, "act_layer": "silu", "stride_on_1x1": True},
    )
    # Options, each on a network on which it has an effect.
    cases["resnet18+blur_pool"] = Case("resnet18", "timm", "resnetblur18", (97,), options={"blur_pool": True})
    cases["resnet50+blur_pool"] = Case("resnet50", "timm", "resnetblur50", (97,), options={"blur_pool": True})
    for name, reference in (("resnet18", "resnetblur18"), ("resnet50", "resnetblur50")):
        for stride in (8, 16):
            dilated = {"output_stride": stride}
            cases[f"{name}+blur_pool+output_stride{stride}"] = Case(
                name, "timm", reference, (97,), options={"blur_pool": True, **dilated}, reference_options=dilated
            )
    for name in ("resnet18", "resnet50d", "resnetv2_18"):
        for stride in (8, 16):
            dilated = {"output_stride": stride}
            cases[f"{name}+output_stride{stride}"] = Case(
                name, "timm", name, (97,), options=dilated, reference_options=dilated
            )
    cases["resnet50d+squeeze_excite"] = Case(
        "resnet50d",
        "timm",
        "resnet50d",
        (97,),
        options={"squeeze_excite": True},
        reference_options={"block_args": {"attn_layer": "se"}},
    )
    # Every graph with a smooth activation function too. ReLU's gradient jumps at 0. If rounding moves one of millions
    # of activations across 0, gradients differ by a percent; this also happens between torch in float32 and torch in
    # float64. Without that jump, every gradient must agree to 1e-3.
    of_50_layers = ("resnet50", "resnet50d", "resnetv2_50", "seresnet50", "resnext50_32x4d", "wide_resnet50_2")
    smooth = {
        "silu": ("resnet18", "resnetv2_18", "seresnet18", *of_50_layers),
        "mish": ("resnet18",),
        "gelu": ("resnet18", "resnet18d"),
    }
    for activation, names in smooth.items():
        for name in names:
            options = {"activation": activation}, {"act_layer": activation}
            cases[f"{name}+{activation}"] = Case(name, "timm", name, (97,), 2, *options)
    return cases


CASES = _cases()

# Networks without golden figures, whose evaluation alone is compared. In 152x2's golden logits, torch's own float32
# would be 1.5e-4 beside its float64. 152x4 has 936 million parameters: with gradients in float64 they take 30 GB.
EVALUATED = {name: Case(name, "timm", name, _SIZES) for name in ("resnetv2_152x2_bit", "resnetv2_152x4_bit")}


@dataclass(frozen=True)
class Option:
    """An option of our networks and of timm's.

    Attributes:
        ours: attributes of `ResNet`.
        theirs: for each of our networks, the arguments of timm's network; a network that is missing has no such option.
    """

    ours: Mapping[str, Any]
    theirs: Mapping[str, Mapping[str, Any]]


# Small networks with each kind of block. The last two stages have two blocks.
_V1, _V2 = ("resnet18", "resnet26"), ("resnetv2_18", "resnetv2_50")
_PAIRED = (*_V1, *_V2)
_BLURRED = {"resnet18": "resnetblur18", "resnet26": "resnetblur50"}
_STAGES = (1, 1, 2, 2)


def _paired_options() -> dict[str, Option]:
    def theirs(networks: Iterable[str] = _PAIRED, **arguments: Any) -> dict[str, Mapping[str, Any]]:
        return dict.fromkeys(networks, arguments)

    options = {
        "stem=deep": Option(
            {"stem": "deep"}, theirs(_V1, stem_type="deep", stem_width=32) | theirs(_V2, stem_type="deep")
        ),
        "shortcut=avg_pool": Option({"shortcut": "avg_pool"}, theirs(avg_down=True)),
        "groups=32 of 4": Option(
            {"groups": 32, "width_per_group": 4}, theirs(("resnet26",), cardinality=32, base_width=4)
        ),
        "width_per_group=128": Option(
            {"width_per_group": 128},
            theirs(("resnet26",), base_width=128)
            | theirs(("resnetv2_18",), bottle_ratio=2.0)
            | theirs(("resnetv2_50",), bottle_ratio=0.5),
        ),
        # In timm's other networks, a stem that is not deep always has 64 channels.
        "width=32": Option({"width": 32}, theirs(_V2, width_factor=0.5)),
        "squeeze_excite": Option({"squeeze_excite": True}, theirs(_V1, block_args={"attn_layer": "se"})),
        "blur_pool": Option({"blur_pool": True}, theirs(_BLURRED)),  # in timm, networks with names of their own
    }
    for activation in ("silu", "mish", "gelu"):
        options[f"activation={activation}"] = Option({"activation": activation}, theirs(act_layer=activation))
    for stride in (8, 16):
        options[f"output_stride={stride}"] = Option({"output_stride": stride}, theirs(output_stride=stride))
    options["stochastic_depth"] = Option({"stochastic_depth": 0.2}, theirs(drop_path_rate=0.2))
    options["dropout"] = Option({"dropout": 0.3}, theirs(drop_rate=0.3))
    return options


PAIRED_OPTIONS = _paired_options()


def _pairs() -> dict[str, Case]:
    """Each option alone and every pair of options, on each network for which both we and timm have them."""
    cases = {}
    for network in _PAIRED:
        options = {name: option for name, option in PAIRED_OPTIONS.items() if network in option.theirs}
        for names in ((), *combinations(options, 1), *combinations(options, 2)):
            chosen = [options[name] for name in names]
            ours = [key for option in chosen for key in option.ours]
            if len(set(ours)) < len(ours):  # two values of the same attribute
                continue
            cases["+".join((network, *names))] = Case(
                network,
                "timm",
                _BLURRED[network] if "blur_pool" in names else network,
                ((64, 64), (75, 53)),
                4,
                {"stage_sizes": _STAGES, **{key: value for option in chosen for key, value in option.ours.items()}},
                {
                    "layers": _STAGES,
                    **{key: value for option in chosen for key, value in option.theirs[network].items()},
                },
            )
    return cases


PAIRS = _pairs()


def comparable(case: Case) -> tuple[str, ...]:
    """The results that must agree. Results of training that depend on each side's own random draws are left out."""
    if case.options.get("stochastic_depth"):
        return ("eval", "stages")
    return ("eval", "stages", "statistics", *(() if case.options.get("dropout") else ("train",)))


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights for tensors with torch's names and shapes, float32.

    A kernel keeps the scale of its inputs, and a norm shrinks it a little. Running statistics are near 0 and 1, and all
    different. A bottleneck's branch adds little to its input, as in trained networks. Otherwise rounding errors would
    grow from block to block, and after 150 layers torch itself would be 1e-3 from the exact result.
    """
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def images(size: Size, batch: int) -> np.ndarray:
    """Random images `(batch, height, width, 3)` with variance 1, float32."""
    height, width = sides(size)
    return _uniform(f"images {size}", (batch, height, width, 3), -(3**0.5), 3**0.5)


def labels(batch: int) -> np.ndarray:
    """Random labels `(batch,)`."""
    return (_uniform("labels", (batch,), 0, 1) * CLASSES).astype(np.int64)


def _weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("running_mean"):
        return _uniform(name, shape, -0.2, 0.2)
    if name.endswith("running_var"):
        return _uniform(name, shape, 0.5, 1.5)
    if name.endswith("bias"):
        return _uniform(name, shape, -0.2, 0.2)
    ends_branch = name.endswith("bn3.weight") or (name.startswith("stages.") and name.endswith("conv3.weight"))
    factor = 0.2 if ends_branch else 1.0
    if len(shape) == 1:
        return _uniform(name, shape, 0.5 * factor, 1.0 * factor)
    bound = (6 / np.prod(shape[1:])) ** 0.5 * factor  # He et al. 2015, for a uniform distribution
    return _uniform(name, shape, -bound, bound)


def _uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Computed from the generator's raw stream, which numpy promises never to change, unlike its distributions."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(int(np.prod(shape)))
    unit = (raw >> np.uint64(40)).astype(np.float64) / 2**24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)
