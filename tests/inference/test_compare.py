"""Comparisons: groups of seeds, what differs, and what cannot be compared."""

import json
import re
import shutil
from pathlib import Path

import pytest

from flax_resnets import Classifier, load_classifier
from flax_resnets.errors import UserError
from flax_resnets.inference.compare import compare, labels
from flax_resnets.inference.compare_page import comparison_page
from flax_resnets.inference.paired import over_images


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory) -> Path:
    """Copies of a run; those with `smoothed` in their names see images of another mean, so that they predict others."""
    directory = tmp_path_factory.mktemp("compared")
    for name, changes in {
        "plain_seed0": {},
        "plain_seed1": {"seed": 1},
        "smoothed_seed0": {"label_smoothing": 0.1, "mean": [0.7]},
        "smoothed_seed1": {"label_smoothing": 0.1, "mean": [0.7], "seed": 1},
    }.items():
        copy = Path(shutil.copytree(trained, directory / name))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, **changes}))
    return directory


@pytest.fixture(scope="module")
def comparison(runs):
    return compare([runs / "plain_seed0", runs / "smoothed_seed0", runs / "plain_seed1"])


def test_runs_that_differ_in_the_seed_are_a_group(comparison):
    assert [group.label for group in comparison.groups] == ["plain", "smoothed_seed0"]
    assert [[member.seed for member in group.members] for group in comparison.groups] == [[0, 1], [0]]
    assert comparison.settings == {"mean": ("[0.286]", "[0.7]"), "label_smoothing": ("0.0", "0.1")}
    assert comparison.groups[0].deviation == 0
    assert comparison.groups[1].deviation is None


def test_the_same_images_are_compared(comparison, runs):
    (difference,) = comparison.differences
    ours = load_classifier(runs / "smoothed_seed0", checkpoint="last").evaluate().correct
    theirs = load_classifier(runs / "plain_seed0", checkpoint="last").evaluate().correct
    assert (ours != theirs).any()
    # The group's two networks are the same here, so that its shares are 0 and 1.
    assert difference.over_images == over_images(ours, theirs)._replace(p_value=None)
    assert difference.over_seeds is None


def test_single_runs_are_compared_by_mcnemar(runs, tmp_path):
    comparison = compare([runs / "plain_seed0", runs / "smoothed_seed0"])
    (difference,) = comparison.differences
    assert 0 <= difference.over_images.p_value <= 1
    assert difference.gained + difference.lost > 0
    assert comparison.notes == ()
    found = json.loads(json.dumps(comparison.as_dict()))
    assert found["differences"][0]["over_images"]["p_value"] == difference.over_images.p_value
    assert found["groups"][1]["settings"] == {"mean": [0.7], "label_smoothing": 0.1}
    page = comparison_page(comparison)
    assert re.findall(r"<h2>(.*?)</h2>", page) == [
        "Results",
        "Differences from plain_seed0",
        "Settings that differ",
        "Curves",
        "Runs",
    ]
    assert page.count("<svg") == 3
    assert f"{difference.gained} images only smoothed_seed0 predicts right" in page


@pytest.fixture
def no_pictures(monkeypatch):
    def refuse(*args, **options):
        raise UserError("the <pictures> are elsewhere")

    monkeypatch.setattr(Classifier, "evaluate", refuse)


@pytest.mark.usefixtures("no_pictures")
def test_without_pictures_the_records_are_compared(runs):
    names = ("plain_seed0", "plain_seed1", "smoothed_seed0", "smoothed_seed1")
    comparison = compare([runs / name for name in names])
    (difference,) = comparison.differences
    assert difference.over_images is None
    assert difference.over_seeds.difference == 0  # the records are copies
    assert sum("the <pictures> are elsewhere" in note for note in comparison.notes) == 4
    assert "the &lt;pictures&gt; are elsewhere" in comparison_page(comparison)


@pytest.mark.usefixtures("no_pictures")
def test_seeds_alone(runs):
    comparison = compare([runs / "plain_seed0", runs / "plain_seed1"])
    assert len(comparison.groups) == 1
    assert [each.group.label for each in comparison.differences] == ["plain_seed1"]
    assert "The runs differ in nothing but the seed." in comparison.notes
    assert "Settings that differ" not in comparison_page(comparison)


@pytest.mark.usefixtures("no_pictures")
def test_other_data_is_another_group(runs, tmp_path):
    copy = Path(shutil.copytree(runs / "plain_seed0", tmp_path / "other"))
    data = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps({**data, "fingerprint": "0" * 64}))
    comparison = compare([runs / "plain_seed0", copy])
    assert len(comparison.groups) == 2
    assert list(comparison.settings) == ["data"]


def test_other_images_are_not_compared(runs, monkeypatch):
    evaluate = Classifier.evaluate
    monkeypatch.setattr(
        Classifier,
        "evaluate",
        lambda self, **options: evaluate(self, split="train" if "smoothed" in self.source else "validation", **options),
    )
    comparison = compare([runs / "plain_seed0", runs / "smoothed_seed0"])
    assert comparison.differences[0].over_images is None
    assert any(note.startswith("Not compared image by image with plain_seed0: smoothed") for note in comparison.notes)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_without_an_epoch_and_a_copy(runs, tmp_path):
    copy = Path(shutil.copytree(runs / "smoothed_seed0", tmp_path / "begun"))
    (copy / "metrics.jsonl").write_text("")
    again = Path(shutil.copytree(runs / "plain_seed0", tmp_path / "again"))
    comparison = compare([runs / "plain_seed0", again, copy])
    assert comparison.groups[1].mean is None
    assert any("is not done; 0 of 3 epochs" in note for note in comparison.notes)
    assert any("2 runs have seed 0" in note for note in comparison.notes)
    json.dumps(comparison.as_dict(), allow_nan=False)
    assert "<svg" in comparison_page(comparison)


def test_what_is_refused(runs, tmp_path):
    one = runs / "plain_seed0"
    with pytest.raises(UserError, match="at least two runs"):
        compare([one])
    with pytest.raises(UserError, match="is named twice"):
        compare([one, f"{one}/"])
    with pytest.raises(UserError, match="no such directory"):
        compare([one, runs / "no"])
    load_classifier(one).save(tmp_path / "saved")
    with pytest.raises(UserError, match="saved folder"):
        compare([one, tmp_path / "saved"])


def test_labels():
    assert labels([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert labels([Path("/x/a/seed0"), Path("/x/b/seed0")]) == ["a/seed0", "b/seed0"]
