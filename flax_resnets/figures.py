"""Makes matplotlib figures and turns them into PNG files."""

import io
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this width and height in inches.

    It is made without pyplot, because pyplot's current figure and window belong to the importing program.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: "Figure") -> bytes:
    """The figure as a PNG file's content, 100 pixels an inch.

    Example:
        >>> png(new_figure(1, 1))[1:4]
        b'PNG'
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        # A class's name may be in a script that matplotlib's font lacks. It draws boxes, and warns of each letter.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
