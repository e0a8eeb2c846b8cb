"""Draws curves as SVG for a page."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flax_resnets.figures import new_figure, plain, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKED = 30  # points up to which each is marked


class Line(NamedTuple):
    """A curve.

    Attributes:
        name: in the legend; None for a curve that it leaves out.
        x, y: the points; one that is not finite is left out.
        colour: number of the colour; curves of a group have the same.
    """

    name: str | None
    x: Sequence[float]
    y: Sequence[float]
    colour: int


def line_chart(lines: Sequence[Line], x_label: str, y_label: str, at: float | None = None) -> str:
    """Draws curves.

    Args:
        lines: at least one.
        x_label: below the chart; if it is `epoch`, the ticks are whole numbers.
        y_label: beside it.
        at: where on the x-axis a vertical line stands; None for none.

    Example:
        >>> line_chart([Line("train", [1, 2], [0.5, 0.3], 0)], "epoch", "loss")[:4]
        '<svg'
    """
    from matplotlib.ticker import MaxNLocator

    def draw() -> "Figure":
        figure = new_figure(5.2, 3.2)
        axes = figure.subplots()
        for name, x, y, colour in lines:
            shown = None if name is None else plain(name)
            marker = "o" if len(x) <= _MARKED else None
            # A name that begins with _ is left out of the legend by matplotlib.
            axes.plot(x, y, marker=marker, markersize=4, color=f"C{colour % 10}", label=f" {shown}" if shown else None)
        if at is not None:
            axes.axvline(at, color="0.5", linestyle=":")
        if x_label == "epoch":
            first, last = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
            axes.set_xlim(first - 0.5, last + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.grid(alpha=0.3)
        if any(line.name for line in lines):
            axes.legend(loc="best")  # without a warning if finding it takes a second
        return figure

    return svg(draw)
