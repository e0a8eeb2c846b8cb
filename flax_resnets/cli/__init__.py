"""The command line: `flax-resnets COMMAND`, which is the same as `python -m flax_resnets COMMAND`.

A command is a line in `GROUPS` and a module of the same name in this package (`lr-find` is `lr_find.py`). The module
has two functions: `add_arguments(parser)`, and `run(arguments)`, which gets the parsed namespace, prints, and returns
the exit code (None means 0) or raises `UserError`. The module is imported only when its command is called, so a command
may import packages that others do not need. `--help` does not import JAX.
"""

import argparse
import importlib
import io
import os
import sys
from typing import Any, NoReturn

from flax_resnets import __version__
from flax_resnets.cli import startup
from flax_resnets.cli.parser import Parser, nearest
from flax_resnets.cpu import start_with_huge_pages
from flax_resnets.errors import UserError, plain_warnings
from flax_resnets.progress import quiet

# In the order in which a person needs them.
GROUPS = {
    "train": {
        "train": "trains a network by a recipe, or resumes a run",
        "data": "tells what a dataset holds: classes, sizes, damaged and repeated images",
        "show-batch": "draws the images that the network sees in a step",
        "lr-find": "suggests learning rates for a recipe, by a short run at a rising rate",
        "sweep": "trains a recipe with several values of some fields, and compares the results",
        "prepare": "downloads and prepares a TFDS dataset, before a run needs it",
    },
    "use what was trained": {
        "predict": "classifies images with a trained network",
        "evaluate": "evaluates a trained network on a labelled set, with figures and pictures",
        "report": "writes a page about a run: curves, mistakes with their pictures, configuration, data",
        "compare": "compares runs: settings, curves, and whether their accuracies really differ",
        "demo": "opens a page on this machine where a picture is dropped and its classes appear",
        "export": "writes a trained network for programs without this library: StableHLO, ONNX, weights alone",
    },
    "networks": {
        "models": "lists the networks, with parameters and GMACs",
        "summary": "lists a network's layers: output shapes, parameters, multiply-adds",
    },
    "this machine": {
        "bench": "compares the speed with a plain linen ResNet and torchvision, as ratios",
        "env": "prints what a report of a bug needs: versions, devices, settings",
    },
}
COMMANDS = {name: what for commands in GROUPS.values() for name, what in commands.items()}

FIRST_STEPS = (
    "flax-resnets train --config quickstart",
    "flax-resnets report runs/quickstart",
    "flax-resnets train --config rn18_imagenette --config.dataset=folder --config.data_dir=PHOTOS",
)

# The commands that compute much: on a CPU they start with memory in huge pages.
_COMPUTING = ("train", "lr-find", "predict", "evaluate", "report", "compare", "demo")


def console() -> NoReturn:
    """The entry point of `flax-resnets` and `python -m flax_resnets`."""
    start(sys.argv[1:], "flax_resnets")


def start(arguments: list[str], program: str) -> NoReturn:
    """Runs one command line, and ends the process.

    Args:
        arguments: as in `main`.
        program: as in `main`.
    """
    command = arguments[0] if arguments else ""
    if command == "train":
        startup.hold_signals()
    if command in _COMPUTING:
        start_with_huge_pages()
    plain_warnings(program)
    if sys.stdout is None:  # closed, by `>&-`
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path need not be text, nor its characters in the locale's set
        sys.stdout.reconfigure(errors="backslashreplace")
    startup.end(main(arguments, program, own_process=True))


def main(arguments: list[str], program: str = "flax_resnets", own_process: bool = False) -> int:
    """Runs one command line.

    Args:
        arguments: the command and what follows it.
        program: name of the program, with which an error's line begins: `train.py` if that was called.
        own_process: whether this process was started for this command line. Otherwise JAX may be in use already, and
            then the process cannot join a run of several processes.

    Returns:
        The exit code: 0 for success; 2 for a mistake, or if stdout cannot be written, which
        one line on stderr names; 130 after Ctrl-C; 3 from `train`
        if the loss was not finite; 1 from `predict` if there are images that cannot be read.

    Example:
        >>> main(["models", "resnet18"])  # doctest: +NORMALIZE_WHITESPACE
        name      image          classes  parameters  GMACs
        resnet18  224 x 224 x 3    1,000  11,689,512   1.81
        0
    """
    try:
        code = _run(arguments, program, own_process)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        _give_up_stdout()
        return 0
    except OSError:
        try:
            print(flush=True)  # which fails too if it was stdout that failed
        except OSError as error:
            print(f"{program}: standard output: {error.strerror}", file=sys.stderr)
            _give_up_stdout()
            return 2
        raise


def _give_up_stdout() -> None:
    """Otherwise Python would print an error when it closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str], program: str, own_process: bool) -> int:
    if arguments == ["--version"]:
        print(f"flax_resnets {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments == ["train"]:
        arguments = ["train", "--help"]  # which lists the recipes
    try:
        parsed = parse(arguments, program)
        parsed.own_process = own_process
        with quiet(parsed.quiet):
            return _module(arguments[0]).run(parsed) or 0
    except SystemExit:  # --help has been printed
        return 0
    except ModuleNotFoundError as error:
        raise UserError(f"{arguments[0]}: {error}; {_remedy(arguments[0], error)}") from None


def parse(arguments: list[str], program: str = "flax_resnets") -> argparse.Namespace:
    """Parses a command line into the namespace that the command gets.

    Args:
        arguments: as in `main`.
        program: as in `main`.

    Raises:
        UserError: there is no such command, or it does not accept these arguments.
        SystemExit: `--help` was given, and has been printed.

    Example:
        >>> parse(["train", "--config", "quickstart", "--config.epochs=1"]).overrides
        {'epochs': '1'}
    """
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(f"{command}: no such command; {nearest(command, COMMANDS)}")
    module, parser = _module(command), Parser(command, program)
    parser.description = module.__doc__
    module.add_arguments(parser)
    parsed = parser.parse(rest)
    parsed.program, parsed.arguments, parsed.own_process = program, rest, False
    return parsed


def _module(command: str) -> Any:
    return importlib.import_module(f"flax_resnets.cli.{command.replace('-', '_')}")


def _remedy(command: str, error: ModuleNotFoundError) -> str:
    if (error.name or "").partition(".")[0] in ("jax", "jaxlib", "flax", "einops"):
        return "the package needs it: pip install flax_resnets"
    return f"{command} needs it: pip install 'flax_resnets[train]', or in a checkout pip install -e '.[train]'"


def usage() -> str:
    """The help text: how to begin, and a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: flax-resnets COMMAND [arguments], or python -m flax_resnets COMMAND; COMMAND --help lists them",
        "       flax-resnets --version",
        "",
    ]
    lines += ["to begin:", *(f"    {line}" for line in FIRST_STEPS)]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:", *(f"    {name:<{width}}  {what}" for name, what in commands.items())]
    return "\n".join(lines)
