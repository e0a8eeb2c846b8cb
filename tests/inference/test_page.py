"""The builder of pages: what becomes HTML, and what is escaped."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from flax_resnets.figures import new_figure, svg
from flax_resnets.inference.page import Html, element, joined, page, picture, table, text

ATTACKS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "--></style></svg><script>",
    "a & b' c",
    "]]><script>",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_becomes_no_tag(attack):
    made = joined([attack, element("p", attack, title=attack), table([attack], [[attack]])])
    assert set(re.findall(r"<(\w+)", made)) == {"p", "div", "table", "thead", "tbody", "tr", "th", "td"}
    assert "onerror=alert(1)>" not in made
    assert re.search(r'title="([^"]*)"', made)


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_in_a_figure_becomes_no_tag(attack):
    def draw():
        figure = new_figure(4, 3)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], label=attack)
        axes.set_title(attack)
        axes.legend()
        return figure

    drawn = svg(draw)
    assert drawn == svg(draw)
    assert not re.search(r"<(script|img|/style></svg)", drawn)
    assert "currentColor" in drawn
    assert "var(--c0, #1f77b4)" in drawn


def test_characters_that_cannot_be_printed_are_written_out():
    assert text("a\udcff\x1b\u202eb\nc") == "a\\udcff\\x1b\\u202eb\nc"
    assert text(Html("<b>")) == "<b>"
    element("p", "a\udcff").encode()


@pytest.mark.parametrize(
    ("shape", "kind", "size"),
    [((28, 28, 1), "png", (28, 28)), ((160, 120, 3), "jpeg", (120, 160)), ((900, 600, 3), "jpeg", (133, 200))],
)
def test_a_picture_is_inside_the_page(shape, kind, size):
    made = picture(np.random.default_rng(0).integers(0, 255, shape, np.uint8), 100, "<what>")
    media, encoded = re.findall(r'src="data:image/(\w+);base64,([^"]+)"', made)[0]
    assert media == kind
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.size == size
    assert 'alt="&lt;what&gt;"' in made
    assert 'height="100"' in made


def test_a_page_forbids_scripts_and_the_network():
    made = page("Runs <1>", "of <today>", [("Result", element("p", "good"))], "the end")
    assert "default-src &#x27;none&#x27;" in made
    assert "<script" not in made
    assert not re.search(r"""(src|href)="(?!data:|#)""", made)
    assert "<title>Runs &lt;1&gt;</title>" in made
    assert '<a href="#s0">Result</a>' in made
