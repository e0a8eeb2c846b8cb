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
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

_STOPS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
    _STOPS.append(signal.SIGHUP)

# Huge pages, and one heap, not one for each thread that writes a checkpoint.
MALLOC = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"


def start_with_huge_pages() -> None:
    """Starts this process's program over, once, with glibc's malloc told to ask the system for huge pages.

    A step on processors allocates its activations anew, gigabytes at a time, and the system maps and clears each page
    at first touch: a quarter of a ResNet-50's step with pages of 4 KiB, next to nothing with those of 2 MiB. glibc
    decides on them as a process starts, by an environment variable; a library has no say in it later.

    Does nothing where the system has no huge pages to give, and where the environment already tells malloc what to do
    (`GLIBC_TUNABLES`, `MALLOC_ARENA_MAX` and the like), as it does after the restart.
    """
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if any(name == "GLIBC_TUNABLES" or name.startswith("MALLOC_") for name in os.environ):
        return
    with suppress(OSError):  # another system, or one that forbids it: slower, and no less right
        if "[never]" not in modes.read_text():
            environment = {**os.environ, "GLIBC_TUNABLES": MALLOC}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


if __name__ == "__main__":
    # The imports take seconds: whoever asks for a stop meanwhile is heard after them, when `run` listens. And after
    # `run` nothing is left to stop.
    for _number in _STOPS:
        signal.signal(_number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    if sys._getframe().f_back is None:  # Python itself runs this file: a debugger or profiler would lose hold of it
        start_with_huge_pages()

from flax_resnets.errors import UserError, plain_warnings  # noqa: E402
from flax_resnets.paths import expanded  # noqa: E402

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
            for number in _STOPS:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
        if topology:
            return compile_for(topology, config_path, overrides)

        # Imported here, for --help and a misspelt flag need not wait for JAX.
        from flax_resnets.training.compilation import keep_compiled_programs
        from flax_resnets.training.config import load_config
        from flax_resnets.training.display import lost_output_is_no_error
        from flax_resnets.training.libtpu import expect_no_tpu, has_tpu
        from flax_resnets.training.loop import Diverged, Stopped, run
        from flax_resnets.training.processes import is_first, join

        def say(text: str) -> None:
            with lost_output_is_no_error():
                print(text, flush=True)

        if not has_tpu():
            expect_no_tpu()  # where libtpu is installed for --compile_only, JAX tries it in training too
        config = load_config(config_path, overrides)
        keep_compiled_programs()
        try:
            if own_process or place[0]:
                join(*place)
            run(config, workdir)
            if is_first():
                say(f"next, with another seed, to see how much was luck: {command(another(arguments), own_process)}")
        except Stopped as stop:
            if is_first():
                say(f"stopped by {stop}; to go on: {command(arguments, own_process)}")
        except Diverged as error:
            if is_first():
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


def another(arguments: list[str]) -> list[str]:
    """The command line of the same run with the next seed, in a workdir of its own."""
    from flax_resnets.training.config import load_config

    config_path, workdir, overrides = parse(arguments)
    seed = (load_config(config_path, overrides).seed + 1) % 2**32
    values, _ = flags(arguments)
    values["--workdir"] = f"{workdir}-seed{seed}"
    changes = {**{f"--config.{name}": value for name, value in overrides.items()}, "--config.seed": str(seed)}
    return [f"{name}={value}" for name, value in (values | changes).items()]


def command(arguments: list[str], own_process: bool) -> str:
    """What to paste into a shell to run these arguments, from where this program was called."""
    python = sys.executable or "python"
    found = shutil.which("python")
    if found and os.path.dirname(found) == os.path.dirname(python) and os.path.samefile(found, python):
        python = "python"
    return shlex.join([python, sys.argv[0] if own_process else __file__, *arguments])


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
    config_path = expanded(values["--config"], "--config")
    return config_path, expanded(values.get("--workdir") or Path("runs") / config_path.stem, "--workdir"), overrides


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
            following = rest[0] if rest and not rest[0].startswith("--") else None
            raise UserError(f"{flag}: no such flag; {_meant(flag, value if equals else following)}")
    return values, overrides


def _meant(flag: str, value: str | None) -> str:
    """What to write in place of a flag that there is not, with the value it was given."""
    from flax_resnets.training.config import as_override

    close = difflib.get_close_matches(flag, [*_WITH_VALUE, "--compile_only", "--help"], n=1)
    meant = as_override(flag, value) or (close and close[0])
    return f"did you mean {meant}?" if meant else "see --help"


def end(code: int) -> None:
    """Ends the process, without waiting for threads that have nothing to say any more, as those of a download.

    One of several processes ends as Python does: the others are told.
    """
    jax = sys.modules.get("jax")  # --help has not waited for it
    if jax is None or not jax.distributed.is_initialized():
        with suppress(OSError):  # the terminal is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    plain_warnings("train.py")
    end(main(sys.argv[1:], own_process=True))
