"""Adds the pages that lie beside docs/ to the site, and leads links to other files of the repository there.

README.md is the site's first page. A link is written as it is right in the repository: `../RESULTS.md` in a page of
docs/, `docs/data.md` in README.md.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/flax-resnets/flax_resnets/blob/main"
NAMED = re.compile(r"\[(?:docs/)?\w+\.md\]\(([^)#]+\.md)")
LINK = re.compile(r"(\]\(|src=\")([^)\"#:\s]+)(?=[)#\"])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what the repository has beside docs/: the pages, and the pictures in results/."""
    for path in (*ROOT.glob("*.md"), *ROOT.glob("results/*.png"), *ROOT.glob("results/*/curves.png")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path), inclusion=InclusionLevel.INCLUDED))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links between docs/ and the rest of the repository links of the site, or to the repository."""
    beside = (ROOT / page.file.src_uri).exists() and "/" not in page.file.src_uri

    def on_site(link: re.Match[str]) -> str:
        before, target = link.groups()
        path = posixpath.normpath(posixpath.join("." if beside else "docs", target))
        for name in (path.removeprefix("docs/"), path):
            if files.get_file_from_path(name):
                return before + name
        return f"{before}{REPOSITORY}/{path}" if (ROOT / path).exists() else link[0]

    def by_title(link: re.Match[str]) -> str:
        file = files.get_file_from_path(link[1])
        return f"[“{title_of(file)}”]({link[1]}" if file else link[0]

    return NAMED.sub(by_title, LINK.sub(on_site, markdown))


def title_of(file: File) -> str:
    """A page's first heading, by which a link calls it on the site; in the repository it is called by its file."""
    return re.search(r"^# (.+)$", file.content_string, flags=re.MULTILINE)[1]


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Makes the theme take the search's frame, which pages from file:// need, from the site."""
    return output.replace("https://unpkg.com/iframe-worker/shim", "worker.js")
