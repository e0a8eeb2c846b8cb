"""What is compared with torchvision and timm, and on which numbers: all that both sides of the comparison share.

Weights, images and labels are drawn from streams of random numbers that a tensor's name starts. Each side draws its
own and gets the same bits, so that no weights have to be kept or sent. Needs numpy alone.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

CLASSES = 1000

# A module's tensors, in the order in which golden files list what they know of them.
LEAVES = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Case:
    """A network here and its counterpart there.

    Attributes:
        model: a name of the registry.
        library: `torchvision` or `timm`.
        reference: the library's name of the network.
        sizes: pixels of the images' side; odd ones show on which side the padding is.
        batch: images.
        options: of `create_model` here.
        reference_options: of the library's constructor.
    """

    model: str
    library: str
    reference: str
    sizes: tuple[int, ...]
    batch: int = 2
    options: Mapping[str, Any] = field(default_factory=dict)
    reference_options: Mapping[str, Any] = field(default_factory=dict)


def _cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    # The deeper, the smaller the images: a laptop's processor is to manage their gradients.
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
    # Options, on a network that shows them.
    cases["resnet18+blur_pool"] = Case("resnet18", "timm", "resnetblur18", (97,), options={"blur_pool": True})
    cases["resnet50+blur_pool"] = Case("resnet50", "timm", "resnetblur50", (97,), options={"blur_pool": True})
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
    # Every graph with a smooth activation too. ReLU's gradient jumps at 0: where rounding carries one activation of
    # millions across, gradients differ by a percent, also between torch in float32 and torch in float64. Without that
    # jump every gradient can be held to 1e-3.
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


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Weights for tensors of torch's names and shapes, float32.

    Kernels keep the size of what passes through them, and norms shrink it a little. Running statistics are near 0 and
    1, and none is like another. What a bottleneck's branch adds is small, as in trained networks: otherwise rounding
    grows from block to block, and behind 150 layers torch itself is 1e-3 from the truth.
    """
    return {name: _weight(name, shape) for name, shape in shapes.items()}


def images(size: int, batch: int) -> np.ndarray:
    """Random images `(batch, size, size, 3)` of variance 1, float32."""
    return _uniform(f"images {size}", (batch, size, size, 3), -(3**0.5), 3**0.5)


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
    """From the raw stream, which numpy promises never to change, unlike what it makes of it."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    raw = np.random.Philox(key=key).random_raw(int(np.prod(shape)))
    unit = (raw >> np.uint64(40)).astype(np.float64) / 2**24
    return (low + (high - low) * unit).astype(np.float32).reshape(shape)
