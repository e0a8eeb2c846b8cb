"""Writes RESULTS.md, the table of the recipes' results, and each recipe's curves, from the runs kept in results/.

    python -m benchmarks.records.results --add runs/rn18_imagenette --recipe rn18_imagenette
    python -m benchmarks.records.results --add DIR --recipe NAME --hardware "one H200"
    python -m benchmarks.records.results
    python -m benchmarks.records.results --check

`--add` copies a finished run into results/NAME/seedK/: its config.json without `data_dir`, its metrics.jsonl, and
machine.json, the run's own; for a run that has none, it describes the machine that `--add` runs on. `--hardware`
describes the run's hardware in words, if it is more than its CPU. `--data` says which part of the dataset was used, if
it was not all of it. A run with the recipe and the seed of a kept run, but another
state_digest, is refused without `--replace`. With `--so-far` a run that is not finished is added, and the table says
how many epochs it has; the same run replaces it when it has more.

Without options, RESULTS.md, results/overview.png and results/NAME/curves.png are written. `--check` writes nothing and
exits with 1 if RESULTS.md is not up to date. Other mistakes give one line and exit code 2.

results/references.json has the results of others: recipe to {"accuracy": a share of 1, "source": words}.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records.overview import draw_overview
from flax_resnets.errors import UserError
from flax_resnets.figures import new_figure
from flax_resnets.machine import describe_machine, library_versions
from flax_resnets.training.config import DEFAULTS, FREE_FIELDS
from flax_resnets.training.metrics import ENDED_BY

ROOT = Path(__file__).resolve().parents[2]

# Fields in which runs of one recipe may differ: the seed, and fields that change no number.
_MAY_DIFFER = ("seed", *FREE_FIELDS)

# Fields that a row of the table needs.
_CONFIG_FIELDS = {"seed", "epochs", "batch_size"}
_EPOCH_FIELDS = {"epoch", "step", "valid_loss", "accuracy", "seconds", "images_per_second"}

_HEADER = """\
# Results

Written by `python -m benchmarks.records.results` from the runs in `results/`, which hold every figure and setting.

![Accuracy of each recipe over its training time, on Imagenette and on Fashion-MNIST](results/overview.png)

Points are recipes that have had all their epochs. The short bar above or below a point is its reference in the table:
the leaderboard's record, or a book's result. References were reached on other hardware; only their accuracy is shown.

The Imagenette of these runs is not quite the leaderboard's. It has all images of v2, from a copy that had squashed them
to squares of 224 pixels; here they are 160x160. The original keeps the aspect ratio, with 160 pixels on the shorter
side. So objects are distorted here, and no crop to a square cuts anything off.

Accuracy is top-1 on every image of the validation split. "Last epoch" is the mean over seeds, ± their sample standard
deviation if there are several. "Best" is the highest accuracy of any epoch and seed; it is optimistic, because it is
chosen on the images on which it is measured. Time is the training time of a run without evaluation, averaged over
seeds. Seeds on different hardware have separate averages, in the order of the hardware column. "3 of 10" epochs are the
first three epochs of a recipe.

| recipe | reference | last epoch | best | seeds | epochs | training time | hardware | notes |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        config: content of config.json.
        epochs: rows of metrics.jsonl, one for each epoch.
        done: last row of metrics.jsonl; empty if the run is not finished.
        machine: content of machine.json; empty if there is none yet.
        amended_after: the epochs after which `--amend` changed the configuration.
    """

    config: dict[str, Any]
    epochs: list[dict[str, Any]]
    done: dict[str, Any]
    machine: dict[str, Any]
    amended_after: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        """Training time of all epochs."""
        # The row of a resumed epoch has only the seconds after the stop. Its speed is used for the whole epoch.
        steps = [row["step"] - before for row, before in zip(self.epochs, self._starts(), strict=True)]
        batch = self.config["batch_size"]
        return sum(
            count * batch / row["images_per_second"] if row["images_per_second"] else row["seconds"]
            for count, row in zip(steps, self.epochs, strict=True)
        )

    def _starts(self) -> list[int]:
        return [0, *(row["step"] for row in self.epochs[:-1])]


def read_run(directory: Path, so_far: bool = True) -> Run:
    """Reads a workdir, or a directory of results/.

    Args:
        directory: directory of the run.
        so_far: whether a run that is not finished is accepted.

    Raises:
        UserError: a file is missing or not as a run writes it, or the run is not finished.
    """
    path = directory / "config.json"
    config = read_json(path)
    if missing := _CONFIG_FIELDS - config.keys():
        raise UserError(f"{path}: not a run's configuration, without {', '.join(sorted(missing))}")
    path = directory / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        epochs = [row for row in rows if row["event"] == "epoch"]
        done = next((row for row in rows if row["event"] == "done"), {})
        amended_after = tuple(row["epoch"] for row in rows if row["event"] == "amended")
        if missing := [name for row in epochs for name in sorted(_EPOCH_FIELDS - row.keys())]:
            raise KeyError(missing[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a run's metrics ({error})") from None
    if not epochs or not (done or so_far):
        raise UserError(
            f"{directory}: is not finished: metrics.jsonl has no closing row; the same train.py command continues it"
        )
    if [row["epoch"] for row in epochs] != list(range(1, len(epochs) + 1)):
        raise UserError(f"{path}: must have a row for each epoch so far, or the training time is not known")
    if done and "state_digest" not in done:
        raise UserError(f"{path}: its closing row has no state_digest")
    machine = directory / "machine.json"
    return Run(config, epochs, done, read_json(machine) if machine.exists() else {}, amended_after)


def add_run(
    workdir: Path,
    recipe: str,
    results: Path,
    hardware: str | None = None,
    data: str | None = None,
    replace: bool = False,
    so_far: bool = False,
) -> Path:
    """Copies a run into results/.

    Args:
        workdir: directory of the run.
        recipe: name of a file in configs/.
        results: directory of all results.
        hardware: the run's hardware in words; None for the CPU and its cores.
        data: part of the dataset that was used, in words; None for all.
        replace: whether another run of the same recipe and seed may be replaced.
        so_far: whether a run that is not finished is accepted.

    Returns:
        The directory with the copies.

    Raises:
        UserError: the run is not finished, other runs of the recipe have another configuration, or there is a kept run
            that must not be replaced.
    """
    if not recipe or Path(recipe).name != recipe:
        raise UserError(f"--recipe={recipe}: must be the name of a recipe, such as rn18_imagenette")
    run = read_run(workdir, so_far)
    target = results / recipe / f"seed{run.config['seed']}"
    if target.exists() and not replace:
        kept = read_run(target)
        if kept.done and kept.done["state_digest"] != run.done.get("state_digest"):
            raise UserError(
                f"{target}: holds a run with state_digest {kept.done['state_digest'][:12]}…; --replace replaces it"
            )
        if not _begins_with(run, kept):
            raise UserError(
                f"{target}: holds the first {len(kept.epochs)} epochs of another run; --replace replaces them"
            )
    others = [path for path in _seeds(results / recipe) if path != target]
    for path in others:
        _check_same(recipe, read_run(path), run)
    target.mkdir(parents=True, exist_ok=True)
    # The data directory has a meaning on one machine only.
    config = {**run.config, "data_dir": None}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (target / "metrics.jsonl").write_bytes((workdir / "metrics.jsonl").read_bytes())
    machine = run.machine or this_machine()  # what came with the run is what it ran on
    machine = {name: value for name, value in machine.items() if name != "environment"}  # it may name directories
    given = {"hardware": hardware or machine.get("hardware"), "data": data or machine.get("data")}
    (target / "machine.json").write_text(json.dumps({**machine, **given}, indent=2) + "\n")
    return target


def this_machine() -> dict[str, Any]:
    """A machine.json's content, of the machine that this runs on."""
    described = describe_machine()
    machine = {name: described[name] for name in ("cpu", "cores", "python")}
    return {"hardware": None, "data": None, **machine, "versions": library_versions(("jax", "flax", "optax"))}


def read_results(results: Path) -> dict[str, list[Run]]:
    """The runs of every recipe, sorted by recipe and seed.

    Raises:
        UserError: a run cannot be read, or two runs of one recipe have different configurations.
    """
    recipes = {}
    for directory in sorted(path for path in results.glob("*") if path.is_dir()):
        runs = [read_run(path) for path in _seeds(directory)]
        for run in runs[1:]:
            _check_same(directory.name, runs[0], run)
        if runs:
            recipes[directory.name] = runs
    return recipes


def table(recipes: dict[str, list[Run]], references: dict[str, Any]) -> str:
    """The text of RESULTS.md."""
    rows = [_row(recipe, runs, references.get(recipe)) for recipe, runs in recipes.items()]
    return _HEADER + "".join("| " + " | ".join(row) + " |\n" for row in rows)


def draw(recipe: str, runs: list[Run], path: Path) -> None:
    """Draws validation accuracy and loss against the epoch, a line for each seed, into a PNG."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(10, 4)
    figure.suptitle(recipe)
    accuracies, losses = figure.subplots(1, 2)
    for number, run in enumerate(runs):
        epochs = [row["epoch"] for row in run.epochs]
        line = {"color": f"C{number % 10}", "label": f"seed {run.config['seed']}"}
        accuracies.plot(epochs, [100 * row["accuracy"] for row in run.epochs], marker=".", **line)
        losses.plot(epochs, [row["valid_loss"] for row in run.epochs], marker=".", **line)
        averaged = [row for row in run.epochs if "ema_accuracy" in row]
        if averaged:
            epochs = [row["epoch"] for row in averaged]
            line = {"color": f"C{number % 10}", "label": f"seed {run.config['seed']}, EMA", "linestyle": "--"}
            accuracies.plot(epochs, [100 * row["ema_accuracy"] for row in averaged], **line)
            losses.plot(epochs, [row["ema_valid_loss"] for row in averaged], **line)
    accuracies.set_ylabel("valid accuracy (%)")
    losses.set_ylabel("valid loss (nats)")
    for axes in (accuracies, losses):
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, max(run.config["epochs"] for run in runs) + 0.5)  # leaves room for epochs still to come
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})  # or bytes would depend on matplotlib's version


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, metavar="WORKDIR", help="a run")
    parser.add_argument("--recipe", metavar="NAME", help="with --add: its recipe")
    parser.add_argument("--hardware", metavar="WORDS", help="with --add: what it ran on")
    parser.add_argument("--data", metavar="WORDS", help="with --add: the part of the dataset that it had")
    parser.add_argument("--replace", action="store_true", help="with --add: replace another run of the same seed")
    parser.add_argument("--so-far", action="store_true", help="with --add: accept a run that is not finished")
    parser.add_argument("--check", action="store_true", help="exit with 1 if RESULTS.md is out of date")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.add:
            if parsed.recipe is None:
                raise UserError("--add: needs --recipe NAME")
            about = parsed.hardware, parsed.data, parsed.replace, parsed.so_far
            print(add_run(parsed.add, parsed.recipe, root / "results", *about))
            return 0
        if parsed.recipe or parsed.hardware or parsed.data or parsed.replace or parsed.so_far:
            raise UserError("--recipe, --hardware, --data, --replace and --so-far go with --add WORKDIR")
        return _check(root) if parsed.check else _write(root)
    except UserError as error:
        print(f"results.py: {error}", file=sys.stderr)
        return 2


def _write(root: Path) -> int:
    recipes = read_results(root / "results")
    if not recipes:
        raise UserError("results/ holds no run; --add WORKDIR --recipe NAME adds one")
    (root / "RESULTS.md").write_text(table(recipes, _references(root)))
    for recipe, runs in recipes.items():
        draw(recipe, runs, root / "results" / recipe / "curves.png")
    draw_overview(recipes, _references(root), root / "results" / "overview.png")
    print(f"RESULTS.md: {len(recipes)} recipes, {sum(map(len, recipes.values()))} runs")
    return 0


def _check(root: Path) -> int:
    """Compares RESULTS.md with the runs; without runs there must be no RESULTS.md."""
    recipes = read_results(root / "results")
    wanted = table(recipes, _references(root)) if recipes else None
    path = root / "RESULTS.md"
    if (path.read_text() if path.exists() else None) == wanted:
        return 0
    print("results.py: RESULTS.md is out of date; `python -m benchmarks.records.results` writes it", file=sys.stderr)
    return 1


def _row(recipe: str, runs: list[Run], reference: dict[str, Any] | None) -> list[str]:
    last = [run.epochs[-1]["accuracy"] for run in runs]
    best = max(row["accuracy"] for run in runs for row in run.epochs)
    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(_hardware(run.machine), []).append(run.seconds)
    return [
        f"[{recipe}](results/{recipe}/curves.png)",
        f"{_percent(reference['accuracy'])} ({reference['source']})" if reference else "",
        f"**{with_spread(last)}**",
        _percent(best),
        str(len(runs)),
        _epochs(runs[0]),
        "; ".join(_duration(statistics.mean(each)) for each in seconds.values()),
        "; ".join(seconds),
        "; ".join(_notes(runs)),
    ]


def _epochs(run: Run) -> str:
    wanted = run.config["epochs"]
    return str(wanted) if run.done and len(run.epochs) == wanted else f"{len(run.epochs)} of {wanted}"


def _notes(runs: list[Run]) -> list[str]:
    """Notes for the reader on how the accuracies were measured."""
    notes = [f"on {data}" for data in dict.fromkeys(run.machine.get("data") for run in runs) if data]
    if runs[0].config.get("eval_flip"):
        notes.append("evaluated with each image and its mirror image (`eval_flip`)")
    if early := [run for run in runs if ENDED_BY in run.done]:
        after = ", ".join(str(len(run.epochs)) for run in early)
        notes.append(f"ended by {early[0].done[ENDED_BY]} after {after} epochs")
    averaged = [run.epochs[-1]["ema_accuracy"] for run in runs if "ema_accuracy" in run.epochs[-1]]
    if averaged:
        notes.append(f"the weights' average (EMA), last epoch: {with_spread(averaged)}")
    return notes


def with_spread(shares: list[float]) -> str:
    """Mean and sample standard deviation in per cent; a single value without deviation."""
    if len(shares) == 1:
        return _percent(shares[0])
    return f"{100 * statistics.mean(shares):.2f} ± {100 * statistics.stdev(shares):.2f} %"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def _hardware(machine: dict[str, Any]) -> str:
    libraries = f"jax {machine['versions']['jax']}" if "versions" in machine else ""
    where = machine.get("hardware") or (f"{machine['cpu']}, {machine['cores']} cores" if machine else "unknown")
    return ", ".join(filter(None, (where, libraries)))


def _begins_with(run: Run, kept: Run) -> bool:
    """Whether all epochs of `kept` are also the first epochs of `run`."""
    theirs, ours = ([(row["step"], row["valid_loss"], row["accuracy"]) for row in one.epochs] for one in (kept, run))
    return ours[: len(theirs)] == theirs


def _check_same(recipe: str, one: Run, other: Run) -> None:
    """Raises UserError unless both runs have the same number of epochs and the same configuration.

    A run that lacks a field is older than the field, and had its default.
    """
    early = ENDED_BY in one.done or ENDED_BY in other.done
    if len(one.epochs) != len(other.epochs) and one.config["epochs"] == other.config["epochs"] and not early:
        raise UserError(
            f"{recipe}: has runs of {len(one.epochs)} and {len(other.epochs)} epochs; they cannot be averaged"
        )
    theirs, ours = ({**DEFAULTS, **run.config} for run in (one, other))
    for name in sorted(theirs.keys() & ours.keys() - set(_MAY_DIFFER)):
        if theirs[name] != ours[name]:
            raise UserError(
                f"{recipe}: has runs with {name}={theirs[name]} and {ours[name]}; give one of them another recipe name"
            )


def _seeds(directory: Path) -> list[Path]:
    seeds = [path for path in directory.glob("seed*") if path.name.removeprefix("seed").isdecimal()]
    return sorted(seeds, key=lambda path: int(path.name.removeprefix("seed")))


def _references(root: Path) -> dict[str, Any]:
    path = root / "results" / "references.json"
    return read_json(path) if path.exists() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a JSON file.

    Raises:
        UserError: there is no file, or no object in it.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not JSON ({error})"
        raise UserError(f"{path}: {reason}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must hold a JSON object")
    return content


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
