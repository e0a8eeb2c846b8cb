"""Trains a network by a recipe.

    flax-resnets train --config quickstart
    flax-resnets train --config my_recipe.py --workdir runs/mine --config.epochs=10

The same command with the same workdir resumes the run from its last checkpoint. Exit codes: 0, done, or stopped by a
signal and saved; 2, a mistake in the request, the data or the disk, named in one line; 3, the loss was not finite.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets.cli import startup
from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.configs import headline, recipes
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.storage import is_bucket

if TYPE_CHECKING:
    from flax_resnets.training.config import Config


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_config()
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        help="directory of the run, or gs://BUCKET/PATH; default runs/RECIPE, and with changed fields "
        "runs/RECIPE-FIELD=VALUE",
    )
    parser.add_argument(
        "--amend",
        action="store_true",
        help="go on with the workdir's run from its last checkpoint under this configuration, which may differ in "
        "epochs, rates, augmentation, precision, batch size ...",
    )
    parser.add_argument(
        "--profile",
        type=whole_number(1),
        metavar="STEPS",
        help="trace so many steps by JAX's profiler into WORKDIR/profile, and print what they were spent on",
    )
    parser.add_argument(
        "--print_config",
        action="store_true",
        help="print every field with its value as JSON, which --config takes as a file, and train nothing",
    )
    several = parser.add_argument_group(
        "several processes that train together (no flags are needed on Cloud TPU, Slurm and Kubernetes)"
    )
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    several.add_argument("--num_processes", type=whole_number(1), metavar="N", help="number of processes")
    several.add_argument("--process_id", type=whole_number(0), metavar="I", help="number of this process, from 0")
    elsewhere = parser.add_argument_group("compile the training step for TPUs, without having one, and train nothing")
    elsewhere.add_argument(
        "--compile_only",
        action="store_true",
        help="print one line of JSON: FLOPs, bytes moved, memory, all-reduces, and an estimate of the step's time",
    )
    elsewhere.add_argument("--topology", metavar="TPUS", help="such as v5e:4x4, v4:2x2x1, v5p:2x2x1 or v6e:8x8")
    parser.add_argument("--in_sweep", action="store_true", help=argparse.SUPPRESS)  # which says how to go on
    width = max(map(len, recipes()), default=0)
    parser.epilog = "\n".join(["recipes:", *(f"  {name:<{width}}  {headline(p)}" for name, p in recipes().items())])


def run(arguments: argparse.Namespace) -> int:
    """Trains, or compiles for TPUs.

    Returns:
        The exit code.

    Raises:
        UserError: there is a mistake in the request, the data or the disk.
    """
    topology, place = _compile_target(arguments), _place_among_processes(arguments)
    if arguments.own_process and (topology or place[0]):
        startup.release_signals()
    if topology:
        return _compile_for(topology, arguments)

    # Imported here, because --help and a misspelt flag need not wait for JAX.
    from flax_resnets.training.compilation import keep_compiled_programs
    from flax_resnets.training.default_workdir import default_workdir
    from flax_resnets.training.loop import Diverged, Stopped, run
    from flax_resnets.training.processes import is_first, join
    from flax_resnets.training.profile import Profile
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.tpu.libtpu import expect_no_tpu

    expect_no_tpu()
    config = load_config(arguments.config, arguments.overrides)
    if arguments.print_config:
        print(config.to_json(), end="")
        return 0
    if arguments.workdir is None:
        workdir = default_workdir(arguments.config, config, arguments.amend)
    else:
        workdir = expanded(arguments.workdir, "--workdir", buckets=True)
    if arguments.profile and is_bucket(workdir):
        raise UserError(f"--profile={arguments.profile}: needs a workdir on this machine, not {workdir}")
    keep_compiled_programs()
    try:
        if arguments.own_process or place[0]:
            join(*place)
        callbacks = [Profile(arguments.profile)] if arguments.profile and is_first() else []
        ended = run(config, workdir, callbacks, amend=arguments.amend)
        # Another seed would draw validation images that the weights may have been trained on.
        mixes = config.weights is not None and ended.data is not None and ended.data.split_seed is not None
        if is_first() and not arguments.in_sweep and not arguments.quiet and not mixes:
            other = _with_another_seed(arguments, config, workdir)
            _say(f"next, with another seed, to see how much was luck: {command_to_type(arguments, 'train', other)}")
    except Stopped as stop:
        if is_first():
            again = command_to_type(arguments, "train", arguments.arguments)
            _say(f"stopped by {stop}" + ("" if arguments.in_sweep else f"; to go on: {again}"))
    except Diverged as error:
        if is_first():
            print(f"{arguments.program}: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print(f"{arguments.program}: interrupted; nothing since the last checkpoint is saved", file=sys.stderr)
        return 130
    return 0


def _say(text: str) -> None:
    from flax_resnets.training.display import lost_output_is_no_error

    with lost_output_is_no_error():
        print(text, flush=True)


def _with_another_seed(arguments: argparse.Namespace, config: "Config", workdir: Path) -> list[str]:
    """The arguments for the same run with the next seed and a workdir of its own."""
    seed = (config.seed + 1) % 2**32
    flags = {"--config": arguments.config}
    if arguments.workdir is not None:
        flags["--workdir"] = f"{workdir}-seed{seed}"
    for name in ("coordinator", "num_processes", "process_id"):
        if (value := getattr(arguments, name)) is not None:
            flags[f"--{name}"] = value
    changes = {**{f"--config.{name}": value for name, value in arguments.overrides.items()}, "--config.seed": str(seed)}
    return [f"{name}={value}" for name, value in (flags | changes).items()]


def command_to_type(arguments: argparse.Namespace, command: str, given: list[str]) -> str:
    """A command line to paste into a shell, for the directory in which this program was called.

    Args:
        arguments: those of this program's command line.
        command: of the line.
        given: what follows the command.
    """
    if arguments.own_process and os.path.basename(sys.argv[0]) == "flax-resnets":
        return shlex.join(["flax-resnets", command, *given])
    python = sys.executable or "python"
    found = shutil.which("python")
    if found and os.path.dirname(found) == os.path.dirname(python) and os.path.samefile(found, python):
        python = "python"
    if arguments.program == "train.py" and command == "train":
        script = sys.argv[0] if arguments.own_process else "train.py"
        return shlex.join([python, script, *given])
    return shlex.join([python, "-m", "flax_resnets", command, *given])


def _compile_for(topology: str, arguments: argparse.Namespace) -> int:
    """Compiles the step for a TPU topology and prints the compiler's figures; returns the exit code."""
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.tpu.compile_only import compile_only, in_words

    result = compile_only(load_config(arguments.config, arguments.overrides), topology)
    print(json.dumps(result))
    print(f"{arguments.program}: {in_words(result)}", file=sys.stderr)
    return 0 if result["fits"] else 2


def _compile_target(arguments: argparse.Namespace) -> str | None:
    """The topology to compile for; None if the command line asks for training."""
    topology = arguments.topology
    if arguments.compile_only and not topology:
        raise UserError("--compile_only: needs --topology and the TPUs to compile for, such as --topology v5e:4x4")
    if topology is not None and not arguments.compile_only:
        raise UserError(f"--topology={topology}: goes with --compile_only; training takes the devices it finds")
    return topology


def _place_among_processes(arguments: argparse.Namespace) -> tuple[str | None, int | None, int | None]:
    """Coordinator, number of processes, and number of this process; all None if the command line gives none."""
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
