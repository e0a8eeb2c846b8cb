"""The command `compare`: what it prints, and what it refuses."""

import json
import resource
from pathlib import Path

import pytest

from flax_resnets import cli

ROWS = [
    {
        "event": "epoch",
        "epoch": epoch,
        "step": 10 * epoch,
        "train_loss": 1.0,
        "valid_loss": 1.1,
        "accuracy": 0.5 + epoch / 10,
        "top5_accuracy": 0.9,
        "seconds": 2.0,
        "images_per_second": 50.0,
        "skipped_steps": 0,
    }
    for epoch in (1, 2)
]


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    """Records of runs without their weights, as `results/` has them."""
    monkeypatch.chdir(tmp_path)
    for name, model, seed in (("a0", "lenet", 0), ("a1", "lenet", 1), ("b0", "lenet_bn", 0)):
        Path(name).mkdir()
        config = {"model": model, "dataset": "fashion_mnist_sample", "seed": seed, "epochs": 2, "batch_size": 10}
        Path(name, "config.json").write_text(json.dumps(config))
        Path(name, "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def test_it_prints_tables_and_writes_a_page(capsys):
    assert cli.main(["compare", "a0", "a1", "b0", "--output", "page.html"]) == 0
    out = capsys.readouterr().out
    assert "a         2   0, 1       2  70.00 ± 0.00  70.00      1.1000       4 s" in out
    assert 'model    "lenet"  "lenet_bn"' in out
    assert "from a  difference  over images  over seeds" in out
    assert any(line.split() == ["b0", "+0.00"] for line in out.splitlines())
    assert "a0: not compared image by image: a0: has no data.json" in out
    assert out.endswith("\npage.html\n")
    assert Path("page.html").read_text().startswith("<!doctype html>")
    assert cli.main(["compare", "a0", "b0", "--output", "page.html"]) == 2
    assert "--output=page.html: exists" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_full_disk_takes_no_table_away(capsys, form):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert cli.main(["compare", "a0", "b0", "--output", "page.html", *form]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = capsys.readouterr()
    assert found.err.endswith("page.html: File too large; name a place that can be written\n")
    assert json.loads(found.out)["page"] is None if form else "from a0  difference" in found.out


def test_json_is_one_line(capsys):
    assert cli.main(["compare", "a0", "b0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["group"] for each in found["groups"]] == ["a0", "b0"]
    assert found["page"] is None


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["a0"], "one run cannot be compared"),
        (["a0", "b0", "a0"], "a0: is named twice"),
        (["a0", "no"], "no: no such directory"),
    ],
)
def test_mistakes_are_one_line(sources, message, capsys):
    assert cli.main(["compare", *sources]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 600
