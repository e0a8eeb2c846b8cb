"""Prints a network's layers with their output shapes, their parameters and their multiply-adds for one image.

    flax-resnets summary resnet50
    flax-resnets summary resnet18 --image-size 64 --num-classes 10 --depth 2

Multiply-adds are those of convolutions and linear layers. Nothing is computed: only shapes pass through the network.
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
    """Adds the command's arguments."""
    parser.add_argument("model", help="a name that `python -m flax_resnets models` lists")
    parser.add_argument("--image-size", type=whole_number(1), metavar="N", help="side in pixels; default the model's")
    parser.add_argument("--channels", type=whole_number(1), metavar="N", help="of the image; default the model's")
    parser.add_argument("--num-classes", type=whole_number(0), metavar="N", help="outputs; default the model's")
    parser.add_argument(
        "--depth", type=whole_number(1), default=1, metavar="N", help="2 shows layers in blocks; default 1"
    )


def run(arguments: argparse.Namespace) -> None:
    """Prints the table.

    Raises:
        UserError: there is no such model, or it does not take images of this shape.
    """
    name = arguments.model
    create_model(name)  # raises for a misspelt name, and suggests the nearest one
    entry = MODELS[name]
    size = arguments.image_size or entry.input_size
    channels = arguments.channels or entry.channels
    num_classes = entry.num_classes if arguments.num_classes is None else arguments.num_classes
    try:
        layers = summarize(create_model(name, num_classes), (size, size, channels), arguments.depth)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        reason = str(error).partition("\n")[0]  # JAX adds a note about its tracebacks
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
    """The figures of one layer, or of a block of layers.

    Attributes:
        name: path of the module: `stage1_block1/conv1`.
        kind: the module's class.
        output: shape for one image, `(H, W, C)` or `(C,)`.
        parameters: number of parameters.
        multiply_adds: for one image.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize(model: nn.Module, image_shape: tuple[int, int, int], depth: int = 1) -> list[Layer]:
    """A network's layers in the order in which they are called, without layers that have no parameters.

    A kernel is applied once at every position of its output. So the multiply-adds are the size of the kernel times the
    number of positions, in convolutions (of any shape, stride and groups) and in linear layers.

    Args:
        model: the network.
        image_shape: `(H, W, C)`.
        depth: how deep to look into modules; 1 for the modules that the network itself calls.

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
    for path, kind, output in calls:  # the modules inside a module come before it
        layer = layers.setdefault(path[:depth], Layer("/".join(path[:depth]), kind, output, 0, 0))
        if len(path) <= depth:
            layer.kind, layer.output = kind, output
        own = _own_parameters(variables["params"], path)
        layer.parameters += sum(leaf.size for leaf in own.values())
        if "kernel" in own:
            layer.multiply_adds += own["kernel"].size * math.prod(output[:-1])
    return [layer for layer in layers.values() if layer.parameters]


def _own_parameters(params: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    """The parameters of the module at a path, without those of its submodules."""
    for name in path:
        params = params.get(name, {})
    return {name: leaf for name, leaf in params.items() if not isinstance(leaf, Mapping)}


def _short(number: int) -> str:
    """A number with three digits and a unit: 1.81 G."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)
