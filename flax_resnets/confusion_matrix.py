"""Draws a confusion matrix: how many images of each class are predicted as which."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flax_resnets.figures import new_figure, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 60  # classes up to which a picture shows all of them
_NUMBERED = 30  # classes up to which each cell shows its number


def side_of(classes: int) -> float:
    """The side in inches of a matrix of so many classes, with the classes' names."""
    return 3.2 + (0.62 if classes <= _NUMBERED else 0.26) * classes


def matrix_figure(classes: int) -> tuple["Figure", "Axes"]:
    """An empty figure with room for a matrix of so many classes."""
    figure = new_figure(max(side_of(classes) + 1, 5.5), max(side_of(classes), 4.5))
    return figure, figure.subplots()


def draw_matrix(
    figure: "Figure", axes: "Axes", counts: np.ndarray, names: Sequence[str], totals: np.ndarray | None = None
) -> None:
    """Draws a confusion matrix. The colour is the share of the class's images.

    Up to 30 classes each cell shows its number of images.

    Args:
        figure: of the axes; it gets the scale of the colours.
        axes: into which it is drawn.
        counts: int `(classes, classes)`, images by class and by predicted class.
        names: of the classes.
        totals: int `(classes,)`, the images of each class; None for the sums of the rows.
    """
    images: np.ndarray = counts.sum(1) if totals is None else totals
    shares = counts / np.maximum(images[:, None], 1)
    shown = [short(name, 24) for name in names]
    axes.set_xticks(range(len(shown)), shown, rotation=90 if len(shown) > 5 else 0, fontsize=8)
    axes.set_yticks(range(len(shown)), shown, fontsize=8)
    # With the square root the few mistakes of a good classifier are visible beside the diagonal.
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    if len(shown) <= _NUMBERED:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.4 else "black"
                axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    bar = figure.colorbar(image, ax=axes, shrink=0.7, ticks=np.sqrt([0, 0.01, 0.05, 0.2, 0.5, 1]).tolist())
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"], fontsize=8)
    bar.set_label("share of the class's images", fontsize=8)
