"""The comparisons that can be measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Case:
    """One comparison: of contenders with each other, or of this package with itself at other sizes.

    Attributes:
        what: a short description.
        network: a name that torchvision has as well.
        work: `train` for a training step with SGD, `inference` for logits.
        batch: images in a batch.
        size: side of an image, in pixels.
        varied: `batch` or `size` if only this package is measured, at each of `values`.
        values: values of what is varied.
        precision: of the computation; parameters are float32.
    """

    what: str
    network: str
    work: Literal["train", "inference"]
    batch: int
    size: int
    varied: Literal["batch", "size"] | None = None
    values: tuple[int, ...] = ()
    precision: Literal["float32", "bfloat16"] = "float32"


CASES: Mapping[str, Case] = {
    "rn18-train": Case("ResNet-18, training step", "resnet18", "train", 64, 128),
    "rn50-train": Case("ResNet-50, training step", "resnet50", "train", 32, 128),
    "rn18-inference": Case("ResNet-18, inference", "resnet18", "inference", 16, 224),
    "rn50-inference": Case("ResNet-50, inference", "resnet50", "inference", 16, 224),
    "scaling-batch": Case(
        "ResNet-18, training step by batch", "resnet18", "train", 64, 128, "batch", (16, 32, 64, 128, 256)
    ),
    "scaling-size": Case(
        "ResNet-18, training step by size",
        "resnet18",
        "train",
        32,
        128,
        "size",
        (64, 96, 128, 160, 192, 224),
    ),
}
