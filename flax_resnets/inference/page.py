"""Builds an HTML page that is one file: text, tables and pictures. It needs no network, and no script can run in it.

Text is escaped when it becomes part of an element, so names of classes and files cannot become tags. Only what
`element` and the other functions here have made is taken as HTML.
"""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from flax_resnets.errors import printable

_VOID = ("br", "img", "link", "meta")
_SMALL = 64  # pixels: smaller pictures are stored without loss, and enlarged without smoothing
_QUALITY = 85  # of JPEG

# Whatever a name or a file smuggled into a page, a browser neither runs it nor asks another machine for it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --soft: #5b6570; --line: #d9dee4; --tile: #f4f6f8;
  --c0: #1f6fb4; --c1: #d9730d; --c2: #2a8a3e; --c3: #c23434; --c4: #7b52b5; --c5: #8a5a44; --c6: #c2539b;
  --c7: #6b7480; --c8: #8d8b14; --c9: #0e8fa0; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171b; --ink: #e4e8ec; --soft: #9aa5b1; --line: #343b43;
  --tile: #1e2329; --c0: #6cb2f0; --c1: #ffa653; --c2: #6ecb7c; --c3: #ff8078; --c4: #bb99ea; --c5: #c9a08d;
  --c6: #ee9fd2; --c7: #b0b8c1; --c8: #d3d15c; --c9: #5ed3e2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 48rem; }
a { color: var(--c0); }
nav { margin: 1rem 0; display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; }
.soft { color: var(--soft); font-size: .9rem; }
.note { border-left: 3px solid var(--c1); padding: .3rem .8rem; background: var(--tile); }
.tiles { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; }
.tile { background: var(--tile); border-radius: 6px; padding: .5rem .9rem; }
.tile b { display: block; font-size: 1.25rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .3rem 0 1rem; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th { font-weight: 600; color: var(--soft); }
.left { text-align: left; overflow-wrap: anywhere; min-width: 6rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem; }
.charts figure { flex: 1 1 20rem; max-width: 34rem; }
.charts svg { width: 100%; height: auto; }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .8rem; line-height: 1.35; margin-top: .2rem; }
figcaption .soft { font-size: inherit; }
svg text { font-family: system-ui, sans-serif !important; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr));
  gap: 1rem .8rem; }
.pair { display: flex; gap: .3rem; }
img { max-width: 100%; height: auto; border-radius: 3px; }
.pair img { min-width: 0; flex: 0 1 auto; }
img.small { image-rendering: pixelated; }
.row { white-space: nowrap; }
.row img { max-width: none; margin-right: .2rem; }
pre, code { font: .85rem/1.45 ui-monospace, monospace; }
pre { background: var(--tile); padding: .7rem .9rem; border-radius: 6px; overflow-x: auto; overflow-wrap: normal; }
summary { cursor: pointer; color: var(--c0); }
"""


class Html(str):
    """Text that is HTML already, and is not escaped again."""


def text(words: str) -> Html:
    """Any text as HTML; characters that cannot be printed are written as in Python.

    Example:
        >>> text("<b> & co")
        '&lt;b&gt; &amp; co'
    """
    return words if isinstance(words, Html) else Html(html.escape("\n".join(map(printable, words.split("\n")))))


def element(name: str, *children: str | None, **attributes: str | int) -> Html:
    """An HTML element.

    Args:
        name: of the element, such as `p`.
        children: texts, which are escaped, and elements; None is left out.
        attributes: by name; `class_` is `class`.

    Example:
        >>> element("p", "a < b ", element("b", "bold"), class_="note")
        '<p class="note">a &lt; b <b>bold</b></p>'
    """
    named = "".join(f' {key.rstrip("_")}="{text(str(value))}"' for key, value in attributes.items())
    inside = "".join(text(each) for each in children if each is not None)
    return Html(f"<{name}{named}>" if name in _VOID else f"<{name}{named}>{inside}</{name}>")


def joined(parts: Iterable[str | None]) -> Html:
    """Parts one after the other, escaped unless they are HTML; None is left out."""
    return Html("".join(text(each) for each in parts if each is not None))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> Html:
    """A table; the first `left` columns are texts, the others numbers."""

    def line(name: str, cells: Sequence[str]) -> Html:
        return element(
            "tr", *(element(name, each, **({"class_": "left"} if i < left else {})) for i, each in enumerate(cells))
        )

    body = element("tbody", *(line("td", cells) for cells in rows))
    return element("div", element("table", element("thead", line("th", header)), body), class_="scroll")


def details(title: str, *children: str) -> Html:
    """What is shown only after a click."""
    return element("details", element("summary", title), *children)


def tiles(figures: Iterable[tuple[str, str]]) -> Html:
    """Single figures, each a value and what it is."""
    return element(
        "div", *(element("div", element("b", value), what, class_="tile") for value, what in figures), class_="tiles"
    )


def charts(drawn: Iterable[str]) -> Html:
    """SVG charts beside each other, or below each other where there is little room."""
    return element("div", *(element("figure", Html(each)) for each in drawn), class_="charts")


def picture(pixels: np.ndarray, side: int, description: str = "") -> Html:
    """An image inside the page.

    Args:
        pixels: uint8 `(H, W)` or `(H, W, C)` of 1 or 3 channels.
        side: of the square in pixels that it fills. A larger image is made smaller.
        description: for those who cannot see it.
    """
    image = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
    image.thumbnail((2 * side, 2 * side))  # so that it is sharp where a pixel of the page is two of the screen
    small = max(image.size) < _SMALL
    file = io.BytesIO()
    image.save(file, **({"format": "PNG"} if small else {"format": "JPEG", "quality": _QUALITY}))
    scale = side / max(image.size)
    width, height = (max(1, round(each * scale)) for each in image.size)
    return element(
        "img",
        src=f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(file.getvalue()).decode()}",
        alt=description,
        width=width,
        height=height,
        **({"class_": "small"} if small else {}),
    )


def page(title: str, subtitle: str, sections: Iterable[tuple[str, Html]], footer: str) -> str:
    """The whole page.

    Args:
        title: of the page.
        subtitle: what stands below the title.
        sections: headings and contents.
        footer: the last line.

    Example:
        >>> print(page("Runs", "of today", [("Result", element("p", "good"))], "end")[:15])
        <!doctype html>
    """
    sections = list(sections)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", **{"http-equiv": "Content-Security-Policy"}, content=_POLICY),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("link", rel="icon", href="data:,"),  # otherwise a browser asks the server for one
        element("title", title),
        element("style", Html(_STYLE)),
    )
    links = (element("a", heading, href=f"#s{i}") for i, (heading, _) in enumerate(sections))
    bodies = (
        element("section", element("h2", heading), content, id=f"s{i}") for i, (heading, content) in enumerate(sections)
    )
    body = element(
        "body",
        element("h1", title),
        element("p", subtitle, class_="soft"),
        element("nav", *links),
        *bodies,
        element("p", footer, class_="soft"),
    )
    return f'<!doctype html>\n<html lang="en">\n{head}\n{body}\n</html>\n'
