"""The table of image files: nothing in it is a surprise, and the page has it."""

from pathlib import Path

import pytest

from benchmarks.records import image_kinds

PAGE = Path(__file__).parents[2] / "docs" / "images.md"


def test_every_kind_of_file_is_read_as_expected_and_is_in_the_page(tmp_path):
    rows = [image_kinds.measured(kind) for kind in image_kinds.kinds()]  # raises an error if one is not
    assert len(rows) > 50
    assert {row.difference for row in rows if not row.reason} == {"0"}
    page = PAGE.read_text()
    # The number of bytes depends on the version of Pillow.
    missing = [
        row for row in rows if f"| {row.kind} | " not in page or f" | {row.difference} | {row.reason} |" not in page
    ]
    assert missing == []


@pytest.mark.parametrize(("most", "message"), [(None, "not refused"), (0, "differs by")])
def test_a_surprise_is_an_error(most, message):
    deep = next(kind for kind in image_kinds.kinds() if kind.name == "PNG, grey, 16 bits")
    with pytest.raises(ValueError, match=message):
        image_kinds.measured(deep._replace(most=most))
    with pytest.raises(ValueError, match="refused"):
        image_kinds.measured(image_kinds.Kind("text", b"text"))


def test_the_page_is_written(tmp_path):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "images.md"
    page.write_text("before\n<!-- generated: begin -->\n<!-- generated: end -->\nafter\n")
    assert image_kinds.main([], root=tmp_path) == 0
    assert "| GIF |" in page.read_text()
    page.unlink()
    assert image_kinds.main([], root=tmp_path) == 2
