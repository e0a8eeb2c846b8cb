"""benchmarks/records/pages.py: prose stays in the page, only the part between the markers is generated."""

import pytest

from benchmarks.records.pages import BEGIN, END, with_generated
from flax_resnets.errors import UserError


def test_only_the_part_between_the_markers_changes(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# A promise\n\n{BEGIN}\nold\n{END}\n\nMore prose.\n")
    text = with_generated(page, "| new |\n")
    assert text == f"# A promise\n\n{BEGIN}\n\n| new |\n\n{END}\n\nMore prose.\n"
    page.write_text(text)
    assert with_generated(page, "| new |\n") == text


@pytest.mark.parametrize("text", ["", "prose", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_page_without_its_markers_is_a_mistake(tmp_path, text):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(UserError, match=rf"page\.md: must have the lines {BEGIN} and {END}"):
        with_generated(page, "new")


def test_a_page_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"page\.md: No such file"):
        with_generated(tmp_path / "page.md", "new")
