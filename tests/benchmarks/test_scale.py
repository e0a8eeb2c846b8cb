"""The page of steps compiled for 8 to 1024 chips."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.speed import scale

ROOT = Path(__file__).parents[2]


def row(**changes):
    """The result of a compilation, shortened."""
    versions = {"jax": "0.12", "libtpu": "0.0.52"}
    figures = {"temp_bytes": 8 * 10**9, "argument_bytes": 10**9, "bytes_accessed": 9 * 10**10, "flops": 6 * 10**12}
    return {**figures, "all_reduces": 99, "fits": True, "compile_seconds": 61.0, "versions": versions, **changes}


@pytest.fixture
def tree(tmp_path):
    for name in ("docs", "results"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "docs" / "scale.md", tmp_path / "docs")
    kept = {
        "v5e:2x4": row(),
        "v5e:8x8": row(temp_bytes=82 * 10**8),
        "4 slices of v5e:16x16": row(temp_bytes=12 * 10**9, all_reduces=100),
        "v6e:2x4": row(fits=False, temp_bytes=None),
    }
    (tmp_path / "results" / "scale.json").write_text(json.dumps(kept))
    return tmp_path


def cells(tree: Path, name: str) -> list[str]:
    (line,) = (line for line in (tree / "docs" / "scale.md").read_text().splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_compares_with_eight_chips_and_says_what_is_not_there(tree):
    assert scale.main(["--page"], root=tree) == 0
    assert cells(tree, "v5e:8x8") == ["v5e:8x8", "64", "8.200", "1.0250", "1.000", "90.000", "6.000", "99", "61 s"]
    assert cells(tree, "v6e:2x4")[2] == "does not fit"
    assert cells(tree, "4 slices of v6e:16x16")[1:3] == ["1024", "not compiled"]
    page = (tree / "docs" / "scale.md").read_text()
    prose = (ROOT / "docs" / "scale.md").read_text().partition("|")[0]
    assert page.startswith(prose)
    assert "Within a slice: temporary memory 1.0000 to 1.0250, 99 all-reduces.\n" in page
    assert "Over several slices: temporary memory 1.5000 to 1.5000, 100 all-reduces.\n" in page


def test_what_is_there_is_not_compiled_again_and_each_result_is_kept_at_once(tree, monkeypatch):
    asked = []

    def compile_for(target):
        asked.append(target.name)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return row()

    monkeypatch.setattr(scale, "compile_for", compile_for)
    with pytest.raises(KeyboardInterrupt):
        scale.main([], root=tree)
    assert asked == ["v5p:2x2x2", "v6e:8x8", "v5p:4x4x4"]  # the smallest first
    kept = json.loads((tree / "results" / "scale.json").read_text())
    assert len(kept) == 6
    assert {"v5p:2x2x2", "v6e:8x8"} < set(kept)


def test_check_tells_when_the_page_is_old(tree, capsys):
    assert scale.main(["--check"], root=tree) == 1
    assert "--page writes it" in capsys.readouterr().err
    scale.main(["--page"], root=tree)
    assert scale.main(["--check"], root=tree) == 0


def test_every_target_has_the_chips_that_its_row_says():
    assert [target.chips for target in scale.TARGETS] == 3 * [8, 64, 256, 1024]


def test_the_page_in_this_tree_is_what_its_results_say():
    assert scale.main(["--check"]) == 0


def test_kept_results_that_do_not_read_are_named(tree, capsys):
    (tree / "results" / "scale.json").write_text('{"v5e:2x4": {')
    assert scale.main(["--page"], root=tree) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"scale.py: {tree / 'results' / 'scale.json'}: not JSON (")
