"""Comparisons: groups of seeds, what differs, and what cannot be compared."""

import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flax_resnets.errors import UserError
from flax_resnets.inference import compare as module
from flax_resnets.inference.compare import compare, labels
from flax_resnets.inference.compare_page import comparison_page, result_columns, result_rows
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.paired import over_images, over_seeds
from flax_resnets.inference.recorded import read_recorded
from flax_resnets.training.timeline import Timeline

RUNS = {
    "plain_seed0": {"seed": 0},
    "plain_seed1": {"seed": 1},
    "smoothed_seed0": {"seed": 0, "label_smoothing": 0.1},
    "smoothed_seed1": {"seed": 1, "label_smoothing": 0.1},
}
DATA = {
    "dataset": "pets",
    "version": "",
    "fingerprint": "ab" * 32,
    "counts": {"train": 90, "validation": 100},
    "splits": {"train": "train", "validation": "test"},
    "channels": 3,
    "class_names": ["cat", "dog"],
}


def accuracies(name: str) -> list[float]:
    """The recorded accuracy of each epoch of a run."""
    number = list(RUNS).index(name)
    return [0.6 + 0.03 * number, 0.7 + 0.02 * number]


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    """The records of four runs, without their networks."""
    for number, (name, changes) in enumerate(RUNS.items()):
        directory = tmp_path / name
        directory.mkdir()
        config = {"model": "lenet", "dataset": "pets", "epochs": 2, "batch_size": 30, **changes}
        (directory / "config.json").write_text(json.dumps(config))
        (directory / "data.json").write_text(json.dumps(DATA))
        rows = [
            {
                "event": "epoch",
                "epoch": epoch,
                "step": 3 * epoch,
                "train_loss": 1 / epoch,
                "valid_loss": 2 / epoch,
                "accuracy": accuracy,
                "top5_accuracy": 1.0,
                "seconds": 10.0,
                "images_per_second": 9.0,
                "skipped_steps": 0,
            }
            for epoch, accuracy in enumerate(accuracies(name), start=1)
        ]
        done = {"event": "done", "best_accuracy": 0.7, "state_digest": f"{number}" * 64}
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, done]))
    return tmp_path


def evaluation(name: str) -> Evaluation:
    """What the network of a run makes of 100 images."""
    labels = np.arange(100) % 2
    random = np.random.default_rng(list(RUNS).index(name) if name in RUNS else 9)
    logits = random.normal(size=(100, 2)).astype(np.float32) + 1.5 * np.eye(2, dtype=np.float32)[labels]
    return Evaluation("pets, test", ("cat", "dog"), logits, labels, fingerprint="cd" * 32)


@pytest.fixture
def networks(monkeypatch):
    """Gives each run its network."""

    def load(directory: Path, **options) -> SimpleNamespace:
        assert options["checkpoint"] == "last"
        return SimpleNamespace(evaluate=lambda **how: evaluation(directory.name))

    monkeypatch.setattr(module, "load_classifier", load)


@pytest.mark.usefixtures("networks")
def test_runs_that_differ_in_the_seed_are_a_group(runs):
    comparison = compare([runs / name for name in ("plain_seed0", "smoothed_seed0", "plain_seed1", "smoothed_seed1")])
    assert [group.label for group in comparison.groups] == ["plain", "smoothed"]
    assert [[member.seed for member in group.members] for group in comparison.groups] == [[0, 1], [0, 1]]
    assert comparison.settings == {"label_smoothing": ("0.0", "0.1")}
    plain, _ = comparison.groups
    assert plain.mean == pytest.approx(0.71)
    assert plain.deviation == pytest.approx(0.02 / 2**0.5)
    (difference,) = comparison.differences
    assert difference.over_seeds == over_seeds([0.74, 0.76], [0.70, 0.72])
    shares = [
        np.mean([evaluation(f"{name}_seed{seed}").correct for seed in (0, 1)], axis=0) for name in ("smoothed", "plain")
    ]
    assert difference.over_images == over_images(*shares)
    assert difference.gained is None
    assert comparison.notes == ()


@pytest.mark.usefixtures("networks")
def test_single_runs_are_compared_by_mcnemar(runs):
    comparison = compare([runs / "plain_seed0", runs / "smoothed_seed0"])
    (difference,) = comparison.differences
    ours, theirs = (evaluation(name).correct for name in ("smoothed_seed0", "plain_seed0"))
    assert difference.over_images == over_images(ours, theirs)
    assert difference.over_images.p_value is not None
    assert (difference.gained, difference.lost) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
    assert difference.over_seeds is None
    found = json.loads(json.dumps(comparison.as_dict()))
    assert found["differences"][0]["over_images"]["p_value"] == difference.over_images.p_value
    assert found["groups"][1]["settings"] == {"label_smoothing": 0.1}
    assert found["groups"][0]["runs"][0]["seconds"] == pytest.approx(20)


@pytest.mark.usefixtures("networks")
def test_the_page_has_tables_and_curves(runs):
    comparison = compare([runs / "plain_seed0", runs / "smoothed_seed0", runs / "smoothed_seed1"])
    page = comparison_page(comparison)
    titles = ["Results", "Differences from plain_seed0", "Settings that differ", "Curves", "Runs"]
    assert re.findall(r"<h2>(.*?)</h2>", page) == titles
    assert page.count("<svg") == 3
    tables = page.split("<table>")[1:]
    for each in tables:
        header, *rows = re.findall(r"<tr>(.*?)</tr>", each)
        assert {row.count("<td") for row in rows} == {header.count("<th")}
    assert "<td>75.00 ± 1.41</td>" in tables[0]
    assert "<td>1</td><td>2</td><td>76.00</td>" in tables[-1]  # seed, epochs, accuracy


def test_without_networks_the_records_are_compared(runs):
    comparison = compare([runs / name for name in RUNS])
    (difference,) = comparison.differences
    assert difference.over_images is None
    assert difference.over_seeds.difference == pytest.approx(0.04)
    assert [note.partition(":")[0] for note in comparison.notes] == list(RUNS)
    assert all("not compared image by image" in note for note in comparison.notes)


def test_seeds_alone(runs):
    comparison = compare([runs / "plain_seed0", runs / "plain_seed1"])
    assert len(comparison.groups) == 1
    assert [each.group.label for each in comparison.differences] == ["plain_seed1"]
    assert "The runs differ in nothing but the seed." in comparison.notes
    assert "Settings that differ" not in comparison_page(comparison)


def test_an_option_of_the_network_has_a_row_of_its_own(runs):
    path = runs / "plain_seed0" / "config.json"
    for name, options in (("plain", {"width": 4}), ("mish", {"width": 4, "activation": "mish"})):
        (runs / name).mkdir()
        for file in path.parent.iterdir():
            (runs / name / file.name).write_bytes(file.read_bytes())
        config = json.loads(path.read_text()) | {"model_options": options}
        (runs / name / "config.json").write_text(json.dumps(config))
    comparison = compare([runs / "plain", runs / "mish"])
    assert comparison.settings == {"model_options.activation": ("null", '"mish"')}


def test_other_data_is_another_group(runs):
    data = runs / "plain_seed1" / "data.json"
    data.write_text(json.dumps({**DATA, "fingerprint": "0" * 64}))
    comparison = compare([runs / "plain_seed0", runs / "plain_seed1"])
    assert [group.label for group in comparison.groups] == ["plain_seed0", "plain_seed1"]
    images = "pets, 90 and 100 images, fingerprint"
    assert comparison.settings == {"data": (f'"{images} abababab"', f'"{images} 00000000"')}


def test_a_share_that_is_drawn_by_the_seed_is_the_same_data(runs):
    """Its fingerprint is another for each seed, also where the configuration names no share."""
    for seed, fingerprint in enumerate(("12" * 32, "34" * 32)):
        splits = {
            part: f"{words}0.2 of all by seed {seed}" for part, words in (("train", "all without "), ("validation", ""))
        }
        record = {**DATA, "fingerprint": fingerprint, "splits": splits}
        (runs / f"plain_seed{seed}" / "data.json").write_text(json.dumps(record))
    assert len(compare([runs / "plain_seed0", runs / "plain_seed1"]).groups) == 1
    # Pictures were added.
    (runs / "plain_seed1" / "data.json").write_text(json.dumps({**record, "counts": {"train": 95, "validation": 101}}))
    comparison = compare([runs / "plain_seed0", runs / "plain_seed1"])
    assert comparison.settings == {"data": ('"pets, 90 and 100 images"', '"pets, 95 and 101 images"')}


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "ef" * 32},
        {"fingerprint": ""},
        {"dataset": "pets, train"},
        {"labels": 1 - np.arange(100) % 2},
        {"class_names": ("dog", "cat")},
    ],
)
def test_other_images_are_not_compared(runs, monkeypatch, change):
    def load(directory: Path, **options) -> SimpleNamespace:
        found = evaluation(directory.name)
        found = dataclasses.replace(found, **change) if "smoothed" in directory.name else found
        return SimpleNamespace(evaluate=lambda **how: found)

    monkeypatch.setattr(module, "load_classifier", load)
    comparison = compare([runs / "plain_seed0", runs / "smoothed_seed0"])
    assert comparison.differences[0].over_images is None
    (note,) = comparison.notes
    assert note.startswith("Not compared image by image with plain_seed0: smoothed_seed0; their ")


def test_a_run_without_an_epoch_and_a_seed_that_comes_twice(runs):
    (runs / "smoothed_seed0" / "metrics.jsonl").write_text("")
    config = runs / "plain_seed1" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "seed": 0}))
    comparison = compare([runs / "plain_seed0", runs / "plain_seed1", runs / "smoothed_seed0"])
    assert comparison.groups[1].mean is None
    assert any("is not done; 0 of 2 epochs" in note for note in comparison.notes)
    assert any("2 runs have seed 0" in note for note in comparison.notes)
    json.dumps(comparison.as_dict(), allow_nan=False)
    assert "<svg" in comparison_page(comparison)


def test_a_run_that_ended_early_is_done(runs):
    path = runs / "smoothed_seed0" / "metrics.jsonl"
    first, _, last = path.read_text().splitlines()
    path.write_text(f"{first}\n{json.dumps(json.loads(last) | {'ended_by': 'patience'})}\n")
    comparison = compare([runs / "plain_seed0", runs / "smoothed_seed0"])
    assert all(member.run.done for member in comparison.members)
    assert "smoothed_seed0: ended by patience after 1 of 2 epochs." in comparison.notes


def change_rows(directory: Path, change) -> None:
    """Changes each row of a run's epochs."""
    path = directory / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = [change(row) if row["event"] == "epoch" else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_with_several_labels_an_image_precision_is_compared(runs):
    for number, name in enumerate(RUNS):
        shares = {"mean_average_precision": 0.3 + number / 10, "f1": 0.25, "accuracy": 0.95}
        change_rows(runs / name, lambda row, new=shares: {k: v for k, v in row.items() if k != "top5_accuracy"} | new)
    comparison = compare([runs / name for name in RUNS])
    assert comparison.differences[0].over_seeds == over_seeds([0.5, 0.6], [0.3, 0.4])
    header, rows = result_columns(comparison.groups), result_rows(comparison.groups)
    found = dict(zip(header, rows[0][1:], strict=True))
    assert (found["mAP"], found["F1"], found["accuracy"], found["best"]) == ("35.00 ± 7.07", "25.00", "95.00", "40.00")
    page = comparison_page(comparison)
    assert page.count("<svg") == 5
    assert "valid mAP (%)" in page
    group = json.loads(json.dumps(comparison.as_dict(), allow_nan=False))["groups"][0]
    assert group["mean_average_precision_mean"] == pytest.approx(0.35)
    assert group["runs"][0]["f1"] == 0.25


def test_an_amended_run_has_the_time_of_its_batch_sizes(runs):
    """Epoch 1 has 3 steps of 30 images, epoch 2 has 6 of 15, all at 9 images a second."""
    directory = runs / "smoothed_seed0"
    change_rows(directory, lambda row: row | {"step": 3 if row["epoch"] == 1 else 9})
    first, second, done = (directory / "metrics.jsonl").read_text().splitlines()
    amended = {"event": "amended", "step": 3, "epoch": 1, "epoch_step": 3, "changes": {"batch_size": [30, 15]}}
    (directory / "metrics.jsonl").write_text("\n".join([first, json.dumps(amended), second, done, ""]))
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, "batch_size": 15}))
    run = read_recorded(directory)
    assert run.seconds == pytest.approx(20)
    assert [(each.begin, each.timeline, each.config["batch_size"]) for each in run.stretches] == [
        (0, Timeline(3), 30),
        (3, Timeline(6, 1, 3), 15),
    ]
    comparison = compare([runs / "plain_seed0", directory])
    assert "smoothed_seed0: was amended after epoch 1: batch_size 30 -> 15." in comparison.notes


def test_names_become_no_tags(runs):
    bad = (runs / "plain_seed0").rename(runs / "<b onclick=x>$a")
    page = comparison_page(compare([bad, runs / "smoothed_seed0"]))
    assert "<b onclick" not in page
    assert "&lt;b onclick=x&gt;$a" in page


def test_what_is_refused(runs):
    one = runs / "plain_seed0"
    with pytest.raises(UserError, match="at least two runs"):
        compare([one])
    with pytest.raises(UserError, match="is named twice"):
        compare([one, f"{one}/"])
    with pytest.raises(UserError, match="no such directory"):
        compare([one, runs / "no"])
    saved = runs / "saved"
    saved.mkdir()
    (saved / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(UserError, match="saved folder"):
        compare([one, saved])


def test_labels():
    assert labels([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert labels([Path("/x/a/seed0"), Path("/x/b/seed0")]) == ["a/seed0", "b/seed0"]
