"""Functions that a recipe gives as values of fields: their identity, what is refused, and runs with them."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets import cli, load_classifier, own
from flax_resnets.augment import for_training
from flax_resnets.errors import UserError
from flax_resnets.training import Callback, CSVLogger, curves, load_config, run, tensorboard
from flax_resnets.training.build import check_own_functions
from flax_resnets.training.interruption import Stopped
from flax_resnets.training.optimizers import make_optimizer

RECIPE = """
import dataclasses

import jax
import jax.numpy as jnp
import optax

from flax_resnets.configs.quickstart import get_config as quickstart

GAMMA = 2.0
UNUSED = 1


def probability(logits, targets):
    return (jax.nn.softmax(logits) * targets).sum(-1)


def focal(logits, targets):
    return (1 - probability(logits, targets)) ** GAMMA * optax.softmax_cross_entropy(logits, targets)


def lion(config, learning_rate, momentum):
    return optax.lion(learning_rate, b1=momentum, weight_decay=config.weight_decay)


def darker(key, images):
    return images * jax.random.uniform(key, (images.shape[0], 1, 1, 1), images.dtype, 0.5, 1.0)


def near(logits, labels):
    return (abs(logits.argmax(-1) - labels) <= 1).astype(jnp.float32)


def get_config():
    return dataclasses.replace(
        quickstart(),
        **dict(model="lenet", model_options={}, image_size=12, train_split="train[:1000]"),
        **dict(batch_size=250, eval_batch_size=300, epochs=2),
        VALUES
    )
"""
ALL = "loss=focal, optimizer=lion, augmentation=darker, metric=near, best_by='metric'"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes `mine.py` with these values of fields, and with changes to its text."""
    monkeypatch.chdir(tmp_path)

    def write(values: str = "loss=focal", old: str = "", new: str = "", file: str = "mine.py") -> str:
        assert old in RECIPE
        Path(file).write_text(RECIPE.replace(old, new).replace("VALUES", values))
        return file

    return write


def test_a_configuration_has_the_name_and_a_hash(recipe):
    config = load_config(recipe(ALL))
    for field, name in (("loss", "focal"), ("optimizer", "lion"), ("augmentation", "darker"), ("metric", "near")):
        assert re.fullmatch(rf"mine\.py:{name}@sha256:[0-9a-f]{{16}}", getattr(config, field))
    assert json.loads(config.to_json())["loss"] == config.loss
    assert load_config("mine.py", {"epochs": "3"}).loss == config.loss
    assert load_config("mine.py", {"loss": "bce"}).loss == "bce"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("epochs=2", "epochs=3", True),
        ("UNUSED = 1", "UNUSED = 2\nMORE = 3", True),
        ("def lion", "# A comment.\ndef lion", True),
        ("GAMMA = 2.0", "GAMMA = 3.0", False),
        ("(jax.nn.softmax(logits) * targets)", "(jax.nn.softmax(logits / 2) * targets)", False),
        ("(1 - probability", "2 * (1 - probability", False),
        ("def focal(", "@jax.jit\ndef focal(", False),
        ("import optax", "import optax as optax", False),
    ],
)
def test_the_hash_changes_with_what_the_function_uses(recipe, old, new, same):
    first = load_config(recipe()).loss
    assert (load_config(recipe("loss=focal", old, new)).loss == first) == same


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("loss=lambda logits, targets: 0", "loss=<lambda>: must be a function"),
        ("loss=print", "loss=print: must be a function"),
        ("loss=(lambda: [focal for focal in [lambda a, b: a]][0])()", "no lambda, partial or inner function"),
        ("loss=__import__('functools').partial(focal)", "loss=partial: must be a function"),
        ("schedule=focal", "schedule=<function focal"),
        ("loss=3", "loss=3: must be one of cross_entropy, bce or a function of the recipe"),
        ("best_by='metric'", "best_by=metric: needs metric=FUNCTION of the recipe"),
        ("augmentation='flip'", "augmentation=flip: must be a function of the recipe or none"),
    ],
)
def test_what_is_no_function_of_a_file_is_refused(recipe, values, message):
    with pytest.raises(UserError) as caught:
        load_config(recipe(values))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def train(capsys, *arguments: str) -> tuple[int, str]:
    code = cli.main(["train", *arguments])
    said = capsys.readouterr()
    assert code == 0 or said.err.count("\n") == 1
    assert len(said.err) < 600
    return code, said.out + said.err


@pytest.mark.parametrize(
    ("values", "old", "new", "message"),
    [
        (
            "loss=focal",
            "return (1 -",
            "return jnp.mean(logits)  # ",
            "returned float32 (), must return the loss of each",
        ),
        ("loss=focal", "return (1 -", "return logits[:, 0] > 0  # ", "returned bool (250,)"),
        (
            "loss=focal",
            "return (1 -",
            "return None  # ",
            "returned None, must return the loss of each image, float32 (250,)",
        ),
        ("loss=focal", "** GAMMA *", "** GAMMA < 1 or", "line 19: ValueError: The truth value"),
        ("loss=focal", "def focal(logits, ", "def focal(", "TypeError: focal() takes 1 positional argument"),
        ("optimizer=lion", "return optax.lion", "return 3  # ", "must return an optax.GradientTransformation"),
        ("optimizer=lion", "b1=momentum", "b9=momentum", "line 23: TypeError"),
        ("optimizer=lion", "return optax.lion", "return optax.inject_hyperparams(optax.lion)", "hyperparams"),
        (
            "augmentation=darker",
            "return images *",
            "return images[:1]  # ",
            "must return images, float32 (250, 12, 12, 1)",
        ),
        ("metric=near", "return (abs", "return abs(logits).mean()  # ", "must return the figure of each image"),
        ("metric=near", "<= 1).astype(jnp.float32)", "<= 1)", "returned bool (64,), must return"),
        ("metric=near", "(abs(logits", "jnp.log(abs(logits", "is -inf for "),
        ("metric=near", "logits.argmax", "logits.argmost", "line 31: AttributeError"),
    ],
)
def test_a_wrong_function_is_named_before_a_workdir_is_made(recipe, capsys, values, old, new, message):
    code, said = train(capsys, "--config", recipe(values, old, new), "--workdir=run")
    assert code == 2
    assert message in said
    assert f"{values.replace('=', '=mine.py:')}@sha256:" in said
    assert not Path("run").exists()


class StopAfterAnEpoch(Callback):
    def on_epoch_end(self, run, row):
        run.stop.ask("a test")


def test_a_run_with_all_of_them(recipe, capsys, monkeypatch):
    """It resumes to the bit. A changed function is refused. What comes after training needs no recipe."""
    monkeypatch.setattr(curves, "draw_curves", lambda *_: None)
    monkeypatch.setattr(tensorboard, "_first_images", lambda run: np.zeros((1, 1, 1), np.uint8))
    config = load_config(recipe(ALL))
    finished = run(config, "whole", callbacks=[CSVLogger()])
    whole = finished.digest
    with pytest.raises(Stopped):
        run(config, "stopped", callbacks=[StopAfterAnEpoch()])
    assert run(load_config(recipe(ALL)), "stopped").digest == whole

    changed = ["--config", recipe(ALL, "GAMMA = 2.0", "GAMMA = 3.0"), "--workdir=whole"]
    code, said = train(capsys, *changed)
    assert code == 2
    assert "holds another run, with loss=mine.py:focal@sha256:" in said
    own._functions.clear()  # as in another process, which has the new source alone
    code, said = train(capsys, *changed, "--amend", "--config.epochs=3")
    assert code == 0
    assert "amended at step 8, epoch 2: loss mine.py:focal@sha256:" in said
    other = recipe(ALL.replace("best_by='metric'", "best_by='loss'"), "GAMMA = 2.0", "GAMMA = 3.0")
    Path(other).write_text(Path(other).read_text().replace("<= 1", "<= 2"))
    code, said = train(capsys, "--config", other, "--workdir=whole", "--amend", "--config.epochs=3")
    assert code == 2
    assert "metric=mine.py:near@sha256:" in said
    assert "the rows of earlier epochs have its figures; metric=none leaves it out" in said

    Path("mine.py").unlink()
    own._functions.clear()
    code, said = train(capsys, "--config", "whole/config.json", "--workdir=again")
    assert code == 2
    assert "is the function darker of mine.py, with this source; only that recipe gives it: --config=mine.py" in said
    others = {"loss": "bce", "optimizer": "sgd", "augmentation": "none", "metric": "none", "best_by": "loss"}
    assert load_config("whole/config.json", others).loss == "bce"
    classifier = load_classifier("whole", checkpoint="last")
    row, done = (json.loads(line) for line in Path("whole/metrics.jsonl").read_text().splitlines()[-2:])
    assert row["epoch"] == 3
    evaluation = classifier.evaluate()
    assert evaluation.accuracy == row["accuracy"]
    assert row["metric"] == (abs(evaluation.logits.argmax(-1) - evaluation.labels) <= 1).mean() > row["accuracy"]
    assert done["best_metric"] == max(finished.columns["metric"] + [row["metric"]])
    assert "metric" in Path("whole/history.csv").read_text().splitlines()[0].split(",")
    (predictions,) = classifier.predict([np.zeros((28, 28, 1), np.uint8)], top_k=10)
    assert sum(each.probability for each in predictions) == pytest.approx(1)
    assert not own._functions


def test_an_augmentation_draws_by_its_key(recipe):
    config = load_config(recipe("augmentation=darker"))
    images = jnp.full((2, 28, 28, 1), 200, jnp.uint8)
    seen = [for_training(jax.random.key(seed), images, config, size=28) for seed in (0, 0, 1)]
    assert jnp.array_equal(seen[0], seen[1])
    assert not jnp.array_equal(seen[0], seen[2])
    plain = for_training(jax.random.key(0), images, load_config("mine.py", {"augmentation": "none"}), size=28)
    assert (seen[0] <= plain).all()


def test_functions_from_another_module_are_known_by_its_file(recipe, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_losses_of_test.py").write_text("def zero(logits, targets):\n    return logits[:, 0] * 0\n")
    text = "def get_config():\n    from my_losses_of_test import zero\n"
    loss = load_config(recipe("loss=zero", "def get_config():\n", text)).loss
    assert loss.startswith("my_losses_of_test.py:zero@sha256:")


def test_nothing_that_a_configuration_says_is_imported(recipe, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    Path("evil.py").write_text("raise SystemExit('imported')\n")
    values = json.loads(load_config("quickstart").to_json()) | {"loss": "evil.py:loss@sha256:0123456789abcdef"}
    Path("config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"is the function loss of evil\.py"):
        load_config("config.json")


def test_the_recipe_of_the_docs(recipe):
    page = (Path(__file__).parents[1] / "docs" / "functions.md").read_text()
    (text,) = re.findall(r"<!-- functions: recipe -->\n```python\n(.*?)```", page, flags=re.DOTALL)
    Path("my_recipe.py").write_text(text)
    config = load_config("my_recipe.py")
    check_own_functions(config, num_classes=10, channels=1)
    optimizer = make_optimizer(config, lambda step: 0.1, lambda step: 0.9)
    params = {"kernel": jnp.ones((2, 2))}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert float(jnp.abs(updates["kernel"] + 0.1 * (1 + 0.01)).max()) < 1e-6  # Lion's step is the gradient's sign
    assert set(re.findall(r"my_recipe\.py:focal@sha256:\w+", page)) == {config.loss}
