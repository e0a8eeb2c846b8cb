"""A run on images of any number of classes: its rows, its classifier, its figures and pictures."""

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets import cli, load_classifier
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.inference import evaluation_figures
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation
from flax_resnets.inference.report import report
from flax_resnets.training import load_config, run
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.config import Config
from flax_resnets.training.interruption import Interruption
from flax_resnets.training.loop import Stopped

NAMES = ("blue", "green", "red", "white")  # white is the class of no validation image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Pictures whose channels are bright or dark, and the list of their labels."""
    root, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = [("path", "label", "split")]
    for number in range(300):
        bright = random.integers(0, 2, 3)
        white = number < 200 and bright.all()
        pixels = random.integers(0, 120, (16, 16, 3)) + 120 * bright[::-1]
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        names = [name for name, there in zip(NAMES, (*bright, white), strict=True) if there]
        rows.append((f"{number}.png", ";".join(names), "train" if number < 200 else "val"))
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def config(pictures) -> Config:
    return Config(
        model="lenet_bn",
        dataset="folder",
        data_dir=str(pictures),
        label_separator=";",
        loss="bce",
        image_size=16,
        batch_size=50,
        eval_batch_size=30,  # the last batch is padded
        epochs=3,
        learning_rate=2e-2,
        label_smoothing=0.1,
        mixup=0.2,
        ema_decay=0.5,
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "colours"
    run(config, workdir)
    return workdir


@pytest.fixture(scope="module")
def evaluation(trained) -> MultilabelEvaluation:
    found = load_classifier(trained).evaluate()
    assert isinstance(found, MultilabelEvaluation)
    return found


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


FIGURES = {"accuracy", "mean_average_precision", "f1"}


def test_its_rows_have_the_figures_of_several_classes(trained):
    *epochs, done = rows(trained)
    assert all(FIGURES | {f"ema_{name}" for name in FIGURES} <= row.keys() for row in epochs)
    assert not any("top5" in name for row in epochs for name in row)
    best = max(epochs, key=lambda row: row["mean_average_precision"])
    assert best["mean_average_precision"] > 0.9  # the channels are learned
    assert done["best_mean_average_precision"] == best["mean_average_precision"]
    assert (done["best_accuracy"], done["best_epoch"]) == (best["accuracy"], best["epoch"])
    record = json.loads((trained / "data.json").read_text())
    assert record["multilabel"] is True
    assert record["class_counts"]["validation"][3] == 0
    assert sum(record["class_counts"]["train"]) > 200


def test_the_figures_are_those_of_the_run_to_the_last_digit(trained, evaluation):
    *epochs, done = rows(trained)
    best = epochs[done["best_epoch"] - 1]
    assert {name: getattr(evaluation, name) for name in FIGURES} == {name: best[name] for name in FIGURES}
    assert evaluation.loss == best["valid_loss"]
    assert evaluation.as_dict()["mean_average_precision"] == best["mean_average_precision"]


def test_its_figures_by_counting(evaluation):
    predicted, labels = evaluation.probabilities > 0.5, evaluation.labels
    assert evaluation.images == len(labels) == 100
    assert evaluation.accuracy == (predicted == labels).mean()
    assert evaluation.exact_match == (predicted == labels).all(1).mean()
    hits, wrong, missed = ((predicted & (labels == 1)), (predicted & (labels == 0)), (~predicted & (labels == 1)))
    assert evaluation.micro_f1 == pytest.approx(2 * hits.sum() / (2 * hits.sum() + wrong.sum() + missed.sum()))
    for number, each in enumerate(evaluation.per_class):
        assert each.class_name == NAMES[number]
        assert each.support == labels[:, number].sum()
        assert each.precision == pytest.approx(hits[:, number].sum() / max(predicted[:, number].sum(), 1))
        assert each.recall == pytest.approx(hits[:, number].sum() / max(each.support, 1))
    assert evaluation.per_class[3].average_precision == 0
    assert evaluation.mean_average_precision == np.mean([each.average_precision for each in evaluation.per_class[:3]])
    assert evaluation.f1 == np.mean([each.f1 for each in evaluation.per_class[:3]])
    assert evaluation.losses.mean() == pytest.approx(evaluation.loss)


def test_its_worst_images(evaluation):
    worst = evaluation.worst(3)
    assert [each.loss for each in worst] == sorted((each.loss for each in worst), reverse=True)
    for each in worst:
        wrong = {NAMES[n] for n in np.flatnonzero(evaluation.predicted[each.index] != evaluation.labels[each.index])}
        assert wrong == {*each.missed, *each.wrong} != set()
    assert worst[0].image_name.endswith(f"{200 + worst[0].index}.png")


def test_probabilities_of_classes_are_independent(trained, pictures, evaluation):
    found = load_classifier(trained).predict(pictures / "200.png", top_k=4)
    assert {each.class_name: each.probability for each in found[0]} == pytest.approx(
        dict(zip(NAMES, evaluation.probabilities[0].tolist(), strict=True)), rel=1e-4
    )


class StopsIn(Callback):
    """Stops the run in an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_epoch_begin(self, run, epoch):
        if epoch == self.epoch:
            run.stop.ask("the test")


def test_a_run_that_resumes_with_streamed_images_ends_in_the_same_bits(trained, config, tmp_path):
    with pytest.raises(Stopped):
        run(config, tmp_path / "again", [StopsIn(2)], stop=Interruption())
    finished = run(dataclasses.replace(config, images="streamed"), tmp_path / "again")
    assert finished.digest == rows(trained)[-1]["state_digest"]
    without = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows(trained)]
    assert [{k: row[k] for k in each} for each, row in zip(without, rows(tmp_path / "again"), strict=True)] == without


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "cross_entropy"}, "any number of labels an image, so training needs loss=bce"),
        ({"class_weights": "balanced"}, "class_weights=balanced: folder has any number of labels an image"),
        ({"class_weights": "1,1,1,2"}, "class_weights=1.0,1.0,1.0,2.0: folder has any number of labels an image"),
    ],
)
def test_what_does_not_go_together(trained, tmp_path, fields, message, capsys):
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    assert cli.main(["train", f"--config={trained / 'config.json'}", f"--workdir={tmp_path / 'new'}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error) < 600
    assert not (tmp_path / "new").exists()


def test_a_classifier_of_one_class_is_not_evaluated_by_several(trained, pictures):
    classifier = load_classifier(trained)
    classifier.settings = dataclasses.replace(classifier.settings, loss="cross_entropy")
    with pytest.raises(UserError, match="any number of labels an image; the classifier was trained with loss=cross"):
        classifier.evaluate()


def test_its_pictures(evaluation):
    pictures = evaluation_figures.pictures(evaluation)
    assert [*pictures] == ["classes.png", "mistakes.png"]
    for content in pictures.values():
        assert Image.open(io.BytesIO(content)).size > (400, 200)
    right = dataclasses.replace(evaluation, logits=np.where(evaluation.labels, 9, -9).astype(np.float32))
    assert Image.open(io.BytesIO(evaluation_figures.draw_worst(right))).format == "PNG"


def test_the_commands(trained, pictures, evaluation, tmp_path, capsys):
    assert cli.main(["evaluate", str(trained), "--output", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert f"mean average precision   {evaluation.mean_average_precision:.4f}" in out
    assert re.search(r"class +images +AP +precision +recall +F1\n", out)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "classes.png",
        "evaluation.json",
        "mistakes.png",
    ]
    assert len(json.loads((tmp_path / "out" / "evaluation.json").read_text())["per_class"]) == 4
    options = ["folder", f"--data_dir={pictures}", "--config.label_separator=;"]
    assert cli.main(["data", *options, f"--picture={tmp_path / 'classes.png'}"]) == 0
    out = capsys.readouterr().out
    assert "4 classes, any number of them an image, colour" in out
    assert re.search(r"labels an image +0 to 4, mean [12]\.\d\d +0 to 3, mean", out)
    assert "no validation images of class 'white'" in out
    assert cli.main(["show-batch", f"--config={trained / 'config.json'}", f"--output={tmp_path}"]) == 0
    assert (tmp_path / "show_batch.png").read_bytes()[1:4] == b"PNG"
    assert (tmp_path / "classes.png").read_bytes()[1:4] == b"PNG"


def test_its_report(trained, evaluation):
    page = report(trained)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert {"Result", "Classes", "Worst mistakes"} <= set(headings)
    assert not {"Confusion matrix", "Most confused classes", "Likely mislabelled", "Calibration"} & set(headings)
    assert f"<b>{100 * evaluation.mean_average_precision:.2f} %</b>mean average precision" in page
    assert f"<b>{100 * evaluation.exact_match:.2f} %</b>exact match" in page
    classes = page[page.index("<h2>Classes") : page.index("<h2>Worst")]
    assert re.findall("<th.*?>(.*?)</th>", classes)[-4:] == ["AP", "precision", "recall", "F1"]
    first = evaluation.per_class[0]
    shares = "".join(f"<td>{share:.3f}</td>" for share in first[2:])
    assert f"<td>{first.support}</td>{shares}" in classes
    assert classes.count("<img ") == 3 * 6  # of white, no validation image
    worst = page[page.index("<h2>Worst") : page.index("<h2>First filters")]
    mistakes = evaluation.worst(20)
    assert worst.count("<figure>") == worst.count("<img ") == len(mistakes)
    assert f"of {(~evaluation.correct).sum()} mistakes" in worst
    for each in mistakes:
        assert all(f"missed <b>{', '.join(names)}</b>" in worst for names in [each.missed] if names)
        assert all(f"wrong <b>{', '.join(names)}</b>" in worst for names in [each.wrong] if names)


def test_balanced_draws(config, tmp_path, pictures):
    source = open_source("folder", "train", pictures, label_separator=";")
    assert source.labels()[:, 3].mean() < 0.2
    finished = run(dataclasses.replace(config, sampler="balanced", epochs=1, ema_decay=None), tmp_path / "run")
    assert finished.best is not None
    assert finished.best.mean_average_precision == max(row.mean_average_precision or 0 for row in finished.history)


def test_a_saved_folder_knows_how_its_set_is_read(trained, evaluation, tmp_path, pictures):
    load_classifier(trained).save(tmp_path / "saved")
    again = load_classifier(tmp_path / "saved").evaluate(data_dir=str(pictures))
    assert isinstance(again, MultilabelEvaluation)
    assert again.mean_average_precision == evaluation.mean_average_precision
    assert load_config(trained / "config.json").label_separator == ";"
