"""A headless Chromium renders the pages: no error, every picture loaded, nothing wider than the window, light and dark.

It is skipped where there is no Chromium.
"""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flax_resnets.inference.compare import compare
from flax_resnets.inference.compare_page import comparison_page
from flax_resnets.inference.report import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.slow,  # a start of Chromium takes seconds
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"),
]

WIDTHS = (1280, 390)

# Pages in frames of both widths. Frames are within reach of the script, because their content stands in its document.
HARNESS = """
<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark"><body>{frames}<script>
onload = () => {{
  const found = [...document.querySelectorAll("iframe")].map(frame => {{
    const page = frame.contentDocument, images = [...page.images];
    return {{
      images: images.length,
      loaded: images.filter(image => image.complete && image.naturalWidth > 0).length,
      overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
      ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      text: page.querySelector("svg text") && frame.contentWindow.getComputedStyle(page.querySelector("svg text")).fill,
    }};
  }});
  document.body.textContent = "FOUND" + JSON.stringify(found) + "END";
}};
</script>
"""


@pytest.fixture(scope="module")
def pages(trained, tmp_path_factory) -> list[str]:
    other = Path(shutil.copytree(trained, tmp_path_factory.mktemp("other") / "smoothed"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "label_smoothing": 0.1}))
    return [report(trained), comparison_page(compare([trained, other]))]


def chromium(path: Path, *options: str) -> tuple[str, str]:
    """What the browser prints for a page, and what it logs."""
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", f"--user-data-dir={path.parent / 'profile'}"),
        *("--enable-logging=stderr", "--virtual-time-budget=20000", "--dump-dom", *options, path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)
    return done.stdout, done.stderr


@pytest.mark.parametrize(("scheme", "number"), [("light", 1), ("dark", 0)])
def test_both_pages_at_both_widths(pages, scheme, number, tmp_path):
    # The page's own policy forbids scripts, also those of the test.
    open_pages = [re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page) for page in pages]
    frames = [
        f'<iframe style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
        for page in open_pages
        for width in WIDTHS
    ]
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.format(frames="".join(frames)), encoding="utf-8")
    out, _ = chromium(harness, f"--blink-settings=preferredColorScheme={number}", "--window-size=1400,1000")
    found = json.loads(html.unescape(out[out.index("FOUND") + 5 : out.index("END")]))
    assert [each["loaded"] for each in found] == [page.count("<img ") for page in pages for _ in WIDTHS]
    assert found[0]["loaded"] >= 80
    assert [each["overflow"] for each in found] == [0, 0, 0, 0]
    ground, ink = {"light": ("255, 255, 255", "27, 31, 36"), "dark": ("20, 23, 27", "228, 232, 236")}[scheme]
    assert {each["ground"] for each in found} == {f"rgb({ground})"}
    assert {each["text"] for each in found} == {f"rgb({ink})"}


def test_the_browser_has_nothing_to_complain_of(pages, tmp_path):
    for number, content in enumerate(pages):
        page = tmp_path / f"page{number}.html"
        page.write_text(content, encoding="utf-8")
        out, log = chromium(page)
        assert "<h1>" in out
        assert "CONSOLE" not in log
