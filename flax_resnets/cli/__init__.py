"""The command line `python -m flax_resnets <command>`: which commands there are, and what becomes of a mistake.

A command is a line in `COMMANDS` and a module of its name here (`lr-find` is `lr_find.py`) with two functions:
`add_arguments(parser)`, and `run(arguments)` for the parsed namespace, which prints, or raises `UserError`. The module
is imported when its command is called, so a command may need what others do without.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from flax_resnets.errors import UserError

COMMANDS = {
    "summary": "a network's layers: output shapes, parameters, multiply-adds",
    "models": "the networks there are, with parameters and GMACs",
    "show-batch": "what a recipe's network is shown in a step, as a picture",
    "lr-find": "learning rates to try for a recipe, from a short run at a rising one",
    "bench": "speed against a plain linen ResNet and torchvision, as ratios",
}


def main(arguments: list[str]) -> int:
    """Runs one command line.

    Args:
        arguments: what follows `python -m flax_resnets`.

    Returns:
        The exit code: 0; 2 for a mistake in the arguments, which is named in one line on stderr; 130 after Ctrl-C.

    Example:
        >>> main(["models", "resnet18"])  # doctest: +NORMALIZE_WHITESPACE
        name      image          classes  parameters  GMACs
        resnet18  224 x 224 x 3    1,000  11,689,512   1.81
        0
    """
    try:
        _run(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"flax_resnets: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("flax_resnets: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read has read enough, as `head` does; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    command, *rest = arguments
    if command not in COMMANDS:
        raise UserError(f"{command}: no such command; {_nearest(command, COMMANDS)}")
    module = importlib.import_module(f"flax_resnets.cli.{command.replace('-', '_')}")
    parser = Parser(command, module.__doc__ or "")
    module.add_arguments(parser)
    try:
        parsed = parser.parse(rest)
    except SystemExit:  # --help has been printed
        return
    module.run(parsed)


def usage() -> str:
    """The help text, with a line for each command."""
    width = max(map(len, COMMANDS))
    commands = [f"    {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    first = "usage: python -m flax_resnets <command> [arguments]; <command> --help tells which"
    return "\n".join([first, "", *commands])


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are `UserError`s, with the nearest flag for one it does not know.

    Args:
        command: the command's name.
        description: what it does.
    """

    def __init__(self, command: str, description: str):
        self._command = command
        self._flags: list[str] = []
        self._prefix: str | None = None
        super().__init__(
            prog=f"python -m flax_resnets {command}",
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """As argparse's; remembers the flags."""
        self._flags += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **options)

    def add_overrides(self, prefix: str) -> None:
        """Lets any flag follow that begins so, as `--config.FIELD=VALUE`: `overrides` is a dict of FIELD to VALUE."""
        self._prefix = prefix

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """The arguments as a namespace.

        Raises:
            UserError: there are others than the command takes, too few, or one with a value it cannot have.
            SystemExit: one was `--help`, which is printed.
        """
        overrides: dict[str, str] = {}
        if self._prefix:
            own = [argument for argument in arguments if argument.startswith(self._prefix)]
            arguments = [argument for argument in arguments if argument not in own]
            for argument in own:
                flag, equals, value = argument.partition("=")
                if not equals:
                    self.error(f"{flag}: write {flag}=VALUE")
                overrides[flag.removeprefix(self._prefix)] = value
        parsed, unknown = self.parse_known_args(arguments, argparse.Namespace(overrides=overrides))
        if unknown:
            flag, equals, value = unknown[0].partition("=")
            following = unknown[1] if len(unknown) > 1 and not unknown[1].startswith("--") else None
            meant = _meant_override(flag, value if equals else following) if self._prefix else None
            self.error(f"{flag}: not understood; {meant or _nearest(flag, self._flags)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        raise UserError(f"{self._command}: {message.removeprefix('argument ')}")


def whole_number(least: int) -> Any:
    """An argument's `type`: whole numbers from `least` up.

    Example:
        >>> whole_number(1)("12")
        12
    """

    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 100 and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from {least} up")

    return parse


def _meant_override(flag: str, value: str | None) -> str | None:
    from flax_resnets.training.config import as_override  # imported for commands that take a recipe alone

    meant = as_override(flag, value)
    return meant and f"did you mean {meant}?"


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else "see --help"
