"""Pictures of what is inside a network, as PNG files: the filters of its first layer, and its activations in a run."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.figures import new_figure, png
from flax_resnets.inference.classifier import Classifier
from flax_resnets.training.activations import ActivationRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_FILTERS = 256
_FIGURES = {"mean": "mean", "std": "standard deviation", "near_zero": "share near zero"}


def first_filters(classifier: Classifier) -> np.ndarray:
    """The kernels of the convolution that sees the image, float32 `(filters, K, K, channels)`.

    Args:
        classifier: gives the network's variables.

    Raises:
        UserError: the network has no such convolution.
    """
    channels = classifier.settings.channels
    kernels = [
        leaf for leaf in jax.tree.leaves(classifier.variables["params"]) if leaf.ndim == 4 and leaf.shape[2] == channels
    ]
    if not kernels:
        raise UserError(f"{classifier.settings.model}: has no convolution that sees images of {channels} channels")
    # A residual block that sees the image has a 1x1 convolution in its shortcut too.
    return np.moveaxis(np.asarray(max(kernels, key=lambda kernel: kernel.shape[0]), np.float32), -1, 0)


def draw_filters(classifier: Classifier) -> bytes:
    """Draws the filters of the convolution that sees the image as a PNG; see `filters_figure`."""
    return png(filters_figure(classifier))


def filters_figure(classifier: Classifier) -> "Figure":
    """Draws the filters of the convolution that sees the image, side by side.

    Grey is 0. Each filter is divided by its largest magnitude, so that the filters' shapes can be compared, not their
    sizes. A filter for colour images is drawn in colour. Of more than 256 filters the first ones are drawn.

    Args:
        classifier: gives the network's variables.

    Raises:
        UserError: the network has no convolution that sees the image.
    """
    every = first_filters(classifier)
    filters = every[:_MOST_FILTERS]
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True)
    shown = 0.5 + filters / np.where(largest > 0, 2 * largest, 1)
    columns = math.ceil(math.sqrt(2 * len(shown)))
    rows = -(-len(shown) // columns)
    size = filters.shape[1] + 1  # and a white line between two filters
    sheet = np.ones((rows * size - 1, columns * size - 1, filters.shape[-1]), np.float32)
    for number, one in enumerate(shown):
        top, left = size * (number // columns), size * (number % columns)
        sheet[top : top + size - 1, left : left + size - 1] = one
    figure = new_figure(0.45 * columns + 0.4, 0.45 * rows + 0.7)
    axes = figure.subplots()
    axes.set_axis_off()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    height, width = filters.shape[1:3]
    number = f"the first {len(filters)} of {len(every)}" if len(every) > len(filters) else f"{len(filters)}"
    axes.set_title(f"{classifier.settings.model}: {number} filters of {height} x {width}", fontsize=9)
    return figure


def draw_activations(rows: Sequence[ActivationRow]) -> bytes:
    """Draws the activations of a run as a PNG; see `activations_figure`.

    Example:
        >>> from flax_resnets.models.activations import LayerStatistics
        >>> rows = [ActivationRow(step, {"stem": LayerStatistics(0.1, 1.0, 0.5)}) for step in (0, 10)]
        >>> draw_activations(rows)[1:4]
        b'PNG'
    """
    return png(activations_figure(rows))


def activations_figure(rows: Sequence[ActivationRow]) -> "Figure":
    """Draws mean, standard deviation and share near zero of each layer's output against the step.

    Args:
        rows: as `read_activations` returns them, at least one.

    Raises:
        UserError: there are none.
    """
    if not rows:
        raise UserError("activations: there are no rows; RecordActivations records them while a run trains")
    figure = new_figure(13, 4)
    steps = [row.step for row in rows]
    layers = list(rows[-1].layers)
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0, 0.9, len(layers)))  # from the first layer to the last
    for axes, (field, words) in zip(figure.subplots(1, 3), _FIGURES.items(), strict=True):
        for name, colour in zip(layers, colours, strict=True):
            values = [getattr(row.layers[name], field) if name in row.layers else math.nan for row in rows]
            axes.plot(steps, values, color=colour, label=name, marker="." if len(rows) < 30 else None)
        axes.set_title(words, fontsize=10)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if field == "near_zero":
            axes.set_ylim(0, 1)
            axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
