"""`python -m flax_resnets lr-find`, as a user types it."""

import json
from pathlib import Path

import pytest
from PIL import Image

from flax_resnets import cli
from flax_resnets.training import lr_find as finder
from flax_resnets.training.default_workdir import default_workdir
from flax_resnets.training.lr_find import RangeTest
from flax_resnets.training.recipes import load_config
from flax_resnets.training.workdir import check_workdir


@pytest.fixture
def search(monkeypatch):
    """Replaces the search, which takes seconds, by its result."""

    def put(test: RangeTest):
        monkeypatch.setattr(finder, "lr_find", lambda *_, **__: test)

    return put


def points(count: int, fall: float = 0.01, stopped="end") -> RangeTest:
    losses = tuple(2.3 - fall * k for k in range(count))
    return RangeTest(tuple(1e-5 * 1.1**k for k in range(count)), losses, losses, stopped)


def test_a_search_on_the_bundled_sample(capsys, recipe):
    line = ["lr-find", f"--config={recipe}", "--config.batch_size=32", "--config.optimizer=sgd", "--start=1e-4"]
    assert cli.main([*line, "--end", "100", "--steps", "60"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    directory = Path("runs/small-batch_size=32-optimizer=sgd/lr_find")
    record = json.loads((directory / "lr_find.json").read_text())
    assert list(record) == [
        "start", "end", "steps", "suggestions", "rates", "losses", "smoothed", "stopped", "config", "versions",
    ]  # fmt: skip
    assert record["config"]["batch_size"] == 32
    assert record["config"]["optimizer"] == "sgd"
    assert record["rates"][0] == pytest.approx(1e-4)
    assert len(record["rates"]) == len(record["losses"]) == len(record["smoothed"]) <= 60
    assert {"jax", "flax", "optax"} <= set(record["versions"])
    steepest, valley = (finder.short(record["suggestions"][name]) for name in ("steepest", "valley"))
    assert f"steepest {steepest}, valley {valley}" in captured.out.splitlines()
    assert captured.out.splitlines()[-1] == f"{directory}/lr_find.png and lr_find.json"
    with Image.open(directory / "lr_find.png") as picture:
        assert picture.size == (800, 500)
    # For train.py the run's directory is still empty.
    config = load_config(recipe, {"batch_size": "32", "optimizer": "sgd"})
    assert default_workdir(recipe, config) == directory.parent
    check_workdir(config, directory.parent)


def test_an_earlier_search_is_kept(capsys, recipe, search):
    search(points(100))
    line = ["lr-find", "--config", recipe, "--output", "found"]
    assert cli.main(line) == 0
    first = Path("found/lr_find.json").read_text()
    search(points(100, fall=0.02))
    assert cli.main(line) == cli.main(line) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "found/lr_find-3.png and lr_find-3.json"
    assert Path("found/lr_find.json").read_text() == first
    assert sorted(path.name for path in Path("found").iterdir()) == [
        f"lr_find{number}.{kind}" for number in ("-2", "-3", "") for kind in ("json", "png")
    ]


@pytest.mark.parametrize(
    ("test", "said", "complaint"),
    [
        (
            points(12, stopped="diverged"),
            "the loss diverged after 12 of 100 steps at 2.9e-5\n",
            "no rate to suggest from 12 losses, in found/lr_find.png and lr_find.json; try a lower --start",
        ),
        (
            points(0, stopped="not finite"),
            "the loss or gradient was not finite after 0 of 100 steps\n",
            "no rate to suggest from 0 losses, in found/lr_find.png and lr_find.json; try a lower --start",
        ),
        (points(100, fall=-0.01), "", "no rate to suggest from 100 losses"),
    ],
)
def test_nothing_to_suggest_is_said(capsys, recipe, search, test, said, complaint):
    search(test)
    assert cli.main(["lr-find", "--config", recipe, "--output", "found"]) == 2
    captured = capsys.readouterr()
    assert captured.out == said
    assert captured.err.startswith(f"flax_resnets: lr-find: {complaint}")
    assert captured.err.count("\n") == 1
    assert json.loads(Path("found/lr_find.json").read_text())["suggestions"] is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "lr-find: --config=RECIPE is needed"),
        ("--config nowhere.py", "--config=nowhere.py: No such file or directory"),
        ("--config small.py --config.epoch=3", "--config.epoch: no such field; did you mean epochs?"),
        ("--config small.py --config.epochs 3", "lr-find: --config.epochs: write --config.epochs=VALUE"),
        ("--config small.py --config.epochs=0", "epochs=0: must be at least 1"),
        ("--config small.py --config.model=lenett", "model='lenett': no such model; did you mean lenet"),
        ("--config small.py --config.batch_size=9999", "batch_size=9999: must be at most the 6000 training images"),
        ("--config small.py --config.data=3 --stpes=9", "lr-find: --stpes: no such flag; did you mean --steps?"),
        ("--config small.py --start=0", "lr-find: --start=0: must be a number above 0"),
        ("--config small.py --end=inf", "lr-find: --end=inf: must be a number above 0"),
        ("--config small.py --start=1 --end=0.1", "lr-find: --end=0.1: must be above --start=1"),
        ("--config small.py --steps=9", "lr-find: --steps=9: must be a whole number from 10 up"),
        ("--config small.py --output small.py", "lr-find: --output=small.py: is no directory that can"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, recipe, line, message):
    assert cli.main(["lr-find", *line.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"flax_resnets: {message}")
    assert captured.err.count("\n") == 1
