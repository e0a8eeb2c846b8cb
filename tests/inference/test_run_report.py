"""Reports: what they say of a run, and of one that lacks something."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from flax_resnets import Classifier, load_classifier
from flax_resnets.errors import UserError
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.recorded import read_recorded
from flax_resnets.inference.report import SECTIONS, Subject, page_of, report
from flax_resnets.inference.report.run_sections import _schedules
from flax_resnets.training.schedule import one_cycle
from flax_resnets.training.timeline import Timeline
from flax_resnets.weights import hub


@pytest.fixture(scope="module")
def page(trained) -> str:
    return report(trained)


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_a_run_has_all_sections(page):
    assert headings(page) == [title for title in SECTIONS if title not in ("Lineage", "Activations")]


def test_pictures_have_their_explanation(page):
    """Grad-CAM beside each worst, suspect and best picture."""
    assert "(Grad-CAM)" in page
    assert "Without Grad-CAM" not in page
    galleries = page[page.index("<h2>Worst") : page.index("<h2>Calibration")]
    assert galleries.count('alt="what speaks for ') == galleries.count("<figcaption>") >= 30


def test_its_figures_are_those_of_the_run(page, trained):
    best = read_recorded(trained).best
    assert f"{100 * best.accuracy:.2f} %" in page
    evaluation = load_classifier(trained).evaluate()
    lower, upper = evaluation.accuracy_interval
    assert f"95 % interval {100 * lower:.2f} % to {100 * upper:.2f} %" in page
    for mistake in evaluation.worst(20):
        assert f"predicted <b>{mistake.predicted}</b> {mistake.probability:.1%}" in page
    name, predicted, count = evaluation.most_confused(1)[0]
    assert f'<td class="left">{name}</td><td class="left">{predicted}</td><td>{count}</td>' in page
    assert json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])["state_digest"] in page
    assert json.loads((trained / "data.json").read_text())["fingerprint"] in page
    assert f"flax-resnets train --config {trained}/config.json" in page


def test_it_is_one_file_of_a_few_hundred_kilobytes(page):
    assert len(page.encode()) < 1_000_000
    assert not re.search(r"""(src|href)="(?!data:|#)""", page)
    assert "<script" not in page
    assert len(re.findall("<img ", page)) >= 10 * 6 + 20


def test_changed_fields_come_first(page):
    configuration = page[page.index("<h2>Configuration") :]
    changed, whole = configuration.split("<details>")[:2]
    assert "ema_decay" in changed
    assert "optimizer" not in changed
    assert "optimizer" in whole


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_without_pictures_the_rest_is_there(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "dataset": "folder", "data_dir": "/no/such"}))
    page = report(copy)
    assert "No evaluation, and no pictures: " in page
    assert {"Curves", "Epochs", "Classes", "Configuration", "Repeat"} <= set(headings(page))
    assert "Worst mistakes" not in headings(page)


def test_a_run_without_a_finished_epoch(copy):
    (copy / "metrics.jsonl").write_text("")
    shutil.rmtree(copy / "checkpoints")
    page = report(copy)
    assert "has no checkpoint yet" in page
    assert "has not finished an epoch" in page
    assert "0 of 3" in page
    assert {"Result", "Configuration", "Data"} <= set(headings(page))
    assert "Curves" not in headings(page)


@pytest.fixture
def no_pictures(monkeypatch):
    """Saves the time of an evaluation."""

    def refuse(*args, **options):
        raise UserError("the pictures are elsewhere")

    monkeypatch.setattr(Classifier, "evaluate", refuse)


@pytest.mark.usefixtures("no_pictures")
def test_a_run_under_way(copy):
    rows = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(rows[:2]) + rows[2][:20])
    page = report(copy, checkpoint="last")
    assert "2 of 3" in page
    assert "not done" in page
    assert "The dotted line is the end of the last finished epoch" in page


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_ended_early(copy):
    rows = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    done = json.loads(rows[-1]) | {"ended_by": "<patience>"}
    (copy / "metrics.jsonl").write_text("".join(rows[:2]) + json.dumps(done) + "\n")
    page = report(copy, checkpoint="last")
    assert "2 of 3" in page
    assert "epochs, ended by &lt;patience&gt;" in page
    assert "The dotted line is the end of the last finished epoch" in page


@pytest.mark.usefixtures("no_pictures")
def test_a_saved_folder_has_no_curves(trained, tmp_path):
    load_classifier(trained).save(tmp_path / "saved")
    page = report(tmp_path / "saved")
    assert {"Result", "Configuration"} <= set(headings(page))
    assert "No evaluation, and no pictures: the pictures are elsewhere" in page
    assert not {"Curves", "Epochs", "Repeat"} & set(headings(page))


def test_a_network_without_a_dataset_is_evaluated_on_the_one_that_is_named(trained, tmp_path):
    load_classifier(trained).save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    config["flax_resnets"]["dataset"] = ""  # as of a folder of timm's
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    assert "No evaluation, and no pictures: " in report(tmp_path / "saved")
    page = report(tmp_path / "saved", dataset="fashion_mnist_sample")
    assert "It was evaluated on fashion_mnist_sample" in page
    assert "<b>1,000</b>images evaluated" in page
    assert "validation" not in page[page.index("<h2>Result") : page.index("<h2>Confusion")]
    assert "Worst mistakes" in headings(page)


def test_trained_weights_are_looked_for_by_their_names(monkeypatch):
    def offline(source, name):
        raise UserError(f"{source}: the hub is not reached")

    monkeypatch.setattr(hub, "download", offline)
    with pytest.raises(UserError, match=r"hf-hub:timm/resnet50\.a1_in1k: the hub is not reached"):
        report("resnet50.a1_in1k")


@pytest.mark.usefixtures("no_pictures")
def test_files_that_not_every_run_has(copy):
    (copy / "lineage.json").write_text(json.dumps({"weights": "<old>/run", "step": None}))
    (copy / "machine.json").write_text(json.dumps({"hardware": "a toaster"}))
    layers = {"conv<1>": {"mean": 0.0, "std": 1.0, "near_zero": 0.1}}
    rows = (json.dumps({"step": step, "layers": layers}) + "\n" for step in (0, 4))
    (copy / "activations.jsonl").write_text("".join(rows))
    page = report(copy)
    assert "&lt;old&gt;/run" in page[page.index("<h2>Lineage") :]
    assert "conv&lt;1&gt;" in page[page.index("<h2>Activations") :]
    assert "a toaster" in page[page.index("<h2>Environment") :]


def rewritten(workdir: Path, config: dict, *rows: dict) -> Path:
    """The run with other rows and another configuration; a row of an epoch has the figures of the run's."""
    old = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    rows = [(old[0] | row if row.get("event", "epoch") == "epoch" else row) for row in rows]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, old[-1]]))
    config = json.loads((workdir / "config.json").read_text()) | config
    (workdir / "config.json").write_text(json.dumps(config))
    return workdir


def test_an_amended_run_says_so_and_has_the_columns_of_all_rows(copy, no_pictures):
    average = {"ema_valid_loss": 0.5, "ema_accuracy": 0.8765, "ema_top5_accuracy": 0.9}
    changes = {"batch_size": [375, 150], "ema_decay": [None, 0.9]}
    rewritten(
        copy,
        {"batch_size": 150, "ema_decay": 0.9, "schedule": "constant"},
        {"epoch": 1, "step": 4, "ema_valid_loss": None, "ema_accuracy": None, "ema_top5_accuracy": None},
        {"event": "amended", "step": 4, "epoch": 1, "epoch_step": 4, "changes": changes},
        {"epoch": 2, "step": 14, **average},
        {"epoch": 3, "step": 24, **average},
    )
    page = report(copy)
    assert "The run was amended after epoch 1: batch_size 375 -&gt; 150, ema_decay None -&gt; 0.9." in page
    assert "24 steps, 10 in an epoch since it was last amended" in page
    assert "<th>accuracy, EMA</th>" in page
    assert page.count("<td>87.65%</td>") == 2


def test_the_schedule_begins_anew_where_a_run_was_amended(copy):
    rewritten(
        copy,
        {"schedule": "one_cycle", "learning_rate": 0.5, "pct_start": 0.25},
        {"epoch": 1, "step": 4},
        {"event": "amended", "step": 4, "epoch": 1, "epoch_step": 4, "changes": {"learning_rate": [0.1, 0.5]}},
        {"epoch": 2, "step": 8},
    )
    timeline, steps, ((at, rates), (_, momenta)) = _schedules(read_recorded(copy).stretches)
    assert (timeline, steps, at, len(momenta)) == (Timeline(4, 1, 4), 12, list(range(12)), 12)
    first, second = (one_cycle(total, peak, pct_start=0.25) for total, peak in ((12, 0.1), (8, 0.5)))
    assert rates == pytest.approx([*first(np.arange(4)).tolist(), *second(np.arange(8)).tolist()])


def test_with_several_labels_an_image_its_figures_are_those_of_several_labels(copy, no_pictures):
    shares = {"mean_average_precision": 0.4321, "f1": 0.3456, "accuracy": 0.95, "top5_accuracy": None}
    averaged = {"ema_mean_average_precision": 0.5, "ema_f1": 0.4, "ema_top5_accuracy": None}
    page = report(rewritten(copy, {}, {"epoch": 1, "step": 4, **shares, **averaged}))
    assert "<b>43.21 %</b>mean average precision after epoch 1, as the run recorded it" in page
    assert "<b>34.56 %</b>F1" in page
    assert "<b>95.00 %</b>accuracy: share of right decisions" in page
    assert "valid mAP, F1, accuracy (%)" in page
    assert {"<th>mAP</th>", "<th>F1</th>", "<th>mAP, EMA</th>"} <= set(re.findall("<th>.*?</th>", page))


def test_of_up_to_five_classes_there_is_no_top_5(copy, no_pictures):
    assert "<th>top-5</th>" in report(copy)
    page = report(rewritten(copy, {}, {"epoch": 1, "step": 4, "top5_accuracy": 1.0}))
    assert "top-5" not in page


@pytest.mark.parametrize("name", ["metrics.jsonl", "data.json", "config.json"])
def test_a_damaged_file_is_named(copy, name):
    (copy / name).write_text("{]\n")
    with pytest.raises(UserError, match=name):
        report(copy)


def evaluation_of(classes: int, images: int, image=None, names=None) -> Evaluation:
    random = np.random.default_rng(0)
    logits = random.normal(size=(images, classes)).astype(np.float32)
    labels = random.integers(0, classes, images)
    names = names or [f"class {i}" for i in range(classes)]
    return Evaluation("made up", tuple(names), logits, labels, image=image)


def test_names_of_users_become_no_tags():
    names = ["<script>alert(1)</script>", '"><b onclick=x>$a$', "--></svg>"]
    evaluation = evaluation_of(3, 50, lambda row: np.zeros((30, 30, 3), np.uint8), names)
    page = page_of(Subject("</title><script>", None, None, evaluation, ("<i>a note</i>",)))
    assert "<script" not in page
    assert "<b onclick" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_a_thousand_classes_are_readable():
    evaluation = evaluation_of(1000, 5000, lambda row: np.zeros((30, 30, 3), np.uint8))
    page = page_of(Subject("large", None, None, evaluation))
    assert "The 50 classes with the lowest F1 of " in page
    assert "the 50 most confused of 1,000 classes" in page
    assert len(page.encode()) < 3_000_000


def test_one_class():
    page = page_of(Subject("one", None, None, evaluation_of(1, 5)))
    assert "No mistakes." in page
    assert "100.00 %" in page
    assert "top-5" not in page


def test_pictures_that_are_gone():
    def gone(row: int) -> np.ndarray:
        raise UserError("cat.jpg: No such file")

    page = page_of(Subject("gone", None, None, evaluation_of(4, 30, gone)))
    assert "cannot be read: cat.jpg: No such file" in page
    assert "Without Grad-CAM: " in page
    assert "Worst mistakes" in headings(page)


def test_what_cannot_be_evaluated_on_the_data_that_are_asked_for_has_no_report(trained, tmp_path):
    with pytest.raises(UserError, match="fashion_mnist_sampel"):
        report(trained, dataset="fashion_mnist_sampel")
    with pytest.raises(UserError, match="nowhere"):
        report(trained, dataset="folder", data_dir=str(tmp_path / "nowhere"))
    page = report(trained, dataset="fashion_mnist_sample")
    assert "Evaluated on the dataset fashion_mnist_sample, as asked." in page
