"""The cells of notebooks/ run, one after the other, and what they assert holds. Their outputs are from a real run."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


@pytest.mark.slow  # all train networks
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    with matplotlib.rc_context({"backend": "Agg"}):
        for place, cell in enumerate(code_cells(notebook)):
            exec(compile(source(cell), f"{notebook.name}, cell {place + 1}", "exec"), names)
        plt.close("all")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_has_the_outputs_of_a_run_from_top_to_bottom(notebook):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [each for each in outputs if each["output_type"] == "error" or each.get("name") == "stderr"]
    printing = [cell for cell in cells if "print(" in source(cell)]
    assert all(cell["outputs"] for cell in printing)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_a_title_and_is_small(notebook):
    assert source(json.loads(notebook.read_text())["cells"][0]).startswith("# ")
    assert notebook.stat().st_size < 400_000
