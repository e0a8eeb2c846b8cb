"""Loads configurations from recipes, which are Python files, and from runs, and applies the command line's changes."""

import dataclasses
import difflib
import json
import linecache
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_resnets import own, storage
from flax_resnets.configs import recipes
from flax_resnets.errors import UserError
from flax_resnets.fields import LONGEST_NAME, literal, parsed
from flax_resnets.paths import expanded
from flax_resnets.training.config import FIELD_TYPES, Config


def load_config(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The configuration that `--config` names, with the command line's changes.

    Args:
        source: the name of a recipe that comes with the package, such as `rn18_imagenette`; a Python file that defines
            `get_config() -> Config`; or a run's `config.json`. The files may be in a bucket, `gs://BUCKET/PATH`.
        overrides: dict from field to its value, or to the text after `--config.FIELD=`; `model_options.NAME` sets one
            option.

    Raises:
        UserError: there is no such recipe or file; the file raises an error or returns no Config; or a field or value
            is wrong.

    Example:
        >>> load_config("quickstart", {"epochs": 1, "batch_size": "32"}).epochs
        1
    """
    path = _path(source)
    config = with_overrides(_of_run(path) if path.suffix == ".json" else _of_recipe(path), overrides or {})
    for name in FIELD_TYPES:
        if own.is_named(value := getattr(config, name)):
            own.function_of(name, value)  # raises if a run's configuration names it and its recipe is not loaded
    return config


def with_overrides(config: Config, overrides: Mapping[str, Any]) -> Config:
    """The configuration with the changes; see `load_config`."""
    changes: dict[str, Any] = {}
    for name, text in overrides.items():
        head, _, option = name.partition(".")
        if head not in FIELD_TYPES or (option and head != "model_options"):
            raise UserError(f"--config.{name}: {unknown_field(name)}")
        if not isinstance(text, str) and not option:
            changes[name] = text  # a value from Python; `Config` checks it
        elif head == "model_options":
            if not option and text not in ("none", "{}"):
                raise UserError(
                    f"--config.model_options={text}: set one option at a time, --config.model_options.NAME=…, or all "
                    "back to the network's own by none"
                )
            options = changes.get("model_options", config.model_options) if option else {}
            if not option:
                changes["model_options"] = options
                continue
            value = _word_or_literal(text) if isinstance(text, str) else text
            changes["model_options"] = {**options, option: value}
        else:
            changes[name] = parsed(name, text, FIELD_TYPES[name])
    return dataclasses.replace(config, **changes)


def _word_or_literal(text: str) -> Any:
    """Like `literal`, but true, false and none may be in upper or lower case."""
    words = {"true": True, "false": False, "none": None}
    return words[text.lower()] if text.lower() in words else literal(text)


def unknown_field(name: str) -> str:
    """The message about an unknown field, with the nearest known ones."""
    name = name[:LONGEST_NAME]
    close = difflib.get_close_matches(name, FIELD_TYPES, n=1) or _by_initials(name)
    if close:
        return f"no such field; did you mean {close[0]}?"
    nearest = difflib.get_close_matches(name, FIELD_TYPES, n=5, cutoff=0)
    return f"no such field; the nearest are {', '.join(nearest)}"


def as_override(flag: str, value: str | None) -> str | None:
    """The override that the user probably meant by an unknown flag, if the flag is like a field's name or initials.

    Args:
        flag: the flag as the user wrote it.
        value: the flag's value; None if it has none.

    Returns:
        `--config.FIELD=VALUE`, or None if the flag is not like any field.

    Example:
        >>> as_override("--epochs", "3"), as_override("--batch-size", None), as_override("--lr", "0.1")
        ('--config.epochs=3', '--config.batch_size=VALUE', '--config.learning_rate=0.1')
    """
    name = flag.lstrip("-").removeprefix("config.").replace("-", "_")[:LONGEST_NAME]
    shown = "VALUE" if value is None else value[:100]
    if name.startswith("model_options."):
        return f"--config.{name}={shown}"
    close = difflib.get_close_matches(name.lower(), FIELD_TYPES, n=1, cutoff=0.8) or _by_initials(name.lower())
    return f"--config.{close[0]}={shown}" if close else None


def _by_initials(name: str) -> list[str]:
    """The fields with these initials: learning_rate for lr, weight_decay for wd."""
    return [field for field in FIELD_TYPES if "_" in field and name == "".join(word[0] for word in field.split("_"))]


_LONGEST_RECIPE = 1_000_000  # characters


def _path(source: str | Path) -> Path:
    """The file that `--config` names."""
    text = str(source)
    by_name = recipes()
    if text in by_name:
        return by_name[text]
    path = expanded(text, "--config", buckets=True)
    if path.suffix or path.name != text or os.path.lexists(text):  # Path.exists raises for some paths
        return path
    close = difflib.get_close_matches(text, by_name, n=1)
    right = f"did you mean {close[0]}?" if close else "`flax-resnets train` lists them"
    raise UserError(f"--config={text}: no such recipe or file; {right}")


def run_name(source: str | Path) -> str:
    """The name of the run's directory in `runs/` if no workdir is given.

    Example:
        >>> run_name("quickstart"), run_name("my/recipe.py"), run_name("runs/quickstart/config.json")
        ('quickstart', 'recipe', 'quickstart-again')
    """
    path = Path(source)
    if path.suffix != ".json":
        return path.stem
    # In its own directory the run would resume, or be done already.
    return f"{path.resolve().parent.name or path.stem}-again"


def _text(path: Path) -> str:
    try:
        if storage.is_bucket(path):
            text = storage.content(path).decode()
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(_LONGEST_RECIPE + 1)  # a limit, because reading a device would never end
        if len(text) > _LONGEST_RECIPE:
            raise ValueError
    except (OSError, ValueError) as error:  # ValueError: also if the path contains a NUL
        reason = error.strerror if isinstance(error, OSError) else "not a text file of a recipe's length"
        raise UserError(f"--config={path}: {reason}; `flax-resnets train` lists the recipes there are") from None
    return text


def _of_run(path: Path) -> Config:
    """The configuration in a run's config.json."""
    try:
        values = json.loads(_text(path))
        if not isinstance(values, dict):
            raise ValueError("it is no object of fields")
        for name in values:
            if name not in FIELD_TYPES:
                raise ValueError(f"{name}: {unknown_field(name)}")
        return Config(**values)
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"--config={path}: is no run's configuration ({error})") from None


def _of_recipe(path: Path) -> Config:
    source = _text(path)
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    # Here `own.named` finds a function's source; the file itself may be in a bucket.
    linecache.cache[str(path)] = len(source), None, source.splitlines(keepends=True), str(path)
    try:
        exec(compile(source, str(path), "exec"), namespace)
        if "get_config" not in namespace:
            raise UserError(f"--config={path}: defines no get_config()")
        config = namespace["get_config"]()
    except UserError as error:
        raise UserError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno or 1}: {error.msg}") from None
    except (Exception, SystemExit, GeneratorExit) as error:  # any error is a mistake in the recipe
        raise UserError(f"{path}:{_line_in(path, error)}: {_explained(error)}") from None
    if not isinstance(config, Config):
        raise UserError(f"--config={path}: get_config() returned {type(config).__name__}, not a Config")
    return config


def _line_in(path: Path, error: BaseException) -> int:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or 0 if lines else 0


def _explained(error: BaseException) -> str:
    """A recipe's error in one line. For a keyword that Config does not have, it suggests the nearest one."""
    try:
        message = f"{type(error).__name__}: {error}"
    except Exception:  # an exception class of the recipe whose __str__ fails
        message = type(error).__name__
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        name = str(error).partition("'")[2].partition("'")[0]
        message = f"{name}: {unknown_field(name)}"
    return message
