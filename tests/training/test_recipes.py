"""Loading a recipe by name, file or run; overrides from the command line; and messages about mistakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_resnets.errors import UserError
from flax_resnets.training.config import FIELD_TYPES, Config
from flax_resnets.training.recipes import load_config

CONFIGS = Path(__file__).parents[2] / "configs"
QUICKSTART = CONFIGS / "quickstart.py"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_json(path):
    config = load_config(path)
    assert Config(**json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("3", "epochs", 3),
        ("1e-3", "learning_rate", 1e-3),
        ("1", "learning_rate", 1.0),
        ("false", "flip", False),
        ("bfloat16", "precision", "bfloat16"),
        ("none", "clip_norm", None),
        ("1.5", "clip_norm", 1.5),
        ("0.35,1", "crop_scale", (0.35, 1.0)),
        ("(0.35, 1.0)", "crop_scale", (0.35, 1.0)),
        ("32", "store_size", 32),
        ("/some where/else", "data_dir", "/some where/else"),
        ("123", "data_dir", "123"),
        ("ghost:16", "batch_norm", "ghost:16"),
        ("(1,16),(2,20)", "progressive", ((1, 16), (2, 20))),
        ("((1, 16),)", "progressive", ((1, 16),)),
        ("", "progressive", ()),
        ("1,2.5", "decay_epochs", (1.0, 2.5)),
        ("2,5", "randaugment", (2, 5.0)),
        ("trivialaugment", "auto_augment", "trivialaugment"),
        ("none", "auto_augment", None),
    ],
)
def test_an_override_is_read_as_its_field_has_it(text, field, value):
    changed = getattr(load_config(QUICKSTART, {field: text, "batch_size": "64"}), field)
    assert changed == value
    assert type(changed) is type(value)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("FALSE", False), ("None", None), ("3", 3), ("yes", "yes")]
)
def test_words_are_taken_in_a_networks_options_as_in_fields(text, value):
    assert load_config(QUICKSTART, {"model_options.zero_init_last": text}).model_options["zero_init_last"] == value


def test_a_field_that_there_is_not_gets_the_nearest_five():
    with pytest.raises(UserError) as caught:
        load_config(QUICKSTART, {"x" * 5000: "1"})
    assert len(str(caught.value).partition("the nearest are ")[2].split(", ")) == 5


def test_one_model_option_is_set_at_a_time():
    options = load_config(QUICKSTART, {"model_options.width": "8", "model_options.shortcut": "avg_pool"}).model_options
    assert options == {**load_config(QUICKSTART).model_options, "width": 8, "shortcut": "avg_pool"}


def test_all_model_options_are_set_back():
    assert load_config("rn18_imagenette").model_options
    assert load_config("rn18_imagenette", {"model_options": "none"}).model_options == {}
    changed = load_config("rn18_imagenette", {"model_options": "none", "model_options.width": "8"})
    assert changed.model_options == {"width": 8}


def test_from_python_a_field_gets_its_value():
    options = {"width": 8, "stem": "small"}
    values = {"epochs": 3, "flip": True, "mean": None, "std": None, "crop_scale": (0.5, 1.0), "model_options": options}
    config = load_config(QUICKSTART, values | {"model_options.zero_init_last": False})
    assert (config.epochs, config.flip, config.mean, config.crop_scale) == (3, True, None, (0.5, 1.0))
    assert config.model_options == {**options, "zero_init_last": False}


def test_numpys_numbers_are_numbers():
    config = load_config(
        QUICKSTART, {"epochs": np.int64(3), "learning_rate": np.float32(0.5), "mean": [np.float64(0.3)]}
    )
    assert [type(config.epochs), type(config.learning_rate)] == [int, float]
    assert (config.epochs, config.learning_rate, config.mean) == (3, 0.5, (0.3,))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("epochs", 1.5, "epochs=1.5: must be a whole number"), ("flip", 1, "flip=1: must be true or false")],
)
def test_a_value_from_python_is_checked(field, value, message):
    with pytest.raises(UserError, match=message):
        load_config(QUICKSTART, {field: value})


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("epoch", "1", "--config.epoch: no such field; did you mean epochs?"),
        ("lr", "1", "--config.lr: no such field; did you mean learning_rate?"),
        ("wd", "1", "--config.wd: no such field; did you mean weight_decay?"),
        ("bs", "1", "--config.bs: no such field; did you mean batch_size?"),
        ("epochs.more", "1", "no such field"),
        ("xyzzy", "1", "no such field; the nearest are "),
        ("model_options", "{'width': 8}", "set one option at a time"),
        ("epochs", "ten", "epochs=ten: must be a whole number"),
        ("epochs", "1.5", "epochs=1.5: must be a whole number"),
        ("epochs", "true", "epochs=true: must be a whole number"),
        ("epochs", "", "epochs=: must be a whole number"),
        ("epochs", "0", "epochs=0: must be at least 1"),
        ("batch_size", "-8", "batch_size=-8: must be at least 1"),
        ("image_size", "0", "image_size=0: must be at least 1"),
        ("store_size", "0", "store_size=0: must be at least 1"),
        ("schedule", "onecycle", "did you mean one_cycle?"),
        ("learning_rate", "nan", "learning_rate=nan: must be a number"),
        ("learning_rate", "0", "learning_rate=0.0: must be above 0"),
        ("flip", "yes", "flip=yes: must be true or false"),
        ("precision", "bf16", "must be one of float32, bfloat16, float16; did you mean bfloat16?"),
        *(("precision", word, "did you mean float16?") for word in ("fp16", "half", "Float16", "16-mixed")),
        *(("precision", word, "did you mean float32?") for word in ("fp32", "float", "float64")),
        ("optimizer", "adam", "did you mean adamw?"),
        ("optimizer", "SGD", "did you mean sgd?"),
        ("schedule", "cosine", "did you mean warmup_cosine?"),
        ("schedule", "1cycle", "did you mean one_cycle?"),
        ("loss", "ce", "did you mean cross_entropy?"),
        ("loss", "BCEWithLogits", "did you mean bce?"),
        ("auto_augment", "ra", "did you mean randaugment?"),
        ("resize", "center-crop", "did you mean crop?"),
        ("broken_images", "ignore", "did you mean skip?"),
        ("batch_norm", "ghost:7", "batch_size 64 is not a multiple of 7"),
        ("batch_norm", "sync", "batch_norm='sync': must be 'global', 'device' or 'ghost:K'"),
        ("crop_scale", "0.5", "crop_scale=0.5: must be 2 numbers with a comma between"),
        ("crop_scale", "1,0.5", "the smaller first"),
        ("momentum", "0.9,1", "momentum=0.9,1.0: must be two numbers"),
        ("mean", "0.1,0.2", "std=0.353: must have a value for each of mean's 2"),
        ("seed", "-1", "seed=-1: must be from 0 to 4294967295"),
        ("progressive", "1,16", "must be pairs of numbers, each with a comma behind, such as (2,64),(4,96),"),
        ("progressive", "(1,16)", "must be pairs of numbers, each with a comma behind, such as (2,64),(4,96),"),
        ("progressive", "(2,16),(1,20)", "epochs must rise, from 1 up to epochs="),
        ("progressive", "(99,16),", "up to epochs="),
        ("progressive", "(1,0),", "a size of at least 1 pixel"),
        ("mean", "()", "a number for each channel"),
        ("auto_augment", "randaug", "must be one of randaugment, trivialaugment or none; did you mean randaugment?"),
        ("color_jitter", "1,1,1,0.6", "hue's up to 0.5"),
        ("randaugment", "0,9", "a magnitude from 0 to 10"),
        ("decay_epochs", "2,1", "decay_epochs=2.0,1.0: must be rising"),
        ("translate", "28", "translate=28: must be below the images' 28 pixels"),
        ("accumulate", "3", "accumulate=3: batch_size 64 is not a multiple of it"),
        ("ema_decay", "1", "ema_decay=1.0: must be between 0 and 1"),
        ("shear", "90", "below 90 degrees"),
        ("label_smoothing", "1", "label_smoothing=1.0: must be at least 0 and below 1"),
    ],
)
def test_mistakes_name_the_field_the_value_and_what_would_be_right(field, text, message):
    with pytest.raises(UserError) as caught:
        load_config(QUICKSTART, {"batch_size": "64", field: text})
    assert message in str(caught.value)


@given(field=st.sampled_from(sorted(FIELD_TYPES)), text=st.text(max_size=12))
def test_any_text_for_any_field_is_a_config_or_a_user_error(field, text):
    try:
        config = load_config(QUICKSTART, {field: text})
    except UserError:
        pass
    else:
        assert Config(**json.loads(config.to_json())) == config


def write(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "recipe.py"
    path.write_text(f"from flax_resnets.training.config import Config\n{body}")
    return path


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def get_config(:\n", "recipe.py:2: "),
        ("x = 1\n", "defines no get_config()"),
        ("def get_config():\n    return 3\n", "get_config() returned int, not a Config"),
        ("def get_config():\n    return 1 / 0\n", "recipe.py:3: ZeroDivisionError: division by zero"),
        ("def get_config():\n    return Config(epoch=1)\n", "recipe.py:3: epoch: no such field; did you mean epochs?"),
        ("def get_config():\n    return Config()\n", "recipe.py:3: TypeError: "),
        ("import nowhere_at_all\n", "recipe.py:2: ModuleNotFoundError: "),
        ("import sys\nsys.exit(7)\n", "recipe.py:3: SystemExit: 7"),
    ],
)
def test_a_recipe_that_does_not_work_is_named_with_its_line(tmp_path, body, message):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, body))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [
        "from flax_resnets.configs.quickstart import get_config as quickstart\n",
        "from flax_resnets.training.recipes import load_config\n"
        "def quickstart():\n    return load_config('quickstart')\n",
        # The import that recipes used before version 0.2.
        "from flax_resnets.training.config import Config, load_config\n"
        f"def quickstart():\n    return load_config({str(QUICKSTART)!r})\n",
    ],
)
def test_a_recipe_can_build_on_another(tmp_path, head):
    body = "import dataclasses\ndef get_config():\n    return dataclasses.replace(quickstart(), epochs=3)\n"
    (tmp_path / "mine.py").write_text(head + body)
    assert load_config(tmp_path / "mine.py") == load_config("quickstart", {"epochs": "3"})


def test_a_runs_configuration_is_a_recipe(tmp_path):
    config = load_config("quickstart", {"seed": "5", "progressive": "(2,16),"})
    (tmp_path / "config.json").write_text(config.to_json())
    assert load_config(tmp_path / "config.json") == config
    assert load_config(tmp_path / "config.json", {"epochs": "3"}).epochs == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no run's configuration"),
        ("[]", "it is no object of fields"),
        ('{"epoch": 3}', "epoch: no such field; did you mean epochs?"),
        ('{"epochs": 3}', "is no run's configuration"),
        ("[" * 100_000, "is no run's configuration"),
    ],
)
def test_a_json_file_that_is_no_runs_configuration(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "config.json")
    assert message in str(caught.value)
    assert "config.json" in str(caught.value)


def test_a_recipe_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(UserError, match="No such file or directory"):
        load_config(tmp_path / "missing.py")
    with pytest.raises(UserError, match="Is a directory"):
        load_config(tmp_path)
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        load_config(tmp_path / "binary.py")


def test_what_does_not_go_together():
    with pytest.raises(UserError, match="broken_images=skip: not with images=streamed"):
        load_config(QUICKSTART, {"images": "streamed", "broken_images": "skip"})
    with pytest.raises(UserError, match="accumulate=2: not with float16"):
        load_config(QUICKSTART, {"accumulate": "2", "batch_size": "64", "precision": "float16"})
    with pytest.raises(UserError, match="batch_size / accumulate 16 is not a multiple of 32"):
        load_config(QUICKSTART, {"accumulate": "4", "batch_size": "64", "batch_norm": "ghost:32"})
    with pytest.raises(UserError, match=r"warmup_epochs=9\.0: must be below epochs=2"):
        load_config(QUICKSTART, {"schedule": "warmup_cosine", "warmup_epochs": "9", "epochs": "2"})


def test_the_size_in_an_epoch():
    config = load_config(QUICKSTART, {"epochs": "6", "progressive": "(2,16),(4,20)"})
    assert [config.size_in_epoch(epoch) for epoch in range(6)] == [16, 16, 20, 20, config.image_size, config.image_size]
    assert config.train_sizes() == (16, 20, config.image_size)
    config = load_config(QUICKSTART, {"epochs": "6", "progressive": "(6,16),"})
    assert config.train_sizes() == (16,)
