"""Recipes that return or raise something wrong, and files that are no recipes."""

import dataclasses
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import JSON
from watching import QUICKSTART, short

from flax_resnets.errors import UserError
from flax_resnets.training.config import FIELD_TYPES, Config
from flax_resnets.training.recipes import load_config

HEAD = """from flax_resnets.training.config import Config
from flax_resnets.training.recipes import load_config
import dataclasses
"""


def returning(expression: str) -> str:
    return f"{HEAD}def get_config():\n    return {expression}\n"


def changing(changes: str) -> str:
    return returning(f"dataclasses.replace(load_config({QUICKSTART!r}), {changes})")


# A recipe's source, and what the line must name besides the file.
RECIPES: list[tuple[str | bytes, str]] = [
    (b"", "defines no get_config()"),
    (b"\0", "null byte"),
    (b"def get_config():\0 return 3", "null byte"),
    (b"\xff\xfed\0e\0f\0", "not a text file"),
    (b"\x80\x04\x95pickle", "not a text file"),
    (b"\x7fELF\x02\x01\x01\0", "null byte"),
    (b"#" * 1_000_001, "not a text file of a recipe's length"),
    (b"(" * 300, ":1: "),
    (b"-" * 100_000 + b"1", ":"),
    (b"x = " + b"[" * 5000 + b"]" * 5000, ":"),
    (b"x = " + b"9" * 5000, ":1: "),
    (b"def get_config(:\n", ":1: invalid syntax"),
    (b"\tdef get_config(): pass\n  x", ":"),
    (b"print('a' 'b'\n\x1b[2J", ":"),
    (b"{'model': 'resnet18'}", "defines no get_config()"),
    ("get_config = 3", "TypeError"),
    ("get_config = None", "TypeError"),
    ("def get_config(x): return x", "TypeError"),
    ("class get_config: pass", "returned get_config, not a Config"),
    ("def get_config(): yield 1", "returned generator, not a Config"),
    ("import no_such_module", ":1: ModuleNotFoundError"),
    ("from flax_resnets import NoSuchThing", ":1: ImportError"),
    ("raise SystemExit(0)", ":1: SystemExit"),
    ("raise GeneratorExit", ":1: GeneratorExit"),
    ("raise MemoryError", ":1: MemoryError"),
    ("raise OSError(2, 'a\\nb\\x1b[2J')", ":1: FileNotFoundError"),
    ("raise ValueError('x' * 1_000_000)", ":1: ValueError"),
    ("raise TypeError('unexpected keyword argument')", ":1: "),
    ("class E(Exception):\n    def __str__(self): raise self\nraise E", ":3: E"),
    ("class E(Exception):\n    def __str__(self): return 3\nraise E", ":3: E"),
    ("def get_config(): return get_config()", "RecursionError"),
    ("assert False", ":1: AssertionError"),
    ("exec('1 +')", "invalid syntax"),
    (returning("None"), "returned NoneType, not a Config"),
    (returning("Config"), "returned type, not a Config"),
    (returning("{}"), "returned dict, not a Config"),
    (returning("load_config"), "returned function, not a Config"),
    (returning("Config()"), "TypeError"),
    (returning("Config(1)"), "TypeError"),
    (returning("Config(**{'epochs\\n': 1})"), "no such field"),
    (returning("Config(modle='resnet18')"), "modle: no such field; did you mean model?"),
    (returning("load_config('/no/such/recipe.py')"), "/no/such/recipe.py"),
    (changing("model=None"), "model=None: must be text"),
    (changing("model=b'resnet18'"), "model=b'resnet18': must be text"),
    (changing("model=type('S', (str,), {})('resnet18')"), "model=resnet18: must be text"),
    (changing("dataset=('mnist',)"), "dataset=mnist: must be text"),
    (changing("data_dir=3"), "data_dir=3: must be text or none"),
    (changing("data_dir='/x\\0y'"), r"data_dir='/x\x00y'"),
    (changing("epochs='1'"), "epochs=1: must be a whole number"),
    (changing("epochs=1.0"), "epochs=1.0: must be a whole number"),
    (changing("epochs=float('inf')"), "epochs=inf: must be a whole number"),
    (changing("epochs=[]"), "epochs=: must be a whole number"),
    (changing("epochs=10**5000"), "epochs=(Exceeds the limit"),
    (changing("learning_rate=10**5000"), "Exceeds the limit"),
    (changing("learning_rate=1j"), "learning_rate=1j: must be a number"),
    (changing("learning_rate='1e-3'"), "learning_rate=1e-3: must be a number"),
    (changing("mean=0.5"), "mean=0.5: must be numbers"),
    (changing("mean={0.5: 1}"), "mean={0.5: 1}: must be numbers"),
    (changing("mean=(float('nan'),)"), "mean=nan: must be numbers"),
    (changing("mean=[[0.5]]"), "mean=[0.5]: must be numbers"),
    (changing("flip=1"), "flip=1: must be true or false"),
    (changing("flip='a\\nb'"), "flip=a b: must be true or false"),
    (changing("optimizer=len"), "optimizer=len: must be a function that begins with `def`"),
    (changing("progressive=[[1]]"), "progressive=[1]: must be pairs"),
    (changing("model_options=None"), "model_options=None: must be a dict"),
    (changing("model_options=[('width', 8)]"), "model_options="),
    (changing("model_options={1: 2}"), "model_options={1: 2}: must be a dict"),
    (changing("model_options={'width': object()}"), "model_options: must be what config.json can hold"),
    (changing("model_options={'width': {1, 2}}"), "model_options: must be what config.json can hold"),
    (changing("model_options={'activation': lambda x: x}"), "model_options: must be what config.json can hold"),
    (changing("model_options={'dropout': float('nan')}"), "model_options: must be what config.json can hold"),
    (changing("model_options={'x': 'y' * 100_000}"), "no such option"),
    (HEAD + "loop = {}\nloop['a'] = loop\n" + changing("model_options=loop")[len(HEAD) :], "model_options: must be"),
    (
        HEAD
        + "deep = []\nfor _ in range(100_000): deep = [deep]\n"
        + changing("model_options={'a': deep}")[len(HEAD) :],
        "model_options",
    ),
]


@pytest.mark.parametrize(("source", "named"), RECIPES, ids=short)
def test_a_recipe_that_is_none(train_refuses, sandbox, source, named):
    path = sandbox / "work" / "recipe.py"
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    train_refuses(["--config", str(path)], named)


# Paths, and what the line must name.
PATHS: list[tuple[str, str]] = [
    ("/dev/null", "defines no get_config()"),
    ("/dev/zero", "/dev/zero"),
    ("/", "Is a directory"),
    (".", "Is a directory"),
    ("..", "Is a directory"),
    ("~", "Is a directory"),
    ("~/recipe.py", "home/recipe.py: No such file"),
    ("~nobody-of-that-name/recipe.py", "there is no such user"),
    ("recipe\0.py", "not a text file"),
    ("a\nb.py", "--config=a b.py: No such file"),
    ("\x1b[2J.py", r"--config=\x1b[2J.py: No such file"),
    ("\udcff.py", "No such file"),
    ("x" * 300, "no such recipe or file"),
    ("x" * 300 + ".py", "File name too long"),
    ("quickstrt", "--config=quickstrt: no such recipe or file; did you mean quickstart?"),
    ("Quickstart", "did you mean quickstart?"),
    ("x/" * 5000, "File name too long"),
    ("link", "Too many levels of symbolic links"),
    ("http://127.0.0.1:9/recipe.py", "only gs:// buckets are served"),
]


@pytest.mark.parametrize(("path", "named"), PATHS, ids=short)
def test_a_path_to_no_recipe(train_refuses, sandbox, path, named):
    os.symlink("link", sandbox / "work" / "link")
    train_refuses(["--config", path], named)


@given(changes=st.dictionaries(st.sampled_from(sorted(FIELD_TYPES)), JSON, min_size=1, max_size=2))
def test_any_value_in_any_field_is_a_configuration_or_one_line(changes):
    try:
        config = dataclasses.replace(load_config(QUICKSTART), **changes)
    except UserError as error:
        line = str(error)
    else:
        assert Config(**json.loads(config.to_json())) == config
        return
    assert line.isprintable()
    assert any(name in line for name in changes)
