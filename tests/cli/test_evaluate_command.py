"""The command `evaluate`: its table, its JSON, and its files."""

import json
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flax_resnets import Classifier, cli, create_model
from flax_resnets.cli import evaluate as command
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation
from flax_resnets.inference.preprocess import Settings


@pytest.fixture(scope="module")
def network() -> Classifier:
    """A network that was not trained."""
    import jax

    settings = Settings(
        model="lenet", dataset="fashion_mnist_sample", image_size=28, channels=1, mean=(0.3,), std=(0.3,)
    )
    model = create_model("lenet", num_classes=10)
    names = open_source("fashion_mnist_sample", "validation").class_names
    return Classifier(model, model.init(jax.random.key(0), np.zeros((1, 28, 28, 1))), settings, names)


@pytest.fixture(autouse=True)
def found(network, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "load", lambda arguments: network)
    monkeypatch.chdir(tmp_path)


def test_it_prints_figures_classes_and_mistakes(network, capsys):
    assert cli.main(["evaluate", "runs/mine"]) == 0
    out = capsys.readouterr().out
    evaluation = network.evaluate()
    assert out.startswith("runs/mine on fashion_mnist_sample 1.0.0, test: 1,000 images of 10 classes, 28 px\n")
    assert f"accuracy           {evaluation.accuracy:>7.4f}  95 % interval" in out
    assert "Ankle boot" in out
    assert "most frequent mistakes" in out
    assert list(Path().iterdir()) == []


def test_json_is_one_line_with_all_figures(network, capsys):
    assert cli.main(["evaluate", "runs/mine", "--json", "--tta", "flip"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["tta"] == "flip"
    assert figures["accuracy"] == network.evaluate(tta="flip").accuracy
    assert sum(each["support"] for each in figures["per_class"]) == 1000


def test_files_are_written_and_not_overwritten(capsys):
    assert cli.main(["evaluate", "runs/mine", "--output", "out"]) == 0
    assert "in out: confusion.png, mistakes.png, reliability.png, evaluation.json" in capsys.readouterr().out
    for name in ("confusion", "mistakes", "reliability"):
        with Image.open(f"out/{name}.png") as picture:
            assert min(picture.size) >= 400
    figures = json.loads(Path("out/evaluation.json").read_text())
    assert figures["worst_mistakes"][0]["loss"] >= figures["worst_mistakes"][1]["loss"]
    assert cli.main(["evaluate", "runs/mine", "--output", "out"]) == 2
    assert "--output=out: has confusion.png" in capsys.readouterr().err
    assert cli.main(["evaluate", "runs/mine", "--output", "out", "--force"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "fashion_mnist_smaple"], "did you mean 'fashion_mnist_sample'"),
        (["--tta", "five"], "--tta"),
        (["--split", "tset"], "--split=tset: fashion_mnist_sample has no split 'tset', only train, test"),
        (["--output", "file"], "--output=file"),
        (["--output", "file/x/y"], "--output=file/x/y: file is no directory that can be written"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    Path("file").write_text("")
    assert cli.main(["evaluate", "runs/mine", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert len(err) < 600


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_full_disk_takes_no_figure_away(capsys, form):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert cli.main(["evaluate", "runs/mine", "--output", "out", *form]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = capsys.readouterr()
    assert found.err.endswith("out/confusion.png: File too large; name a place that can be written\n")
    if form:
        assert json.loads(found.out)["files"] == []
    else:
        assert "accuracy  " in found.out


def test_what_is_not_finite_is_null_in_the_file(network, monkeypatch):
    logits = np.array([[np.nan, 1.0], [0.0, np.inf]], np.float32)
    images = {"image": lambda row: np.zeros((4, 4, 1), np.uint8), "crop_pct": 1.0}
    one = Evaluation("two images", ("cat", "dog"), logits, np.array([1, 0]), **images)
    several = MultilabelEvaluation("two images", ("cat", "dog"), logits, np.array([[1, 0], [1, 1]], np.int8), **images)
    for evaluation in (one, several):
        monkeypatch.setattr(network, "evaluate", lambda *args, found=evaluation, **keywords: found)
        assert cli.main(["evaluate", "runs/mine", "--output", "out", "--force"]) == 0
        content = Path("out/evaluation.json").read_text()
        figures = json.loads(content, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
        assert figures["worst_mistakes"][0]["loss"] is None


def test_of_five_classes_all_are_among_the_first_five(network, monkeypatch, capsys):
    for classes in (5, 6):
        names = tuple(f"class {number}" for number in range(classes))
        found = Evaluation("one image", names, np.zeros((1, classes), np.float32), np.array([1]), crop_pct=1.0)
        monkeypatch.setattr(network, "evaluate", lambda *args, found=found, **keywords: found)
        assert cli.main(["evaluate", "runs/mine"]) == 0
        assert ("top-5 accuracy" in capsys.readouterr().out) == (classes > 5)


def test_nothing_is_left_behind_by_a_refusal(network, monkeypatch):
    def refuse(*args, **keywords):
        raise UserError("3 of 9 images are broken; broken_images=skip leaves them out")

    monkeypatch.setattr(network, "evaluate", refuse)
    assert cli.main(["evaluate", "runs/mine", "--output", "out"]) == 2
    assert list(Path().iterdir()) == []


def test_the_remedy_for_broken_images_is_this_commands_flag(network, monkeypatch, capsys):
    def refuse(*args, **keywords):
        raise UserError("3 of 9 images are broken; broken_images=skip leaves them out")

    monkeypatch.setattr(network, "evaluate", refuse)
    assert cli.main(["evaluate", "runs/mine"]) == 2
    assert capsys.readouterr().err.endswith("broken; --skip-broken leaves them out\n")


def test_a_split_by_the_name_that_the_dataset_has_for_it(network, capsys, tmp_path):
    """Here `val` is what training evaluated; `test` was kept for the end."""
    for split, number in (("train", 4), ("val", 3), ("test", 2)):
        for label, name in enumerate(name for name in network.class_names if "/" not in name):
            directory = tmp_path / "photos" / split / name
            directory.mkdir(parents=True)
            for index in range(number):
                Image.fromarray(np.full((28, 28), 20 * label + index, np.uint8)).save(directory / f"{index}.png")
    folder = ["evaluate", "runs/mine", "--dataset", "folder", "--data_dir", "photos", "--json"]
    found = {}
    for split in ("train", "validation", "val", "test"):
        assert cli.main([*folder, "--split", split]) == 0
        found[split] = json.loads(capsys.readouterr().out)["images"]
    assert found == {"train": 36, "validation": 27, "val": 27, "test": 18}
