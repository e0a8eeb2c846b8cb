"""Writes the tables of docs/experiments.md, a log of runs that compare settings, from the runs in results/experiments/.

    python -m benchmarks.records.experiments --add runs/mine --group GROUP --name NAME
    python -m benchmarks.records.experiments
    python -m benchmarks.records.experiments --check

A group compares one setting at a time with a run named `base`, at the same seeds. Its group.json has the `recipe` that
all its runs start from, a `title`, and a `text` that says what was learnt. `--add` copies the files of a finished run
into results/experiments/GROUP/NAME/seedK/. The command in the log is computed from the differences between the run's
config.json and the recipe.

Without options, the part of docs/experiments.md between the two markers is written; the prose before it stands in the
page itself. `--check` writes nothing and exits with 1 if this part is not up to date. Other mistakes give one line and
exit code 2.
"""

import argparse
import dataclasses
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks.records.pages import with_generated
from benchmarks.records.results import Run, add_run, read_json, read_results, with_spread
from flax_resnets.errors import UserError
from flax_resnets.training.config import FIELD_TYPES, FREE_FIELDS, Config
from flax_resnets.training.recipes import load_config

ROOT = Path(__file__).resolve().parents[2]

BASE = "base"


def command(recipe: str, config: dict[str, Any], root: Path = ROOT) -> str:
    """The command line that trains a configuration: the recipe and the fields that differ, without the seed.

    Args:
        recipe: name of the recipe.
        config: content of config.json; missing fields have their defaults.
        root: of the tree with configs/.

    Raises:
        UserError: the recipe sets a `model_options` entry that the configuration lacks: no flag can remove an entry.
    """
    start = dataclasses.asdict(load_config(root / "configs" / f"{recipe}.py"))
    wanted = dataclasses.asdict(Config(**config))
    flags = []
    for name in FIELD_TYPES:
        value = wanted[name]
        if name == "model_options":
            if gone := start[name].keys() - value.keys():
                raise UserError(f"{recipe}: model_options.{min(gone)} is not in the run, and no flag can remove it")
            changed = {key: item for key, item in value.items() if key not in start[name] or start[name][key] != item}
            flags += [f"--config.model_options.{key}={_quoted(item)}" for key, item in changed.items()]
        elif value != start[name] and name not in ("seed", *FREE_FIELDS):
            flags.append(f"--config.{name}={_quoted(value)}")
    return " ".join([f"python train.py --config configs/{recipe}.py", *flags])


def _quoted(value: Any) -> str:
    """The value as the command line takes it, with quotes where a shell would read something else."""
    if isinstance(value, tuple | list):
        nested = any(isinstance(item, tuple | list) for item in value)
        return shlex.quote(str(tuple(value)) if nested else ",".join(map(str, value)))
    return shlex.quote(str(value))


def generated(directory: Path, root: Path = ROOT) -> str:
    """The sections of docs/experiments.md, one for each group.

    Raises:
        UserError: a group has no base, or a run cannot be read.
    """
    sections = [_section(group, root) for group in sorted(directory.glob("*")) if group.is_dir()]
    return "\n".join(sections)


def _section(group: Path, root: Path) -> str:
    about = read_json(group / "group.json")
    runs = read_results(group)
    if BASE not in runs:
        raise UserError(f"{group}: has no run named {BASE}")
    names = [BASE, *(name for name in runs if name != BASE)]
    rows = [_row(name, runs[name], runs[BASE], command(about["recipe"], runs[name][0].config, root)) for name in names]
    table = ["| run | accuracy | difference | seeds | command |", "|---|---:|---:|---:|---|", *rows]
    return "\n".join([f"## {about['title']}", "", about["text"], "", *table, ""])


def _row(name: str, runs: list[Run], base: list[Run], line: str) -> str:
    last = {run.config["seed"]: 100 * run.epochs[-1]["accuracy"] for run in runs}
    reference = {run.config["seed"]: 100 * run.epochs[-1]["accuracy"] for run in base}
    shared = last.keys() & reference.keys()
    accuracy = with_spread([run.epochs[-1]["accuracy"] for run in runs])
    difference = f"{statistics.mean(last[seed] - reference[seed] for seed in shared):+.2f}" if shared else ""
    seeds = ", ".join(map(str, sorted(last)))
    how = f"`{line}`"
    if after := runs[0].amended_after:
        how = f"`{line} --amend`, after epoch {' and '.join(map(str, after))} of the recipe"
    return f"| {name} | {accuracy} | {'' if name == BASE else difference} | {seeds} | {how} |"


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, metavar="WORKDIR", help="a finished run")
    parser.add_argument("--group", metavar="GROUP", help="with --add: which comparison it belongs to")
    parser.add_argument("--name", metavar="NAME", help="with --add: what it shows, or base")
    parser.add_argument("--check", action="store_true", help="exit with 1 if docs/experiments.md is out of date")
    parsed = parser.parse_args(arguments)
    directory, path = root / "results" / "experiments", root / "docs" / "experiments.md"
    try:
        if parsed.add:
            if parsed.group is None or parsed.name is None:
                raise UserError("--add: needs --group GROUP and --name NAME")
            about = read_json(directory / parsed.group / "group.json")
            command(about["recipe"], read_json(parsed.add / "config.json"), root)
            print(add_run(parsed.add, parsed.name, directory / parsed.group))
            return 0
        text = with_generated(path, generated(directory, root))
        if not parsed.check:
            path.write_text(text)
        elif path.read_text() != text:
            print(
                "experiments.py: docs/experiments.md is out of date; run without --check to write it", file=sys.stderr
            )
            return 1
    except (UserError, OSError, KeyError) as error:
        print(f"experiments.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
