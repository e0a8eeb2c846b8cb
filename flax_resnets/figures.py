"""Makes matplotlib figures, and turns them into PNG files and into SVG inside an HTML page."""

import io
import re
import textwrap
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flax_resnets.errors import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this width and height in inches. A notebook shows it.

    It is made without pyplot, because pyplot's current figure and window belong to the importing program.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        def _repr_png_(self) -> bytes:  # IPython calls it; pyplot would tell IPython of figures of its own alone
            return png(self)

    figure = ShownFigure(figsize=(width, height), layout="constrained")
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


def short(name: str, length: int) -> str:
    """A name cut to a length, for a label.

    Example:
        >>> short("great white shark", 12), short("Sneaker", 12), short("Mohrenkopfpapagei (adult)", 12)
        ('great white…', 'Sneaker', 'Mohrenkopfp…')
    """
    words = textwrap.shorten(name, length, placeholder="…")
    if words == "…" or " " not in name:  # a first word that is too long
        words = name if len(name) <= length else f"{name[: length - 1]}…"
    return plain(words)


def plain(text: str) -> str:
    r"""The text with matplotlib's sign for formulas escaped, and what cannot be printed, on which it may fail.

    Example:
        >>> print(plain("5 $\udcff"))
        5 \$\udcff
    """
    return printable(text).replace("$", r"\$")


# Stands for the colour of the page's text, which is not known yet.
_INK = "#010203"


def svg(draw: Callable[[], "Figure"]) -> str:
    """A figure as SVG inside an HTML page. Its text has the page's colour and font, its ground is the page's.

    matplotlib's ten colours become `var(--c0)` to `var(--c9)`, so that the page can choose brighter ones where its
    ground is dark.

    Args:
        draw: a function that draws the figure. It is called with the settings that this needs.

    Example:
        >>> print(svg(lambda: new_figure(2, 1))[:4])
        <svg
    """
    import matplotlib
    from matplotlib.colors import TABLEAU_COLORS

    text = {f"{each}.color": _INK for each in ("text", "xtick", "ytick")}
    edges = {f"axes.{each}": _INK for each in ("edgecolor", "labelcolor", "titlecolor")}
    settings: dict[Any, Any] = {
        **text,
        **edges,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "flax_resnets",  # the same figure gives the same bytes
    }
    file = io.StringIO()
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        draw().savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    for number, colour in enumerate(map(str, TABLEAU_COLORS.values())):
        drawn = drawn.replace(colour, f"var(--c{number}, {colour})")
    return drawn.replace(_INK, "currentColor")
