"""Trains a network by a recipe.

    flax-resnets train --config quickstart
    flax-resnets train --config my_recipe.py --workdir runs/mine --config.epochs=10

The same command with the same workdir goes on from the last checkpoint. Exit codes: 0, done, or stopped by a signal and
saved; 2, something in the request, the data or the disk is wrong, said in one line; 3, the loss was not finite.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from flax_resnets.cli import startup
from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.configs import headline, recipes
from flax_resnets.errors import UserError


def add_arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_config()
    parser.add_argument("--workdir", metavar="DIR", help="where the run lives; runs/<recipe's name> by default")
    several = parser.add_argument_group(
        "several processes that train as one (found without flags on Cloud TPU, Slurm and Kubernetes)"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    several.add_argument("--num_processes", type=whole_number(1), metavar="N", help="how many there are")
    several.add_argument("--process_id", type=whole_number(0), metavar="I", help="which of them this is, from 0")
    elsewhere = parser.add_argument_group("the training step for TPUs that are not here; nothing is trained")
    elsewhere.add_argument(
        "--compile_only",
        action="store_true",
        help="compile it and print a line of JSON: FLOPs, bytes moved, memory, all-reduces; an estimate of its time",
    )
    elsewhere.add_argument("--topology", metavar="TPUS", help="v5e:4x4, v4:2x2x1, v5p:2x2x1, v6e:8x8 and others")
    width = max(map(len, recipes()), default=0)
    parser.epilog = "\n".join(["recipes:", *(f"  {name:<{width}}  {headline(p)}" for name, p in recipes().items())])


def run(arguments: argparse.Namespace) -> int:
    """Trains, or compiles.

    Returns:
        The exit code.

    Raises:
        UserError: something in the request, the data or the disk is wrong.
    """
    topology, place = _compile_target(arguments), _place_among_processes(arguments)
    if arguments.workdir == "":
        raise UserError("--workdir=: needs a value; without the flag it is runs/<recipe's name>")
    if arguments.own_process and (topology or place[0]):
        startup.release_signals()
    if topology:
        return _compile_for(topology, arguments)

    # Imported here, for --help and a misspelt flag need not wait for JAX.
    from flax_resnets.training.compilation import keep_compiled_programs
    from flax_resnets.training.loop import Diverged, Stopped, run
    from flax_resnets.training.processes import is_first, join
    from flax_resnets.training.recipes import load_config, run_name
    from flax_resnets.training.tpu.libtpu import expect_no_tpu, has_tpu

    if not has_tpu():
        expect_no_tpu()  # where libtpu is installed for --compile_only, JAX tries it in training too
    config = load_config(arguments.config, arguments.overrides)
    keep_compiled_programs()
    try:
        if arguments.own_process or place[0]:
            join(*place)
        run(config, Path(arguments.workdir or Path("runs") / run_name(arguments.config)))
    except Stopped as stop:
        if is_first():
            print(f"stopped by {stop}; to go on: {shlex.join([*_called(arguments), *arguments.arguments])}")
    except Diverged as error:
        print(f"{arguments.program}: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print(f"{arguments.program}: interrupted; nothing since the last checkpoint is saved", file=sys.stderr)
        return 130
    return 0


def _called(arguments: argparse.Namespace) -> list[str]:
    return ["python", "train.py"] if arguments.program == "train.py" else ["python", "-m", "flax_resnets", "train"]


def _compile_for(topology: str, arguments: argparse.Namespace) -> int:
    """Compiles the step for a TPU topology and prints what the compiler counts; returns the exit code."""
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.tpu.compile_only import compile_only, in_words

    result = compile_only(load_config(arguments.config, arguments.overrides), topology)
    print(json.dumps(result))
    print(f"{arguments.program}: {in_words(result)}", file=sys.stderr)
    return 0 if result["fits"] else 2


def _compile_target(arguments: argparse.Namespace) -> str | None:
    """The topology to compile for, or None where a command line asks for training."""
    topology = arguments.topology
    if arguments.compile_only and not topology:
        raise UserError("--compile_only: needs --topology and the TPUs to compile for, such as --topology v5e:4x4")
    if topology is not None and not arguments.compile_only:
        raise UserError(f"--topology={topology}: goes with --compile_only; training takes the devices it finds")
    return topology


def _place_among_processes(arguments: argparse.Namespace) -> tuple[str | None, int | None, int | None]:
    """Coordinator, number of processes and this one's number, as a command line says; all None where it does not."""
    place = arguments.coordinator, arguments.num_processes, arguments.process_id
    given = {
        name: value
        for name, value in zip(("--coordinator", "--num_processes", "--process_id"), place, strict=True)
        if value is not None
    }
    if not given:
        return None, None, None
    for name in ("--coordinator", "--num_processes", "--process_id"):
        if name not in given:
            first, value = next(iter(given.items()))
            raise UserError(f"{first}={value}: goes with {name}")
    coordinator, processes, number = place
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isascii() and port.isdecimal() and len(port) < 10 and 0 < int(port) < 65536):
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT, such as 10.0.0.1:1234")
    if number >= processes:
        raise UserError(f"--process_id={number}: must be below --num_processes={processes}")
    return coordinator, processes, number
