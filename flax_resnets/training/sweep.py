"""A sweep: runs of one recipe over values of some fields, each in a workdir of its own below one directory."""

import contextlib
import itertools
import json
import math
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from flax_resnets.data.lock import locked
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.config import DEFAULTS, FIELD_TYPES, FREE_FIELDS, Config
from flax_resnets.training.default_workdir import in_a_name, shortened
from flax_resnets.training.recipes import unknown_field, with_overrides
from flax_resnets.training.workdir import check_workdir

RECORD = "sweep.json"
_MOST = 1000  # runs
_LONGEST_NAME = 160  # characters of a run's directory


class Axis(NamedTuple):
    """A field that is swept.

    Attributes:
        field: its name, or `model_options.NAME`.
        values: as the command line would set them; empty for a range.
        scale, low, high: of a range: `log` for even chances between the logarithms of its ends, `lin` between the ends.
    """

    field: str
    values: tuple[str, ...] = ()
    scale: str = ""
    low: float = math.nan
    high: float = math.nan

    def drawn(self, draws: random.Random) -> str:
        """A value, at random. One of a range has three significant digits."""
        if self.values:
            return draws.choice(self.values)
        if self.scale == "lin":
            return f"{draws.uniform(self.low, self.high):.3g}"
        return f"{math.exp(draws.uniform(math.log(self.low), math.log(self.high))):.3g}"


def axis(text: str) -> Axis:
    """The axis that `--over` names.

    Args:
        text: `FIELD=A,B`, or `FIELD=A;B` for values with commas, or a range `FIELD=log:LOW:HIGH` or
            `FIELD=lin:LOW:HIGH`.

    Raises:
        UserError: it is none of these, there is no such field, or it changes nothing in a run's numbers.

    Example:
        >>> axis("learning_rate=0.003,0.01").values, axis("momentum=0.9,0.9;0.95,0.85").values
        (('0.003', '0.01'), ('0.9,0.9', '0.95,0.85'))
    """
    field, equals, values = text.partition("=")
    head, _, option = field.partition(".")
    if not equals or not values.strip(",; "):
        raise UserError(f"sweep: --over {text}: write --over FIELD=A,B or --over FIELD=log:LOW:HIGH")
    if head not in FIELD_TYPES or (head == "model_options") != bool(option):
        raise UserError(f"sweep: --over {text:.200}: {unknown_field(field)}")
    if field in FREE_FIELDS:
        raise UserError(f"sweep: --over {text:.200}: {field} changes nothing in a run's numbers")
    scale, colon, ends = values.partition(":")
    if colon and scale in ("log", "lin"):
        try:
            low, high = map(float, ends.split(":"))
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(high) and low < high and (scale == "lin" or low > 0)) or field == "seed":
            right = "two numbers, the lower one first" + (" and above 0" if scale == "log" else "")
            raise UserError(f"sweep: --over {text:.200}: a range of {field} must be {right}; seeds are listed")
        return Axis(field, (), scale, low, high)
    return Axis(field, tuple(each.strip() for each in values.split(";" if ";" in values else ",") if each.strip()))


class Point(NamedTuple):
    """A run of a sweep.

    Attributes:
        name: of its directory.
        overrides: the swept fields, as the command line sets them.
        config: its configuration.
    """

    name: str
    overrides: Mapping[str, str]
    config: Config

    @property
    def settings(self) -> dict[str, Any]:
        """The swept fields' values as JSON holds them."""
        return {field: value_of(self.config, field) for field in self.overrides}


def value_of(config: Config, field: str) -> Any:
    """The value of a field, or of `model_options.NAME`, as JSON holds it."""
    head, _, option = field.partition(".")
    value = json.loads(config.to_json())[head]
    return value.get(option) if option else value


def points(base: Config, axes: Sequence[Axis], number: int | None = None, seed: int = 0) -> list[Point]:
    """The runs of a sweep: every combination of the axes' values, or some that are drawn at random.

    Args:
        base: the configuration without the swept fields.
        axes: the swept fields, in any order.
        number: how many combinations are drawn, without that of seeds: each is trained with every seed of the axis
            `seed`. None for all. More of them begin with the same ones.
        seed: of the draws.

    Raises:
        UserError: a value is wrong or given twice, or there are too many runs.

    Example:
        >>> from flax_resnets.training.recipes import load_config
        >>> over = [axis("seed=0,1"), axis("learning_rate=1e-3,0.01")]
        >>> [point.name for point in points(load_config("quickstart"), over)][:2]
        ['learning_rate=0.001-seed=0', 'learning_rate=0.001-seed=1']
    """
    # In any order they are the same sweep. The seed comes last, so that the runs of a setting are near.
    axes = sorted(axes, key=lambda each: (each.field == "seed", each.field))
    drawn = [each for each in axes if each.field != "seed"]
    for field in (fields := [each.field for each in axes]):
        if fields.count(field) > 1:
            raise UserError(f"sweep: --over {field}: is given twice; list all values in one")
    if number is None:
        if ranges := [each.field for each in axes if each.scale]:
            raise UserError(f"sweep: --over {ranges[0]}: a range needs --random N, the number of settings to draw")
        _check_number(math.prod(len(each.values) for each in axes))
        combinations = list(itertools.product(*(each.values for each in axes)))
    else:
        seeds = next((each.values for each in axes if each.field == "seed"), None)
        _check_number(number * len(seeds or "1"))
        settings = _draws(drawn, number, random.Random(seed))
        combinations = [(*each, *last) for each in settings for last in (((one,) for one in seeds) if seeds else [()])]
    found = [_point(base, dict(zip(fields, each, strict=True))) for each in combinations]
    names = [point.name for point in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"sweep: --over: {twice} is there twice; give each value once")
    return found


def _draws(axes: Sequence[Axis], number: int, draws: random.Random) -> list[tuple[str, ...]]:
    if not axes:
        raise UserError(f"sweep: --random={number}: there is nothing to draw; sweep another field than the seed")
    if any(each.scale for each in axes):
        found: dict[tuple[str, ...], None] = {}  # a dict, because it keeps the order
        for _ in range(100 * number):
            if len(found) < number:
                found[tuple(each.drawn(draws) for each in axes)] = None
        if len(found) < number:
            there = f"only {len(found)} settings are there"
            raise UserError(f"sweep: --random={number}: {there}; draw fewer, or widen a range")
        return list(found)
    of_all = math.prod(len(each.values) for each in axes)
    if number >= of_all:
        raise UserError(f"sweep: --random={number}: there are {of_all} settings; leave it out, or draw fewer")
    _check_number(of_all, 1000 * _MOST)
    every = list(itertools.product(*(each.values for each in axes)))
    draws.shuffle(every)
    return every[:number]


def _check_number(runs: int, most: int = _MOST) -> None:
    if runs > most:
        raise UserError(f"sweep: --over: has {runs:,} combinations; at most {most:,}, or draw some by --random N")


def _point(base: Config, overrides: Mapping[str, str]) -> Point:
    try:
        config = with_overrides(base, overrides)
    except UserError as error:
        raise UserError(f"sweep: --over: {error}") from None
    words = (f"{in_a_name(field)}={in_a_name(value_of(config, field))}" for field in overrides)
    return Point(shortened("-".join(words), _LONGEST_NAME), overrides, config)


@dataclass
class Sweep:
    """A sweep in its directory.

    Attributes:
        directory: of the sweep; each run's workdir is below it.
        base: the configuration without the swept fields.
        points: the runs.
        diverged: names of the runs whose loss was not finite. The same command would only repeat that.
    """

    directory: Path
    base: Config
    points: list[Point]
    diverged: list[str]

    def write(self, results: Mapping[str, Any] | None = None) -> None:
        """Writes `sweep.json`: what the sweep is, and its results.

        Raises:
            UserError: see `put`.
        """
        points = [{"run": each.name, "overrides": each.overrides} for each in self.points]
        content = {"config": json.loads(self.base.to_json()), "points": points, "diverged": self.diverged}
        self.put(RECORD, (json.dumps(content | dict(results or {}), indent=2) + "\n").encode())

    def put(self, name: str, content: bytes) -> None:
        """Writes a file into the sweep's directory.

        Raises:
            UserError: it cannot be written.
        """
        try:
            write_whole(self.directory / name, content)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"sweep: {self.directory / name}: {reason}; once that is put right, the same command goes on"
            ) from None


@contextlib.contextmanager
def opened(directory: Path, base: Config, asked: Sequence[Point]) -> Iterator["Sweep"]:
    """Makes a sweep's directory, or opens that of the same sweep, and locks it against other processes.

    Args:
        directory: of the sweep.
        base: the configuration without the swept fields.
        asked: the runs that are asked for.

    Yields:
        The sweep. If none of its runs left anything when the `with` block ends, a directory that this made is removed.

    Raises:
        UserError: the directory has another sweep or a run, another process has it open, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            recorded(directory, base, asked)  # raises before anything is made
            is_new = not directory.exists()
            directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(directory, wait=False))
            if is_new:
                stack.callback(_take_away, directory)  # only now: without the lock it may be another sweep's by now
            earlier, diverged = recorded(directory, base, asked)
            there = {point.name for point in earlier}
            points = [*earlier, *(point for point in asked if point.name not in there)]
            for point in points:
                check_workdir(point.config, directory / point.name)
            sweep = Sweep(directory, base, points, diverged)
            sweep.write()
        except BlockingIOError:
            raise UserError(f"sweep: {directory}: another sweep is under way in it; pick another --workdir") from None
        except UserError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"sweep: {directory}: {reason}; pick a --workdir that can be written") from None
        yield sweep


def _take_away(directory: Path) -> None:
    """Removes a sweep's directory if it holds nothing but the record."""
    with contextlib.suppress(OSError, ValueError):
        if os.listdir(directory) == [RECORD]:
            (directory / RECORD).unlink()
        directory.rmdir()


def recorded(directory: Path, base: Config, asked: Sequence[Point]) -> tuple[list[Point], list[str]]:
    """The runs in a directory's `sweep.json`, and the names of those that diverged; none if there is no such file.

    Raises:
        UserError: it is the record of another sweep, or the directory holds a run.
    """
    path = directory / RECORD
    if not path.exists():
        if (directory / "config.json").exists():
            raise UserError(f"sweep: {directory}: holds a run, no sweep; pick another --workdir")
        return [], []
    fields = list(asked[0].overrides)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        overrides = [{str(name): str(text) for name, text in row["overrides"].items()} for row in content["points"]]
        diverged = [str(name) for name in content["diverged"]]
        theirs, ours = {**DEFAULTS, **content["config"]}, json.loads(base.to_json())
        of_fields = {*itertools.chain.from_iterable(overrides)}
        if any({*row} != of_fields for row in overrides):
            raise ValueError("its points have different fields")
        differ = [name for name in ours if _without(ours, fields).get(name) != _without(theirs, fields).get(name)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is no record of a sweep ({error}); pick another --workdir") from None
    if of_fields and of_fields != {*fields}:
        raise UserError(
            f"sweep: {directory}: has another sweep, over {', '.join(sorted(of_fields))} (now "
            f"{', '.join(sorted(fields))}); pick another --workdir"
        )
    if differ:
        name = differ[0]
        change = f"{name}={theirs.get(name)!s:.100} (now {ours[name]!s:.100})"
        raise UserError(f"sweep: {directory}: has another sweep, with {change}; pick another --workdir")
    return [_point(base, {field: row[field] for field in fields}) for row in overrides], diverged


def _without(config: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """A configuration without the swept fields, and without those that may change when a run resumes."""
    options = {name: value for name, value in config["model_options"].items() if f"model_options.{name}" not in fields}
    return {**{name: config[name] for name in config if name not in (*fields, *FREE_FIELDS)}, "model_options": options}
