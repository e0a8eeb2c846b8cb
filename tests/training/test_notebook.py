"""What a notebook does with a run: train, interrupt, go on, plot, end early, predict; in a thread, and twice."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

CELLS = {
    "train": """
import os, signal, threading
from flax_resnets.training import Callback, EarlyStopping, load_config, run

class InterruptsTheCell(Callback):
    def on_step_end(self, run, step, output):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)  # what the notebook's stop button does

config = load_config("quickstart", {"model": "lenet", "model_options": "{}", "batch_size": "500", "epochs": "2"})
finished = run(config, "runs/lenet", [InterruptsTheCell()])
""",
    "go on": 'finished = run(config, "runs/lenet")',
    "again": 'run(config, "runs/lenet").digest == finished.digest',
    "plot": "finished.plot()",
    "columns": 'finished.columns["epoch"]',
    "predict": """
import numpy as np
finished.classifier().predict(np.zeros((28, 28), np.uint8), top_k=1)[0]
""",
    "end early": """
class Enough(Callback):
    def on_epoch_end(self, run, row):
        run.end_early("one is enough")

early = run(config, "runs/early", [Enough()])
len(early.history), early.ended_by
""",
    "in a thread": """
made = []
thread = threading.Thread(target=lambda: made.append(run(config, "runs/thread")))
thread.start()
thread.join()
made[0].digest == finished.digest
""",
    "a mistake": """
class Broken(Callback):
    def on_run_end(self, run):
        run.no_such_thing

run(config, "runs/thread2", [Broken()])
""",
}


def shown(cell: Any) -> str:
    """The text that a cell shows: what it prints, and its value."""
    parts = [each.get("text", "") or each.get("data", {}).get("text/plain", "") for each in cell.outputs]
    return "".join(parts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of the notebook's libraries, which are not ours to mend
def test_a_notebook(tmp_path, monkeypatch):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in CELLS.values()])
    client = nbclient.NotebookClient(
        notebook, timeout=550, resources={"metadata": {"path": str(tmp_path)}}, allow_errors=True
    )
    client.execute()
    cells = dict(zip(CELLS, notebook.cells, strict=True))
    errors = {name: each for name, cell in cells.items() for each in cell.outputs if each.output_type == "error"}
    assert {name: each.ename for name, each in errors.items()} == {"train": "Stopped", "a mistake": "UserError"}, errors
    assert "SIGINT" in errors["train"].evalue
    assert errors["a mistake"].evalue.startswith("Broken.on_run_end: AttributeError: ")
    assert "AttributeError" in "".join(errors["a mistake"].traceback)  # the cause, with its own traceback

    assert "going on from step" in shown(cells["go on"])
    assert "already done" in shown(cells["again"])
    for name in ("again", "in a thread"):
        assert shown(cells[name]).endswith("True")
    assert "image/png" in cells["plot"].outputs[-1].data
    assert shown(cells["columns"]) == "[1, 2]"
    assert shown(cells["predict"]).startswith("[Prediction(")
    assert shown(cells["end early"]).endswith("(1, 'one is enough')")


@pytest.mark.slow
def test_the_python_of_its_page_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "callbacks.md").read_text(), flags=re.DOTALL)
    program = "\n".join(blocks)
    assert program.count('{"epochs": 5}') == 1
    small = '{"model": "lenet", "model_options": "{}", "batch_size": "500", "epochs": "1"}'
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((28, 28), np.uint8)).save("shoe.png")
    names = {}
    exec(program.replace('{"epochs": 5}', small), names)
    assert "already done" in capsys.readouterr().out
    assert names["finished"].best.epoch == 1
