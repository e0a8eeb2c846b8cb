"""Trains a recipe with several values of some fields, one run after the other, and compares the results.

    flax-resnets sweep --config quickstart --over learning_rate=0.003,0.01 --over seed=0,1
    flax-resnets sweep --config quickstart --over learning_rate=log:1e-3:1e-1 --over mixup=0,0.2 --random 8

Each run is trained by `flax-resnets train`, in a process and a workdir of its own below the sweep's directory. The same
command goes on with a sweep that was stopped; with other values it adds runs. At the end there are a table of the
settings, with mean and standard deviation over the seeds, sweep.json, sweep.csv and sweep.png. Exit code 2: a run
failed, or a mistake in the request.
"""

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.cli.table import table
from flax_resnets.cli.train import command_to_type
from flax_resnets.errors import UserError, printable
from flax_resnets.paths import expanded

if TYPE_CHECKING:
    from flax_resnets.inference.sweep_results import Results
    from flax_resnets.training.interruption import Interruption
    from flax_resnets.training.sweep import Point, Sweep


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_config()
    parser.add_argument(
        "--over",
        action="append",
        metavar="FIELD=A,B",
        help="a field and its values (with ; between values that have commas), or with --random a range log:LOW:HIGH "
        "or lin:LOW:HIGH; give it for each field",
    )
    parser.add_argument("--random", type=whole_number(1), metavar="N", help="draw N settings, instead of training all")
    parser.add_argument("--random_seed", type=whole_number(0), default=0, metavar="N", help="of the draws; default 0")
    parser.add_argument(
        "--workdir", metavar="DIR", help="directory of the sweep; default runs/RECIPE-sweep-FIELD, with all its fields"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON; what the runs say goes to stderr")


def run(arguments: argparse.Namespace) -> int:
    """Trains the runs that are not done, and prints the table.

    Returns:
        The exit code: 0, also if a signal stopped the sweep; 2 if a run failed.

    Raises:
        UserError: there is a mistake in the request, or the directory holds something else.
    """
    if not arguments.over:
        raise UserError("sweep: --over FIELD=A,B is needed: the fields to vary, and their values")
    from flax_resnets.inference.sweep_results import read_results
    from flax_resnets.training.default_workdir import default_workdir
    from flax_resnets.training.interruption import Interruption
    from flax_resnets.training.network import make_model
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.sweep import axis, opened, points

    base = load_config(arguments.config, arguments.overrides)
    axes = [axis(text) for text in arguments.over]
    for each in axes:
        if each.field in arguments.overrides:
            raise UserError(f"sweep: --config.{each.field}: is swept by --over {each.field}; give one of the two")
    asked = points(base, axes, arguments.random, arguments.random_seed)
    for point in asked:
        make_model(point.config, num_classes=10)  # finds misspelt names
    if arguments.workdir is None:
        directory = default_workdir(arguments.config, base)
        directory = directory.with_name("-".join([directory.name, "sweep", *asked[0].overrides]))
    else:
        directory = expanded(arguments.workdir, "sweep: --workdir")
    out = sys.stderr if arguments.json else sys.stdout
    with Interruption() as stop, opened(directory, base, asked) as sweep:
        failed = _train(arguments, sweep, stop, lambda text: print(printable(text), file=out, flush=True))
        results = read_results(directory, sweep.points, sweep.diverged)
        begun = any((directory / point.name).exists() for point in sweep.points)
        if not begun and not stop:
            raise UserError(f"sweep: {directory}: no run could begin; the lines above say why")
        if arguments.json:
            print(json.dumps({"sweep": str(directory), **results.as_dict()}))
        elif begun:
            print(_report(arguments, results))
        if begun:
            _write(sweep, results)  # when the table is printed, which a full disk shall not take away
    for name, code in failed.items():
        print(f"{arguments.program}: sweep: {directory / name}: failed, exit code {code}", file=sys.stderr)
    if stop:
        print(f"stopped by {stop.signal}; to go on: {_again(arguments)}", file=out)
    elif failed:
        print(f"once that is put right, to go on: {_again(arguments)}", file=out)
    return 2 if failed else 0


def _again(arguments: argparse.Namespace) -> str:
    return command_to_type(arguments, "sweep", arguments.arguments)


def _train(
    arguments: argparse.Namespace, sweep: "Sweep", stop: "Interruption", say: Callable[[str], None]
) -> dict[str, int]:
    """Trains the runs that are not done; returns the exit codes of those that failed, by name."""
    from flax_resnets.inference.sweep_results import read_results

    failed: dict[str, int] = {}
    states = [each.state for each in read_results(sweep.directory, sweep.points, sweep.diverged).outcomes]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    say(f"{sweep.directory}: {len(states)} runs: {counts}")
    for number, (point, state) in enumerate(zip(sweep.points, states, strict=True), start=1):
        if stop:
            break
        if state in ("done", "diverged"):
            continue
        say("")
        say(f"run {number} of {len(states)}: {', '.join(f'{name}={text}' for name, text in point.overrides.items())}")
        code = _start(_command(arguments, point, sweep.directory / point.name), stop, say_to_stderr=arguments.json)
        if code == 3:
            sweep.diverged.append(point.name)
            sweep.write()
        elif code and not stop:
            failed[point.name] = code
    return failed


def _command(arguments: argparse.Namespace, point: "Point", workdir: Path) -> list[str]:
    changes = {**arguments.overrides, **point.overrides}
    fields = [f"--config.{name}={text}" for name, text in changes.items()]
    program = [sys.executable, "-m", "flax_resnets", "train", f"--config={arguments.config}", f"--workdir={workdir}"]
    return [*program, "--in_sweep", *fields]


def _start(command: list[str], stop: "Interruption", say_to_stderr: bool) -> int:
    """Runs a command to its end, and passes on the signal that stops the sweep; returns the exit code."""
    from flax_resnets.training.interruption import STOPS

    # In a group of its own: otherwise Ctrl-C would reach it from the terminal, and once more from here. The signals are
    # blocked until it handles them.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        child = subprocess.Popen(command, stdout=2 if say_to_stderr else None, process_group=0)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    told = False
    try:
        while True:
            if stop and not told:
                child.send_signal(getattr(signal, str(stop.signal), signal.SIGTERM))
                told = True
            try:
                return child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:  # the second Ctrl-C, of a user who does not want to wait
        child.send_signal(signal.SIGINT)
        child.wait()
        raise


def _write(sweep: "Sweep", results: "Results") -> None:
    """Writes the results into the sweep's directory."""
    sweep.write(results.as_dict())
    sweep.put("sweep.csv", results.as_csv().encode())
    if results.drawn:
        sweep.put("sweep.png", results.picture())


def _report(arguments: argparse.Namespace, results: "Results") -> str:
    header, rows = results.table()
    cells = [[printable(each) for each in row] for row in rows]
    lines = ["", table(header, cells, left=len(results.settings[0].values)), ""]
    lines.append(f"{results.directory}: sweep.png, sweep.csv, sweep.json, and a directory for each run")
    first = [str(results.directory / each.point.name) for best in results.ranked[:2] for each in best.outcomes]
    if len(first) > 1:
        which = "the two best settings" if len(results.ranked) > 1 else "its runs"
        command = command_to_type(arguments, "compare", first)
        lines.append(f"to compare {which} image by image: {command}")
    return "\n".join(lines)
