"""Loading the classifier of a run: which checkpoint, which weights, and what happens to those that are damaged."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

import flax_resnets
from flax_resnets import load_classifier, storage
from flax_resnets.errors import UserError
from flax_resnets.inference import run as of_run
from flax_resnets.training.metrics import read_rows


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of the run, to be damaged. The last of its three epochs is the best; of the first it has no checkpoint."""
    copy = shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "4", ignore_errors=True)
    rewrite_rows(copy, {1: 0.1, 2: 0.5, 3: 0.9})
    return copy


def step_of(classifier) -> int:
    return int(repr(classifier).rpartition("step ")[2].rstrip(")"))


def rows_of(workdir):
    return read_rows(workdir / "metrics.jsonl")[0]


def rewrite_rows(workdir, accuracies: dict[int, float]) -> None:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for row in lines:
        if row.get("epoch") in accuracies:
            row["accuracy"] = accuracies[row["epoch"]]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))


def break_checkpoint(workdir, step: int) -> None:
    path = max((workdir / "checkpoints" / str(step) / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_best_the_last_and_a_step(workdir):
    rewrite_rows(workdir, {1: 0.1, 2: 0.9, 3: 0.5})
    assert step_of(load_classifier(workdir)) == 8
    assert step_of(load_classifier(str(workdir), checkpoint="last")) == 12
    assert step_of(load_classifier(workdir, checkpoint=8)) == 8


def test_the_best_by_loss(workdir):
    config = json.loads((workdir / "config.json").read_text())
    lowest = min(rows_of(workdir)[1:], key=lambda row: row.valid_loss)
    rewrite_rows(workdir, {row.epoch: 0.9 - 0.1 * (row == lowest) for row in rows_of(workdir)})
    for best_by, is_lowest in (("loss", True), ("accuracy", False)):
        (workdir / "config.json").write_text(json.dumps(config | {"best_by": best_by}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the checkpoint of the first epoch is gone
            assert (step_of(load_classifier(workdir)) == lowest.step) == is_lowest
    (workdir / "config.json").write_text(json.dumps(config | {"best_by": 1}))
    with pytest.raises(UserError, match=r"config\.json: best_by=1: must be one of accuracy, loss"):
        load_classifier(workdir)


def test_the_weights_are_those_whose_accuracy_the_run_names(trained, files, validation):
    """None and False take the weights themselves, which best_accuracy speaks of; True their average."""
    labels = np.array([validation.label(index) for index in range(len(validation))])
    rows = {row.step: row for row in rows_of(trained)}
    done = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    for average in (None, False, True):
        classifier = load_classifier(trained, average=average)
        row = rows[step_of(classifier)]
        assert row.step == done["best_step"]
        accuracy = np.mean(classifier.logits(files, batch_size=250).argmax(1) == labels)
        assert accuracy == pytest.approx(row.ema_accuracy if average else done["best_accuracy"], abs=1e-9)


def test_only_weights_are_read(trained, monkeypatch):
    read = []
    original = of_run.read_weights
    monkeypatch.setattr(of_run, "read_weights", lambda *args: read.append(original(*args)) or read[0])
    load_classifier(trained)
    assert read[0].keys() == {"params", "batch_stats"}


def test_a_run_under_way_is_not_disturbed(trained):
    before = {path: path.stat().st_mtime_ns for path in (trained, *trained.rglob("*"))}
    load_classifier(trained)
    assert {path: path.stat().st_mtime_ns for path in (trained, *trained.rglob("*"))} == before


def test_a_damaged_best_one_is_replaced_by_the_next_best_and_that_is_said(workdir):
    rewrite_rows(workdir, {1: 0.1, 2: 0.5, 3: 0.9})
    break_checkpoint(workdir, 12)
    for checkpoint in ("best", "last"):
        with pytest.warns(RuntimeWarning, match=r"checkpoint 12 is damaged \(.*\); taking 8 instead"):
            assert step_of(load_classifier(workdir, checkpoint=checkpoint)) == 8
    with pytest.raises(UserError, match="checkpoint 12 is damaged"):
        load_classifier(workdir, checkpoint=12)  # whoever names one gets this one or none
    break_checkpoint(workdir, 8)
    with pytest.raises(UserError, match=r"12 is damaged .* and 8 is damaged .* none is left"):
        load_classifier(workdir)


def test_a_best_one_that_is_gone_is_named(workdir):
    rewrite_rows(workdir, {1: 0.99, 2: 0.5, 3: 0.4})
    with pytest.warns(RuntimeWarning, match=r"the best checkpoint, 4 \(accuracy 0.9900\), is not there.* taking 8"):
        assert step_of(load_classifier(workdir)) == 8


def test_a_run_stopped_in_its_first_epoch_gives_its_newest(workdir):
    (workdir / "metrics.jsonl").write_text("")
    with pytest.warns(RuntimeWarning, match="no row of an epoch; taking the newest checkpoint, 12"):
        assert step_of(load_classifier(workdir)) == 12


def test_a_checkpoint_that_vanishes_while_it_is_read_is_tried_once_more(workdir, monkeypatch):
    rewrite_rows(workdir, {1: 0.1, 2: 0.9, 3: 0.5})
    original, tries = of_run.read_weights, []

    def vanishing(directory, average):
        tries.append(directory.name)
        if len(tries) == 1:  # a new best one has been saved
            rewrite_rows(workdir, {2: 0.4})
            shutil.rmtree(directory)
            raise FileNotFoundError(directory)
        return original(directory, average)

    monkeypatch.setattr(of_run, "read_weights", vanishing)
    assert step_of(load_classifier(workdir)) == 12
    assert tries == ["8", "12"]


def test_a_run_of_an_early_version_is_told_its_classes(workdir, trained, files):
    (workdir / "data.json").unlink()
    with pytest.raises(UserError, match=r"has no data.json.*class_names"):
        load_classifier(workdir)
    names = [f"class {number}" for number in range(10)]
    told = load_classifier(workdir, class_names=names)
    assert told.class_names == tuple(names)
    known = load_classifier(trained, checkpoint=12)
    np.testing.assert_array_equal(told.logits(files[:8]), known.logits(files[:8]))
    with pytest.raises(UserError, match="head/bias is"):
        load_classifier(workdir, class_names=names[:9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "newest"}, "checkpoint=newest: must be best, last or the number of a step"),
        ({"checkpoint": 13}, "checkpoint=13: .* has checkpoints .*8, 12"),
        ({"checkpoint": True}, "checkpoint=True: must be"),
        ({"class_names": ["a", "b"]}, "class_names: has 2 names, .* has 10 classes"),
        ({"class_names": "abc"}, "class_names=abc: must be a list of names"),
    ],
)
def test_mistakes_in_the_call(trained, change, message):
    with pytest.raises(UserError, match=message):
        load_classifier(trained, **change)


def test_a_run_without_an_average_or_a_checkpoint(workdir, monkeypatch):
    monkeypatch.setattr(of_run, "read_weights", lambda *_: None)
    with pytest.raises(UserError, match=r"average=True: .* keeps no average of the weights"):
        load_classifier(workdir, average=True)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet"):
        load_classifier(workdir)


@pytest.mark.parametrize("source", ["no/such", "", None, 3, "a\0b", "x" * 5000])
def test_what_is_no_source(source):
    with pytest.raises(UserError) as error:
        load_classifier(source)
    assert len(str(error.value)) < 600


def test_a_checkpoint_of_another_network_is_refused(workdir):
    content = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps({**content, "model": "lenet"}))
    with pytest.raises(UserError, match=r"is not of the network in config.json: .*norm"):
        load_classifier(workdir)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", "null"),
        ("config.json", "{}"),
        ("config.json", '{"model": "lenet_bn"}'),
        ("config.json", {"model": "resnet19"}),
        ("config.json", {"model": ["lenet_bn"]}),
        ("config.json", {"model_options": {"stem": "small"}}),
        ("config.json", {"model_options": {"dropout": {}}}),
        ("config.json", {"image_size": 5}),
        ("config.json", {"mean": 0.5}),
        ("config.json", {"mean": [0.1, 0.2], "std": [0.1, 0.2]}),
        ("config.json", {"crop_pct": "half"}),
        ("data.json", "[]"),
        ("data.json", {"channels": 7}),
        ("data.json", {"class_names": []}),
        ("data.json", {"class_names": ["a"] * 11}),
        ("metrics.jsonl", "no rows\n"),
        ("metrics.jsonl", '{"event": "epoch", "step": "x"}\n'),
    ],
)
def test_a_workdir_with_a_file_that_is_none_of_a_run(workdir, name, content):
    if isinstance(content, dict):
        content = json.dumps({**json.loads((workdir / name).read_text()), **content})
    (workdir / name).write_text(content)
    with pytest.raises(UserError) as error:
        load_classifier(workdir)
    assert str(workdir) in str(error.value)
    assert len(str(error.value)) < 600


def test_what_lies_in_a_workdir_beside_a_run_is_not_touched(workdir):
    (workdir / "checkpoints" / "48").write_text("a file")
    (workdir / "checkpoints" / "60.orbax-checkpoint-tmp").mkdir()
    assert step_of(load_classifier(workdir, checkpoint="last")) == 12
    (workdir / "data.json").unlink()
    os.mkfifo(workdir / "data.json")
    with pytest.raises(UserError, match=r"data\.json: must be a file"):
        load_classifier(workdir)


def test_variables_are_jax_arrays_for_programs_of_ones_own(trained, files):
    classifier = load_classifier(trained)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(classifier.variables))
    images = classifier.preprocess(files[:3])

    def loss(variables):
        both = [classifier.model.apply(variables, x, train=False) for x in (images, images[:, :, ::-1])]
        return sum(both)[:, 0].sum() / 2

    value, gradients = jax.jit(jax.value_and_grad(loss))(classifier.variables)
    np.testing.assert_allclose(value, classifier.logits(files[:3])[:, 0].sum(), rtol=1e-4)
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients["params"]))


PROGRAM = """
import sys
import flax_resnets
classifier = flax_resnets.load_classifier(sys.argv[1])
print(classifier.predict(sys.argv[2], top_k=1))
print(*{name for name in sys.modules if name.split(".")[0] in ("optax", "grain", "matplotlib", "tensorflow_datasets")})
print(*{name for name in sys.modules if name in ("flax_resnets.training.trainer", "flax_resnets.training.loop")})
"""


def test_nothing_of_the_trainer_is_imported(trained, files):
    command = [sys.executable, "-c", PROGRAM, str(trained), str(files[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    prediction, libraries, modules = done.stdout.split("\n")[:3]
    assert prediction.startswith("[[Prediction(")
    assert (libraries, modules) == ("", "")
    assert done.stderr == ""


SHARDED = """
import dataclasses, sys
from flax_resnets.training import load_config, run

config = load_config(sys.argv[1])
run(dataclasses.replace(config, epochs=1, batch_size=200, eval_batch_size=200, weight_shards=2), sys.argv[2])
"""


@pytest.mark.slow
def test_a_run_of_eight_devices_that_share_the_weights(trained, files, validation, tmp_path):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "8"}
    command = [sys.executable, "-c", SHARDED, trained / "config.json", tmp_path / "run"]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    labels = np.array([validation.label(index) for index in range(len(validation))])
    logits = load_classifier(tmp_path / "run", average=True).logits(files, batch_size=200)
    assert np.mean(logits.argmax(1) == labels) == pytest.approx(rows_of(tmp_path / "run")[0].ema_accuracy, abs=2e-3)


def test_the_names_are_in_the_package():
    assert flax_resnets.Classifier.__name__ == "Classifier"
    assert flax_resnets.Prediction("a", 0, 1.0).class_name == "a"


def test_mean_and_std_that_a_run_left_to_the_data_are_those_it_recorded(workdir, files):
    before = load_classifier(workdir).logits(files[:3])
    config, record = (json.loads((workdir / name).read_text()) for name in ("config.json", "data.json"))
    own = {name: config[name] for name in ("mean", "std")}
    (workdir / "config.json").write_text(json.dumps({**config, "mean": None, "std": None}))
    (workdir / "data.json").write_text(json.dumps(record | own))
    np.testing.assert_array_equal(load_classifier(workdir).logits(files[:3]), before)
    (workdir / "data.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"data\.json: has no mean, and config\.json leaves it to the data"):
        load_classifier(workdir)


def test_imagenets_mean_and_std_are_numbers_in_a_classifier(workdir):
    config = json.loads((workdir / "config.json").read_text()) | {"mean": [0.485], "std": "imagenet"}
    (workdir / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"std=0\.229,0\.224,0\.225: must have a value for each of mean's 1"):
        load_classifier(workdir)


def test_a_run_in_a_bucket_is_copied_and_loaded(trained, emulator, validation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workdir = storage.bucket_path("gs://bucket/inference/run", "source")
    for path in trained.rglob("*"):
        if path.is_file():
            storage.write(workdir / path.relative_to(trained).as_posix(), path.read_bytes())
    storage.write(workdir / "checkpoints" / "99" / "state" / "half", b"a checkpoint that is being written")
    images = [validation.image(index) for index in range(3)]
    classifier = load_classifier("gs://bucket/inference/run")
    np.testing.assert_array_equal(classifier.logits(images), load_classifier(trained).logits(images))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="there is no bucket gs://no-such-bucket"):
        load_classifier("gs://no-such-bucket/run")
    with pytest.raises(UserError, match="must be gs://BUCKET/PATH"):
        load_classifier("gs:/bucket/run")
    with pytest.raises(UserError, match="no such file"):
        load_classifier("gs://bucket/inference/none")


def test_checkpoints_that_may_not_be_read(workdir, monkeypatch):
    def names(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "names", names)
    with pytest.raises(UserError, match=r"checkpoints: Permission denied; whoever reads the run must be allowed to"):
        load_classifier(workdir)


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(workdir, monkeypatch):
    def read_weights(path, average):
        raise PermissionError(13, "Permission denied", f"{path}/SHA256SUMS")

    monkeypatch.setattr(of_run, "read_weights", read_weights)
    with pytest.raises(
        UserError, match=r"12: cannot be read \(.*Permission denied.*\), but nothing says that it is dam"
    ):
        load_classifier(workdir, checkpoint="last")


def test_a_directory_that_is_not_there_is_told_those_beside_it(tmp_path, monkeypatch):
    for name in ("quickstart-epochs=1", "quickstar", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "quickstarts").mkdir()  # holds no run
    with pytest.raises(UserError, match=r"resnet50\.a1_in1k; did you mean (?=.*epochs=1)(?=.*quickstar\b)") as raised:
        load_classifier(tmp_path / "quickstart")
    assert "quickstarts" not in str(raised.value)
    assert "elsewhere" not in str(raised.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"a1_in1k; did you mean elsewhere\?"):
        load_classifier("elswhere")
    with pytest.raises(UserError, match=r"a1_in1k$"):
        load_classifier("nowhere/quickstart")
    with pytest.raises(
        UserError, match=r"is no run and no saved folder; in it are .*elsewhere, .*quickstar, .*epochs=1$"
    ):
        load_classifier(tmp_path)


@pytest.mark.parametrize("name", ["resnet26", "resnet26.a9_in1k", "resnet26.bt_in12k", "resnet26.bt_in21k_ft_in1k_384"])
def test_the_name_of_a_network_is_told_its_trained_weights(name):
    with pytest.raises(UserError, match=rf"^{name}: no such weights; did you mean resnet26\.bt_in1k\?$"):
        load_classifier(name)
