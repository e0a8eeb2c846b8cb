"""Trains a network: `python train.py --config configs/quickstart.py`.

    --config FILE            the recipe; without it, those in configs/ are listed
    --workdir DIR            where the run lives; runs/<recipe's name> by default
    --config.FIELD=VALUE     changes one field of the recipe

    --coordinator HOST:PORT --num_processes N --process_id I
                             this is process I of N, from 0, which train as one; process 0 listens at HOST:PORT.
                             On Cloud TPU, Slurm and Kubernetes the processes find each other without these flags

    --compile_only --topology v5e:4x4
                             trains nothing: compiles the training step for TPUs that are not here, and prints one
                             line of JSON: FLOPs, bytes moved, memory needed, all-reduces, per device; an estimate
                             of the step's time; v4:2x2x1, v5p:2x2x1 and v6e:8x8 are other topologies

The same command with the same workdir goes on from the last checkpoint. Exit codes: 0, done, or stopped by a signal
and saved; 2, something in the request, the data or the disk is wrong, said in one line; 3, the loss was not finite.
"""

import ast
import difflib
import json
import os
import shlex
import signal
import sys
from pathlib import Path

from flax_resnets.speed import MALLOC, start_with_huge_pages  # noqa: F401  (imports no JAX yet)

_STOPS = (signal.SIGINT, signal.SIGTERM)

if __name__ == "__main__":
    # The imports take seconds: whoever asks for a stop meanwhile is heard after them, when `run` listens. And after
    # `run` nothing is left to stop.
    for _number in _STOPS:
        signal.signal(_number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    if sys._getframe().f_back is None:  # Python itself runs this file: a debugger or profiler would lose hold of it
        start_with_huge_pages()

from flax_resnets.errors import UserError  # noqa: E402

CONFIGS = Path(__file__).parent / "configs"

_WITH_VALUE = ("--config", "--workdir", "--topology", "--coordinator", "--num_processes", "--process_id")


def main(arguments: list[str], own_process: bool = False) -> int:
    """Runs one command line.

    Args:
        arguments: of the command line.
        own_process: whether the process is this program's alone: one that has used JAX can join no others.

    Returns:
        The exit code.
    """
    try:
        if not arguments or {"-h", "--help"} & set(arguments):
            print(usage())
            return 0
        config_path, workdir, overrides = parse(arguments)
        topology, place = compile_target(arguments), place_among_processes(arguments)
        if own_process and (topology or place[0]):  # nothing to save, and minutes of compiling or of waiting for others
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        if topology:
            return compile_for(topology, config_path, overrides)

        # Imported here, for --help and a misspelt flag need not wait for JAX.
        from flax_resnets.training.compilation import keep_compiled_programs
        from flax_resnets.training.config import load_config
        from flax_resnets.training.libtpu import expect_no_tpu, has_tpu
        from flax_resnets.training.loop import Diverged, Stopped, run
        from flax_resnets.training.processes import is_first, join

        if not has_tpu():
            expect_no_tpu()  # where libtpu is installed for --compile_only, JAX tries it in training too
        config = load_config(config_path, overrides)
        keep_compiled_programs()
        try:
            if own_process or place[0]:
                join(*place)
            run(config, workdir)
        except Stopped as stop:
            if is_first():
                print(f"stopped by {stop}; to go on: {shlex.join(['python', 'train.py', *arguments])}")
        except Diverged as error:
            print(f"train.py: {error}", file=sys.stderr)
            return 3
        except KeyboardInterrupt:
            print("train.py: interrupted; nothing since the last checkpoint is saved", file=sys.stderr)
            return 130
    except (UserError, ModuleNotFoundError) as error:
        hint = '; the trainer needs `pip install -e ".[train]"`' if isinstance(error, ModuleNotFoundError) else ""
        print(f"train.py: {error}{hint}", file=sys.stderr)
        return 2
    return 0


def compile_for(topology: str, config_path: Path, overrides: dict[str, str]) -> int:
    """Compiles the step for a TPU topology and prints what the compiler counts; returns the exit code."""
    from flax_resnets.training.ahead_of_time import compile_only, in_words
    from flax_resnets.training.config import load_config

    result = compile_only(load_config(config_path, overrides), topology)
    print(json.dumps(result))
    print(f"train.py: {in_words(result)}", file=sys.stderr)
    return 0 if result["fits"] else 2


def usage() -> str:
    """The help text, with a line for each recipe."""
    recipes = sorted(CONFIGS.glob("*.py"))
    width = max((len(path.name) for path in recipes), default=0)
    lines = [f"    configs/{path.name:<{width}}  {headline(path)}" for path in recipes]
    return "\n".join([(__doc__ or "").strip(), "", "Recipes:", *lines])


def headline(path: Path) -> str:
    """The first line of a recipe's header, read without running it."""
    try:
        return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"(does not parse: {error})"


def parse(arguments: list[str]) -> tuple[Path, Path, dict[str, str]]:
    """Config file, workdir and overrides of a command line."""
    values, overrides = flags(arguments)
    if not values.get("--config"):
        raise UserError("--config=FILE is needed; `python train.py` lists the recipes")
    if values.get("--workdir") == "":
        raise UserError("--workdir=: needs a value; without the flag it is runs/<recipe's name>")
    config_path = Path(values["--config"])
    return config_path, Path(values.get("--workdir") or Path("runs") / config_path.stem), overrides


def compile_target(arguments: list[str]) -> str | None:
    """The topology to compile for, or None where a command line asks for training."""
    values, _ = flags(arguments)
    topology = values.get("--topology")
    if "--compile_only" in values and not topology:
        raise UserError("--compile_only: needs --topology and the TPUs to compile for, such as --topology v5e:4x4")
    if topology is not None and "--compile_only" not in values:
        raise UserError(f"--topology={topology}: goes with --compile_only; training takes the devices it finds")
    return topology


def place_among_processes(arguments: list[str]) -> tuple[str | None, int | None, int | None]:
    """Coordinator, number of processes and this one's number, as a command line says; all None where it does not."""
    names = ("--coordinator", "--num_processes", "--process_id")
    values, _ = flags(arguments)
    given = [name for name in names if name in values]
    if not given:
        return None, None, None
    if len(given) < len(names):
        missing = next(name for name in names if name not in values)
        raise UserError(f"{given[0]}={values[given[0]]}: goes with {missing}")
    host, colon, port = values["--coordinator"].rpartition(":")
    if not (host and colon and _whole_number(port) and 0 < int(port) < 65536):
        raise UserError(f"--coordinator={values['--coordinator']}: must be HOST:PORT, such as 10.0.0.1:1234")
    counts = []
    for name, least in (("--num_processes", 1), ("--process_id", 0)):
        if not _whole_number(values[name]) or int(values[name]) < least:
            raise UserError(f"{name}={values[name]}: must be a whole number from {least} up")
        counts.append(int(values[name]))
    processes, number = counts
    if number >= processes:
        raise UserError(f"--process_id={number}: must be below --num_processes={processes}")
    return values["--coordinator"], processes, number


def _whole_number(text: str) -> bool:
    """Whether it is one of a size that counts anything; Python would take other alphabets' digits as well."""
    return text.isascii() and text.isdecimal() and len(text) < 10


def flags(arguments: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The value of each flag, and of each `--config.FIELD`."""
    values: dict[str, str] = {}
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag.startswith("--config."):
            if not equals:
                raise UserError(f"{flag}: write {flag}=VALUE")
            overrides[flag.removeprefix("--config.")] = value
        elif flag == "--compile_only":
            if equals:
                raise UserError(f"{flag}={value}: takes no value")
            values[flag] = ""
        elif flag in _WITH_VALUE:
            if not equals and (not rest or rest[0].startswith("--")):  # the next flag
                raise UserError(f"{flag}: needs a value")
            values[flag] = value if equals else rest.pop(0)
        else:
            close = difflib.get_close_matches(flag, [*_WITH_VALUE, "--compile_only", "--help"], n=1)
            raise UserError(f"{flag}: no such flag; " + (f"did you mean {close[0]}?" if close else "see --help"))
    return values, overrides


def end(code: int) -> None:
    """Ends the process, without waiting for threads that have nothing to say any more, as those of a download.

    One of several processes ends as Python does: the others are told.
    """
    jax = sys.modules.get("jax")  # --help has not waited for it
    if jax is None or not jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    end(main(sys.argv[1:], own_process=True))
