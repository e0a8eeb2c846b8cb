"""Looks at the built site in a headless Chromium, at the widths of a desktop and a phone, light and dark.

    python .ci/site.py SITE [PAGE ...] [--pictures DIR]

Exits with 1 if a page is wider than the window, a picture is not loaded or has no text, a link leads nowhere, text has
less contrast than 4.5 to 1 (WCAG 2.2, 1.4.3; 3 to 1 where it is large), something is asked of another server, the
console has a complaint, or the search finds nothing. It needs Chromium, and no package.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "inference"))
from chromium import PROGRAM, Page, browser  # noqa: E402

VIEWS = [(width, height, dark) for width, height in ((1280, 900), (390, 844)) for dark in (False, True)]

FAULTS = r"""
(() => {
  const faults = []
  const root = document.documentElement
  const more = root.scrollWidth - root.clientWidth
  if (more > 0) faults.push(`wider than the window by ${more} px`)
  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) faults.push(`not loaded: ${image.src}`)
    if (!image.alt) faults.push(`no text: ${image.src}`)
  }
  const numbers = colour => (colour.match(/[\d.]+/g) || []).map(Number)
  const over = (top, below) => {
    const [r, g, b, alpha = 1] = top
    return [r, g, b].map((value, i) => value * alpha + below[i] * (1 - alpha))
  }
  const ground = element => {
    const layers = []
    for (let each = element; each; each = each.parentElement)
      layers.push(numbers(getComputedStyle(each).backgroundColor))
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255])
  }
  const light = colour => {
    const linear = value => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    const [r, g, b] = colour.map(value => linear(value / 255))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const pale = new Map()
  const walker = document.createTreeWalker(document.querySelector("article"), NodeFilter.SHOW_TEXT)
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement
    if (!walker.currentNode.data.trim() || element.closest(".headerlink, script, style")) continue
    const style = getComputedStyle(element)
    if (style.visibility === "hidden" || !element.getClientRects().length) continue
    const below = ground(element)
    const [a, b] = [light(over(numbers(style.color), below)), light(below)].sort((x, y) => y - x)
    const ratio = (a + 0.05) / (b + 0.05)
    const size = parseFloat(style.fontSize)
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700)
    const text = walker.currentNode.data.trim().slice(0, 30)
    if (ratio < (large ? 3 : 4.5)) pale.set(`${style.color} on ${below.map(Math.round)}`, [ratio.toFixed(2), text])
  }
  for (const [colours, [ratio, text]] of pale) faults.push(`contrast ${ratio} of ${colours}: ${text}`)
  return faults
})()
"""

SEARCH = """
(() => {
  const box = document.querySelector(".md-search__input")
  box.focus()
  box.value = "checkpoint"
  for (const kind of ["input", "keyup"]) box.dispatchEvent(new Event(kind, { bubbles: true }))
})()
"""

LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
IDS = "[...document.querySelectorAll('[id]')].map(each => each.id)"


def faults_of_view(page: Page, path: Path, view: tuple[int, int, bool], pictures: Path | None) -> list[str]:
    """Opens a page in a window of this kind, and lists what is wrong with it."""
    width, height, dark = view
    page.look(width, height, dark)
    page.open(path.as_uri())
    page.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    faults = page.value(FAULTS) + page.complaints()
    faults += [f"asks for {url}" for url in page.requested() if not url.startswith(("file:", "data:", "blob:"))]
    if pictures:
        name = f"{path.stem}_{width}_{'dark' if dark else 'light'}.png"
        (pictures / name).write_bytes(page.screenshot())
    page.events.clear()
    return faults


def faults_of_links(page: Page, site: Path, paths: list[Path]) -> list[str]:
    """Lists the links within the site that lead nowhere."""
    ids, links = {}, {}
    for path in paths:
        page.open(path.as_uri())
        ids[path.as_uri()], links[path] = set(page.value(IDS)), page.value(LINKS)
    faults = []
    for path, found in links.items():
        for link in found:
            address, _, anchor = link.partition("#")
            if not address.startswith("file:"):
                continue
            target = Path(address.removeprefix("file://"))
            if (
                not target.exists()
                or not target.is_relative_to(site)
                or (anchor and address in ids and anchor not in ids[address])
            ):
                faults.append(f"{path.name}: leads nowhere: {link}")
    return faults


def faults_of_search(page: Page, site: Path) -> list[str]:
    """Searches for a word, as a reader who has the site as files."""
    page.look(1280, 900)
    page.open((site / "index.html").as_uri())
    page.value(SEARCH)
    end = time.monotonic() + 30
    while not (found := page.value("document.querySelectorAll('.md-search-result__item').length")):
        if time.monotonic() > end:
            return ["search: finds nothing for `checkpoint`"]
        time.sleep(0.2)
    print(f"search: {found} pages for `checkpoint`")
    return []


def main() -> int:
    """Prints the faults; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, help="the directory that mkdocs has built")
    parser.add_argument("pages", nargs="*", help="names such as index; default all")
    parser.add_argument("--pictures", type=Path, help="directory for a picture of each view")
    arguments = parser.parse_args()
    site = arguments.site.resolve()
    paths = [path for path in sorted(site.glob("*.html")) if path.stem != "404"]
    seen = [path for path in paths if not arguments.pages or path.stem in arguments.pages]
    if PROGRAM is None:
        parser.error("there is no Chromium: install chromium, or google-chrome")
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        faults = faults_of_search(page, site) + faults_of_links(page, site, paths)
        print(*faults, sep="\n", end="\n" if faults else "", flush=True)
        page.events.clear()
        for path in seen:
            for view in VIEWS:
                found = faults_of_view(page, path, view, arguments.pictures)
                where = f"{path.name} at {view[0]} px, {'dark' if view[2] else 'light'}"
                print(*(f"{where}: {fault}" for fault in found), sep="\n", end="\n" if found else "", flush=True)
                faults += found
    print(f"{len(seen)} pages, {len(VIEWS)} views of each, {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
