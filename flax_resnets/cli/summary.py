"""Prints a network's layers: for each its output's shape, its parameters and its multiply-adds for one image.

Multiply-adds are those of convolutions and linear layers. Nothing is computed: shapes alone pass through the network.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.module import InterceptorContext

from flax_resnets.cli.parser import whole_number
from flax_resnets.cli.table import table
from flax_resnets.errors import UserError
from flax_resnets.models.registry import MODELS, create_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("model", help="a name that `python -m flax_resnets models` lists")
    parser.add_argument("--image-size", type=whole_number(1), metavar="N", help="pixels of a side; the model's own")
    parser.add_argument("--channels", type=whole_number(1), metavar="N", help="of the image; the model's own")
    parser.add_argument("--num-classes", type=whole_number(0), metavar="N", help="outputs; the model's own")
    parser.add_argument("--depth", type=whole_number(1), default=1, metavar="N", help="2 shows what blocks are made of")


def run(arguments: argparse.Namespace) -> None:
    """Prints the table.

    Raises:
        UserError: no such model, or it does not take such images.
    """
    name = arguments.model
    create_model(name)  # so that a misspelt name gets the nearest
    entry = MODELS[name]
    size = arguments.image_size or entry.input_size
    channels = arguments.channels or entry.channels
    num_classes = entry.num_classes if arguments.num_classes is None else arguments.num_classes
    try:
        layers = summarize(create_model(name, num_classes), (size, size, channels), arguments.depth)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        reason = str(error).partition("\n")[0]  # JAX adds a word on its tracebacks
        raise UserError(f"summary: {name} on images of {size} x {size} x {channels}: {reason}") from error
    parameters = sum(layer.parameters for layer in layers)
    multiply_adds = sum(layer.multiply_adds for layer in layers)
    print(f"{name} on images of {size} x {size} x {channels}, {num_classes:,} classes; {entry.source}\n")
    rows = [
        [
            layer.name,
            layer.kind,
            " x ".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
        ]
        for layer in layers
    ]
    rows.append(["total", "", "", f"{parameters:,}", f"{multiply_adds:,}"])
    print(table(["layer", "kind", "output", "parameters", "multiply-adds"], rows, left=3))
    print(f"\n{_short(parameters)} parameters, {_short(multiply_adds)} multiply-adds")


@dataclass
class Layer:
    """What a layer, or a block of them, comes to.

    Attributes:
        name: of the module, with those it is part of: `stage1_block1/conv1`.
        kind: the module's class.
        output: shape for one image, `(H, W, C)` or `(C,)`.
        parameters: how many it holds.
        multiply_adds: for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize(model: nn.Module, image_shape: tuple[int, int, int], depth: int = 1) -> list[Layer]:
    """A network's layers in the order they are called; those without parameters are left out.

    A kernel is applied once at every position of its output, so its size times the positions is its layer's
    multiply-adds, whatever the kernel's own shape, stride or groups: for a convolution and for a linear layer alike.

    Args:
        model: the network.
        image_shape: `(H, W, C)`.
        depth: how far to look into modules: 1 for those the network itself is made of.

    Example:
        >>> from flax_resnets import create_model
        >>> first, *_, last = summarize(create_model("resnet18"), (224, 224, 3))
        >>> first.name, first.output, first.multiply_adds == 7 * 7 * 3 * 64 * 112 * 112
        ('stem_conv', (112, 112, 64), True)
        >>> last.name, last.parameters
        ('head', 513000)
    """
    calls: list[tuple[tuple[str, ...], str, tuple[int, ...]]] = []

    def watch(method: Any, args: Any, kwargs: Any, context: InterceptorContext) -> Any:
        output = method(*args, **kwargs)
        if context.method_name == "__call__":
            calls.append((context.module.path, type(context.module).__name__, output.shape[1:]))
        return output

    key = jax.eval_shape(lambda: jax.random.key(0))
    with nn.intercept_methods(watch):
        variables = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))

    layers: dict[tuple[str, ...], Layer] = {}
    for path, kind, output in calls:  # what a module is made of comes before the module itself
        layer = layers.setdefault(path[:depth], Layer("/".join(path[:depth]), kind, output, 0, 0))
        if len(path) <= depth:
            layer.kind, layer.output = kind, output
        own = _own_parameters(variables["params"], path)
        layer.parameters += sum(leaf.size for leaf in own.values())
        if "kernel" in own:
            layer.multiply_adds += own["kernel"].size * math.prod(output[:-1])
    return [layer for layer in layers.values() if layer.parameters]


def _own_parameters(params: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters of the module at a path, without those of the modules in it."""
    for name in path:
        params = params.get(name, {})
    return {name: leaf for name, leaf in params.items() if not isinstance(leaf, Mapping)}


def _short(number: int) -> str:
    """Three digits and a unit: 1.81 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
