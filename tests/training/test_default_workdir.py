"""The workdir of a run that names none: settings of a recipe do not collide, and runs that are there go on."""

from pathlib import Path

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.default_workdir import changes_in_words, default_workdir, in_a_name
from flax_resnets.training.recipes import load_config


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def of(amend: bool = False, **overrides: str) -> str:
    return str(default_workdir("quickstart", load_config("quickstart", overrides), amend))


def made(workdir: str, **overrides: str) -> None:
    Path(workdir).mkdir(parents=True, exist_ok=True)
    (Path(workdir) / "config.json").write_text(load_config("quickstart", overrides).to_json())


def test_it_is_named_by_what_differs_from_the_recipe():
    recipe = load_config("quickstart")
    assert of() == of(data_dir="photos", log_every="7", epochs=str(recipe.epochs)) == "runs/quickstart"
    assert of(seed="1", learning_rate="1e-2") == of(learning_rate="0.01", seed="1")
    assert of(seed="1", learning_rate="1e-2") == "runs/quickstart-learning_rate=0.01-seed=1"
    assert of(clip_norm="none", flip="True", dataset="imagenette/160px-v2").startswith("runs/quickstart-dataset=image")


def test_a_runs_configuration_is_repeated_beside_it():
    made("runs/mine", seed="3")
    source = "runs/mine/config.json"
    assert default_workdir(source, load_config(source)) == Path("runs/mine-again")
    assert default_workdir(source, load_config(source, {"seed": "4"})) == Path("runs/mine-again-seed=4")


def test_options_of_the_network():
    two = load_config("quickstart", {"model_options.width": "8", "model_options.activation": "mish"})
    one = load_config("quickstart", {"model_options": "none", "model_options.width": "8"})
    assert changes_in_words(two, one) == ["model_options=none", "model_options.width=8"]
    assert changes_in_words(one, two)[0] == "model_options.activation=mish"
    odd = load_config("quickstart", {"model_options.../../up": "1"})
    assert "/" not in changes_in_words(load_config("quickstart"), odd)[0]


def test_odd_and_long_values_stay_apart():
    splits = [in_a_name(f"train[{part}]") for part in (":80%", "80%:")]
    assert splits[0] != splits[1]
    many = [of(class_weights=",".join(map(str, range(n)))) for n in (300, 301)]
    assert many[0] != many[1]
    long = dict.fromkeys(("dataset", "train_split", "validation_split", "image_key", "label_key"), "x" * 300)
    assert of(**long) != of(**long, seed="1")
    for name in (*splits, *many, of(**long), in_a_name("a\0b/../c\nd\udcff")):
        assert len(name) <= 175
        assert set(name.removeprefix("runs/")).isdisjoint("/\0\n[]:% \udcff")


def test_a_run_of_an_earlier_version_goes_on_where_it_is():
    made("runs/quickstart", learning_rate="0.01")
    assert of(learning_rate="0.01") == "runs/quickstart"
    assert of(learning_rate="0.02") == "runs/quickstart-learning_rate=0.02"
    assert of() == "runs/quickstart"  # which is refused there, as it was
    (Path("runs/quickstart/metrics.jsonl")).touch()  # killed before its first row: nothing goes on
    assert of(learning_rate="0.01") == "runs/quickstart-learning_rate=0.01"
    (Path("runs/quickstart/config.json")).write_text("damaged")
    assert of(learning_rate="0.01") == "runs/quickstart-learning_rate=0.01"


def test_the_run_to_amend_is_the_only_one_that_could_be():
    assert of(amend=True, epochs="15") == "runs/quickstart-epochs=15"  # where there is none, as the message will say
    made("runs/quickstart-epochs=5-seed=1", epochs="5", seed="1")
    made("runs/mine", epochs="6", seed="1")  # named by the user, who can do so again
    assert of(amend=True, seed="1", epochs="15") == "runs/quickstart-epochs=5-seed=1"
    assert of(amend=True, epochs="15") == "runs/quickstart-epochs=15"  # another seed is another run
    made("runs/quickstart", epochs="10", learning_rate="0.002")
    made("runs/quickstart-learning_rate=0.01", learning_rate="0.01")
    with pytest.raises(UserError, match=r"^--amend: runs/quickstart-learning_rate=0.01 or runs/quickstart\? Name one"):
        of(amend=True, learning_rate="0.01", epochs="15")
    for amend in (False, True):  # one that is amended goes on by the same command
        made("runs/quickstart-learning_rate=0.01", epochs="15", learning_rate="0.02")
        assert of(amend, epochs="15", learning_rate="0.02") == "runs/quickstart-learning_rate=0.01"
