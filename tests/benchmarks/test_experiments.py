"""benchmarks/records/experiments.py: the difference of a run from its recipe, and the page of comparisons."""

import dataclasses
import json
import shlex
import shutil
from pathlib import Path

import pytest

from benchmarks.records import experiments
from flax_resnets import cli
from flax_resnets.training.config import DEFAULTS, FREE_FIELDS
from flax_resnets.training.recipes import load_config

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "rn18_imagenette_64.py"


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"image_size": "96", "label_smoothing": "0.1"},
        {"model_options.activation": "mish", "momentum": "0.9,0.9"},
        {"progressive": "(1,64),(2,96)", "clip_norm": "1", "flip": "false"},
        {"train_split": "train[:300]", "weights": "runs/my weights"},
    ],
)
def test_a_runs_command_makes_its_configuration_again(overrides):
    config = load_config(RECIPE, overrides)
    line = experiments.command("rn18_imagenette_64", json.loads(config.to_json()))
    assert line.startswith("python train.py --config configs/rn18_imagenette_64.py")
    given = cli.parse(["train", *shlex.split(line)[2:]])
    path, parsed = given.config, given.overrides
    assert load_config(ROOT / path, parsed) == config


def kept(group: Path, name: str, accuracies: dict[int, float], **changes) -> None:
    """Finished runs as `--add` keeps them, one for each seed."""
    for seed, accuracy in accuracies.items():
        directory = group / name / f"seed{seed}"
        directory.mkdir(parents=True)
        config = dataclasses.replace(load_config(RECIPE), seed=seed, **changes)
        (directory / "config.json").write_text(config.to_json())
        epoch = {"epoch": 1, "step": 1, "valid_loss": 1.0, "accuracy": accuracy, "seconds": 1, "images_per_second": 1}
        rows = [{"event": "epoch", **epoch}, {"event": "done", "best_accuracy": accuracy, "state_digest": "0"}]
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "experiments.md", tmp_path / "docs")
    group = tmp_path / "results" / "experiments" / "short"
    kept(group, "base", {0: 0.7, 1: 0.72})
    kept(group, "smoothed", {1: 0.75, 2: 0.8}, label_smoothing=0.1)
    about = {"recipe": "rn18_imagenette_64", "title": "A title", "text": "What was learnt."}
    (group / "group.json").write_text(json.dumps(about))
    return tmp_path


def test_a_difference_is_taken_at_the_seeds_that_both_have(tree):
    assert experiments.main([], root=tree) == 0
    page = (tree / "docs" / "experiments.md").read_text()
    assert "## A title" in page
    assert "What was learnt." in page
    assert "With one seed, differences below a point say little." in page
    base, smoothed = (line.split(" | ") for line in page.splitlines() if line.startswith(("| base", "| smoothed")))
    assert base[1:4] == ["71.00 ± 1.41 %", "", "0, 1"]
    assert smoothed[1:4] == ["77.50 ± 3.54 %", "+3.00", "1, 2"]
    assert smoothed[4] == "`python train.py --config configs/rn18_imagenette_64.py --config.label_smoothing=0.1` |"


def test_an_amended_run_says_so(tree):
    path = tree / "results" / "experiments" / "short" / "smoothed" / "seed1" / "metrics.jsonl"
    epoch, done = path.read_text().splitlines()
    amended = {"event": "amended", "epoch": 1, "step": 1, "changes": {"label_smoothing": [0.0, 0.1]}}
    path.write_text("\n".join([epoch, json.dumps(amended), done]))
    text = experiments.generated(tree / "results" / "experiments", tree)
    assert "--config.label_smoothing=0.1 --amend`, after epoch 1 of the recipe |" in text


def test_check_tells_when_the_page_is_old(tree, capsys):
    assert experiments.main(["--check"], root=tree) == 1
    experiments.main([], root=tree)
    assert experiments.main(["--check"], root=tree) == 0


def test_a_group_needs_its_base_and_its_description(tree, capsys):
    group = tree / "results" / "experiments" / "short"
    (group / "base").rename(group / "other")
    assert experiments.main([], root=tree) == 2
    assert "has no run named base" in capsys.readouterr().err
    workdir = group / "other" / "seed0"
    assert experiments.main(["--add", str(workdir), "--group", "nosuch", "--name", "x"], root=tree) == 2
    assert "group.json" in capsys.readouterr().err


def test_the_page_in_this_tree_is_what_its_runs_say():
    assert experiments.main(["--check"]) == 0


@pytest.mark.parametrize("run", sorted(ROOT.glob("results/experiments/*/*/seed*")), ids=lambda path: path.parent.name)
def test_the_command_of_a_run_that_is_kept_makes_its_configuration(run):
    recipe = json.loads((run.parents[1] / "group.json").read_text())["recipe"]
    kept = json.loads((run / "config.json").read_text())
    parsed = cli.parse(["train", *shlex.split(experiments.command(recipe, kept))[2:]])
    made = json.loads(load_config(ROOT / parsed.config, parsed.overrides).to_json())
    assert {name for name in made if made[name] != {**DEFAULTS, **kept}[name]} <= {"seed", *FREE_FIELDS}
