""".ci/site.py finds what is wrong with a page. (That the site has none of it is for continuous integration.)"""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "site.py"

PAGE = """<!doctype html><meta charset="utf-8"><title>t</title><body style="background: white"><article>
<p style="color: #aaa">pale</p><p>dark</p><div style="width: 3000px">wide</div>
<img src="missing.png" alt="a picture"><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<a href="no_such.html">nowhere</a><a href="#there" id="there">here</a><a href="#not_there">nowhere</a></article>"""


@pytest.mark.slow  # a start of Chromium takes seconds
def test_faults_are_found(tmp_path):
    spec = importlib.util.spec_from_file_location("site_check", SCRIPT)
    site_check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(site_check)
    if site_check.PROGRAM is None:
        pytest.skip("there is no Chromium")
    page = tmp_path / "index.html"
    page.write_text(PAGE)
    (tmp_path / "profile").mkdir()
    with site_check.browser(tmp_path / "profile") as browser:
        links = site_check.faults_of_links(browser, tmp_path, [page])
        browser.events.clear()
        faults = "\n".join(site_check.faults_of_view(browser, page, (1280, 900, False), None))
    assert [link.rpartition("/")[2] for link in links] == ["no_such.html", "index.html#not_there"]
    for word in ("wider than the window", "not loaded", "no text", "contrast 2.3"):
        assert word in faults
    assert "dark" not in faults
