"""Trained weights by timm's names, such as `resnet50.a1_in1k`: a network's name, a dot, and a tag for its training.

The table is pretrained.csv, which `benchmarks.records.pretrained` writes from timm's own.
"""

import csv
import difflib
import functools
from collections.abc import Mapping
from importlib import resources
from typing import NamedTuple

from flax_resnets.errors import UserError


class Pretrained(NamedTuple):
    """One set of trained weights.

    Attributes:
        name: timm's, such as `resnet50.a1_in1k`.
        repository: on the Hugging Face hub, whose card tells the training.
        num_classes: outputs of the head.
        size, test_size: side of the images in training, and of those at which timm evaluates it, in pixels.
        test_crop_pct: share of an image's shorter side that timm shows the network in its evaluation.
        licence: of the weights, by its SPDX identifier in lower case.
        top1, top5: percent of ImageNet-1k's validation images, at `test_size` and `test_crop_pct`, as timm publishes
            it (docs/pretrained.md has the source); None where it does not, and for heads of other classes.
    """

    name: str
    repository: str
    num_classes: int
    size: int
    test_size: int
    test_crop_pct: float
    licence: str
    top1: float | None
    top5: float | None

    @property
    def model(self) -> str:
        """The network's name."""
        return self.name.partition(".")[0]


@functools.cache
def pretrained_weights() -> Mapping[str, Pretrained]:
    """The table, by name.

    Example:
        >>> weights = pretrained_weights()["resnet50.a1_in1k"]
        >>> weights.repository, weights.top1
        ('timm/resnet50.a1_in1k', 81.214)
        >>> free = (each for each in pretrained_weights().values() if each.licence == "apache-2.0" and each.top1)
        >>> max((each for each in free if each.test_size <= 288), key=lambda each: each.top1).name
        'seresnext101_32x8d.ah_in1k'
    """
    text = (resources.files("flax_resnets.models") / "pretrained.csv").read_text(encoding="utf-8")
    table = {}
    for name, repository, classes, size, test_size, crop, licence, *accuracies in csv.reader(text.splitlines()[1:]):
        top1, top5 = (float(percent) if percent else None for percent in accuracies)
        sizes = int(size), int(test_size), float(crop)
        table[name] = Pretrained(name, repository, int(classes), *sizes, licence, top1, top5)
    return table


def find_pretrained(name: str) -> Pretrained:
    """The entry of that name.

    Raises:
        UserError: there is none; the message has those of the network, or the nearest.

    Example:
        >>> find_pretrained("resnet18.a9_in1k")
        Traceback (most recent call last):
        flax_resnets.errors.UserError: resnet18.a9_in1k: no such weights; did you mean resnet18.a3_in1k, ...?
    """
    if not isinstance(name, str):
        raise UserError(f"name={name!r}: must be a string, such as 'resnet50.a1_in1k'")
    table = pretrained_weights()
    if name in table:
        return table[name]
    of_it = [each for each in table if each.partition(".")[0] == name.partition(".")[0]]
    close = difflib.get_close_matches(name, of_it or table, n=4, cutoff=0 if of_it else 0.6)
    if not of_it and "." not in name:
        raise UserError(f"{name}: has no trained weights by name; list_models(pretrained=True) lists what has")
    right = f"did you mean {', '.join(close)}?" if close else "list_models(pretrained=True) lists them"
    raise UserError(f"{name}: no such weights; {right}")
