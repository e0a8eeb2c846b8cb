"""The workdir of a run that names none: it is called by the recipe and by the fields that were changed."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from flax_resnets.errors import UserError
from flax_resnets.training.amendments import is_amendable
from flax_resnets.training.config import FREE_FIELDS, Config
from flax_resnets.training.recipes import load_config, run_name
from flax_resnets.training.workdir import changed_fields, nothing_to_keep, recorded_config

_RUNS = Path("runs")
_LONGEST_VALUE, _LONGEST_NAME = 40, 160  # characters; a file system takes 255 bytes


def default_workdir(source: str | Path, config: Config, amend: bool = False) -> Path:
    """The workdir of a run that names none.

    It is `runs/RECIPE`, or `runs/RECIPE-FIELD=VALUE` with changed fields. If this very run is already under another
    such name, it goes on there: it was amended since, or an earlier version named it by the recipe alone.

    Args:
        source: the recipe, as `--config` names it.
        config: its configuration, with the command line's changes.
        amend: whether a run is to be amended: the only one under such a name that can be.

    Raises:
        UserError: several runs could be meant to be amended, or `runs` cannot be read.

    Example:
        >>> default_workdir("quickstart", load_config("quickstart", {"learning_rate": "1e-2"}))
        PosixPath('runs/quickstart-learning_rate=0.01')
    """
    recipe, changes = run_name(source), changes_in_words(load_config(source), config)
    named = _RUNS / shortened("-".join([recipe, *changes]), _LONGEST_NAME)
    such = re.compile(rf"{re.escape(recipe)}(-[\w.]+=.*)?", re.DOTALL)
    try:
        there = sorted(name for name in (os.listdir(_RUNS) if _RUNS.is_dir() else ()) if such.fullmatch(name))
    except OSError as error:
        raise UserError(f"{_RUNS}: {error.strerror}; name a --workdir that can be read and written") from None
    differ = {path: _changes(config, path) for path in (named, *(_RUNS / name for name in there))}
    if these := [path for path, changes in differ.items() if changes == {}]:
        return these[0]
    could = [(len(changes), path) for path, changes in differ.items() if changes and is_amendable(changes)]
    if not amend or not could:
        return named
    paths = [path for _, path in sorted(could)]
    if len(paths) > 1:
        which = " or ".join(map(str, paths[:2])) + (f" or {len(paths) - 2} others" if paths[2:] else "")
        raise UserError(f"--amend: {which}? Name one, such as --workdir={paths[0]}")
    return paths[0]


def _changes(config: Config, workdir: Path) -> dict[str, Any] | None:
    """What a workdir's run has otherwise than a configuration; None if there is none that can go on."""
    if not (workdir / "config.json").is_file():
        return None
    try:
        return None if nothing_to_keep(workdir) else changed_fields(config, recorded_config(workdir), workdir)
    except (UserError, OSError):  # it is damaged, or no run
        return None


def changes_in_words(before: Config, after: Config) -> list[str]:
    """`FIELD=VALUE` for each field in which two configurations differ, for the name of a directory.

    Fields that may change when a run resumes, such as `data_dir`, are left out.

    Example:
        >>> overrides = {"momentum": "0.9,0.9", "model_options.width": "4", "data_dir": "photos"}
        >>> changes_in_words(load_config("quickstart"), load_config("quickstart", overrides))
        ['model_options.width=4', 'momentum=0.9,0.9']
    """
    old, new = json.loads(before.to_json()), json.loads(after.to_json())
    old_options, options = old.pop("model_options"), new.pop("model_options")
    words = []
    if not old_options.keys() <= options.keys():  # they cannot be taken back one by one
        words, old_options = ["model_options=none"], {}
    flat = {f"model_options.{name}": value for name, value in options.items()} | new
    old = {f"model_options.{name}": value for name, value in old_options.items()} | old
    changed = [name for name, value in flat.items() if name not in FREE_FIELDS and (name, value) not in old.items()]
    changed.sort(key=lambda name: (name == "seed", name))  # so that the runs of a setting stand together
    return words + [f"{in_a_name(name)}={in_a_name(flat[name])}" for name in changed]


def in_a_name(value: Any) -> str:
    """A field's value, as JSON holds it, as part of a directory's name.

    Slashes become underscores. If other characters had to be replaced, or the text was cut, digits of a hash keep
    values apart.

    Example:
        >>> [in_a_name(value) for value in (1e-05, None, True, [[2, 64], [4, 96]], "imagenette/160px", "train[:80%]")]
        ['1e-05', 'none', 'true', '2,64,4,96', 'imagenette_160px', 'train_80_-ea405d']
    """
    if value is None:
        return "none"
    text = value if isinstance(value, str) else re.sub(r'[\[\]{}" ]', "", json.dumps(value))
    text = text.replace("/", "_")
    plain = re.sub(r"[^A-Za-z0-9_.,+-]+", "_", text)
    return shortened(plain, _LONGEST_VALUE) if plain == text else f"{plain[: _LONGEST_VALUE - 7]}-{_hash(text)}"


def shortened(text: str, most: int) -> str:
    """The text; if it has more than `most` characters, its beginning and digits of a hash."""
    return text if len(text) <= most else f"{text[: most - 7]}-{_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
