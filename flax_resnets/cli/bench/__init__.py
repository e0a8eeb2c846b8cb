"""Measures speed as ratios: this package, a plain linen ResNet and torchvision's take turns on the same machine.

    flax-resnets bench --case rn18-train
    flax-resnets bench --case rn50-inference --torch torch_env/bin/python --rounds 5

Each contender (this package is called "ours") runs in its own process, and only one computes at a time. The speed ratio
is computed for each round, and the table shows the median, so that it is right on a machine whose speed changes;
`2.00x` means that ours is twice as fast. Spread is from the first quartile to the third. torch must be installed in
this environment, or in the one that --torch names.

If there are several accelerators, one is used. The figures of each case follow its table as lines of JSON, or are
appended to the file that --json names.
"""

import argparse
import dataclasses
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

from flax_resnets.cli.bench import contenders, report
from flax_resnets.cli.bench.cases import CASES, Case
from flax_resnets.cli.bench.interleave import Measurement, interleave
from flax_resnets.cli.parser import whole_number
from flax_resnets.errors import UserError
from flax_resnets.machine import describe_machine
from flax_resnets.paths import expanded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    cases = "; ".join(f"{name}: {_in_words(case)}" for name, case in CASES.items())
    parser.add_argument("--case", action="append", choices=list(CASES), metavar="NAME", help=f"repeatable. {cases}")
    parser.add_argument("--rounds", type=whole_number(1), default=9, metavar="N", help="turns of each; default 9")
    parser.add_argument("--torch", type=Path, metavar="PYTHON", help="python of an environment with torchvision")
    parser.add_argument("--checkout", type=Path, metavar="DIR", help="another clone of this repository, as a contender")
    parser.add_argument(
        "--only",
        action="append",
        choices=contenders.PEERS,
        metavar="PEER",
        help=f"contender besides ours: {', '.join(contenders.PEERS)}; repeatable; default all",
    )
    parser.add_argument("--batch", type=whole_number(1), metavar="N", help="batch size, in place of the case's")
    parser.add_argument("--size", type=whole_number(1), metavar="N", help="side in pixels, in place of the case's")
    parser.add_argument("--turn", type=float, default=2.0, metavar="SECONDS", help="length of a turn; default 2")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the lines of JSON to this file")


def run(arguments: argparse.Namespace) -> None:
    """Measures, and prints a table for each case.

    Raises:
        UserError: an argument is wrong, or this package's contender does not run.
    """
    cases = {name: _changed(name, CASES[name], arguments) for name in dict.fromkeys(arguments.case or CASES)}
    _check(arguments)
    backend = _backend()
    for name, case in cases.items():
        _say(f"{name}: {_in_words(case)}")
        if case.varied:
            processes = contenders.scaling(case, backend)
        else:
            processes = contenders.peers(
                case, backend, arguments.only or contenders.PEERS, arguments.torch, arguments.checkout
            )
        result = interleave(processes, arguments.rounds, turn=arguments.turn, say=_say)
        if not (case.varied or arguments.only or arguments.torch or contenders.torch_is_here()):
            result.left_out[contenders.TORCH] = "not installed here; --torch names the python of an environment with it"
        if case.varied:
            if len(result.seconds) < 2:
                raise UserError(f"bench: {name}: fewer than two sizes run; {_left_out(result)}")
            rows = report.scaling_rows(case, result)
            table = report.scaling_table(case, rows)
        else:
            if contenders.OURS not in result.seconds:
                raise UserError(f"bench: {name}: ours does not run; {_left_out(result)}")
            rows = report.peer_rows(case, result)
            table = report.peer_table(rows)
        print(f"{name}: {_in_words(case)}; medians of {arguments.rounds} rounds\n\n{table}\n")
        if result.left_out:
            print(f"left out: {_left_out(result)}\n")
        about = {"case": name, "network": case.network, "work": case.work, "batch": case.batch, "size": case.size}
        conditions = {"rounds": arguments.rounds, "machine": describe_machine()}
        _write("".join(json.dumps(about | row | conditions) + "\n" for row in rows), arguments.json)


def _say(text: str) -> None:
    """Prints progress on stderr, since it is not a result."""
    print(text, file=sys.stderr, flush=True)


def _left_out(result: Measurement) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in result.left_out.items())


def _in_words(case: Case) -> str:
    words = {"size": f"{case.size} px", "batch": f"batch {case.batch}"}
    if case.varied:
        several = ", ".join(map(str, case.values))
        words[case.varied] = {"size": f"{several} px", "batch": f"batch {several}"}[case.varied]
    return f"{case.what}, {words['size']}, {words['batch']}, float32"


def _changed(name: str, case: Case, arguments: argparse.Namespace) -> Case:
    changes = {field: getattr(arguments, field) for field in ("batch", "size") if getattr(arguments, field) is not None}
    if case.varied in changes:
        right = {"batch": "size", "size": "batch"}[case.varied]
        raise UserError(f"bench: --{case.varied}={changes[case.varied]}: {name} varies it; --{right} can be given")
    return dataclasses.replace(case, **changes)


def _check(arguments: argparse.Namespace) -> None:
    """Reports mistakes before the measurements, which take minutes."""
    for name in ("torch", "checkout", "json"):
        if path := getattr(arguments, name):
            setattr(arguments, name, expanded(path, f"bench: --{name}"))
    if not 0 < arguments.turn < math.inf:
        raise UserError(f"bench: --turn={arguments.turn:g}: must be above 0, and finite")
    if arguments.torch and not shutil.which(arguments.torch):
        raise UserError(f"bench: --torch={arguments.torch}: must be the python of an environment with torch in it")
    if contenders.TORCH in (arguments.only or ()) and not (arguments.torch or contenders.torch_is_here()):
        raise UserError("bench: --only=torchvision: not installed here; --torch=PYTHON names an environment's python")
    if contenders.CHECKOUT in (arguments.only or ()) and not arguments.checkout:
        raise UserError("bench: --only=checkout: --checkout=DIR is needed, another clone of this repository")
    if arguments.checkout and not (arguments.checkout / "flax_resnets" / "__init__.py").is_file():
        raise UserError(f"bench: --checkout={arguments.checkout}: must be a directory with flax_resnets/ in it")
    if arguments.json:
        try:
            arguments.json.open("a").close()
        except OSError as error:
            raise UserError(f"bench: --json={arguments.json}: {error.strerror}; name a file to write") from None


def _backend() -> str:
    """JAX's backend, found out in another process: this one must not take a TPU that its children need."""
    program = "from flax_resnets.training.devices import *; start_jax(); print(jax.default_backend())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"bench: JAX does not start: {last.removeprefix(f'{UserError.__module__}.UserError: ')}")
    return done.stdout.split()[-1]


def _write(lines: str, path: Path | None) -> None:
    if path is not None:
        try:
            with path.open("a") as file:
                file.write(lines)
            return
        except OSError as error:  # what took minutes is printed instead
            print(lines, flush=True)
            raise UserError(f"bench: --json={path}: {error.strerror}; its lines are printed") from None
    print(lines, flush=True)
