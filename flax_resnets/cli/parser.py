"""The parser of all commands: argparse's, whose complaints are `UserError`s that name the nearest flag."""

import argparse
import difflib
from collections.abc import Iterable
from typing import Any, NoReturn

from flax_resnets.errors import UserError

_FIELD = "--config."

# argparse's words, and the ones for them here. What a `type` raises begins with the value's `=`.
_WORDS = {"expected one argument": "needs a value", "ignored explicit argument": "takes no value:", ": =": "="}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are `UserError`s, with the nearest flag for one it does not know.

    Args:
        command: the command's name.
        program: as `main`'s.
    """

    def __init__(self, command: str, program: str = "flax_resnets"):
        script = program.endswith(".py")
        self._prefix_of_errors = "" if script else f"{command}: "
        self._takes_config = False
        super().__init__(
            prog=f"python {program}" if script else f"flax-resnets {command}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_config(self) -> None:
        """Adds `--config`, which must be given, and `--config.FIELD=VALUE`: `overrides` is a dict of FIELD to VALUE."""
        self._takes_config = True
        self.add_argument(
            "--config",
            metavar="RECIPE",
            help="the name of a recipe that comes with the package, a file such as my_recipe.py, or a run's "
            "config.json; --config.FIELD=VALUE changes one field of it",
        )

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """The arguments as a namespace.

        Raises:
            UserError: there are others than the command takes, too few, or one with a value it cannot have.
            SystemExit: one was `--help`, which is printed.
        """
        overrides: dict[str, str] = {}
        rest = []
        for argument in arguments:
            if not (self._takes_config and argument.startswith(_FIELD)):
                rest.append(argument)
                continue
            flag, equals, value = argument.partition("=")
            if not equals:
                self.error(f"{flag}: write {flag}=VALUE")
            overrides[flag.removeprefix(_FIELD)] = value
        parsed, unknown = self.parse_known_args(rest, argparse.Namespace(overrides=overrides))
        if unknown:
            flag = unknown[0].partition("=")[0]
            flags = [name for action in self._actions for name in action.option_strings]
            self.error(f"{flag}: no such flag; {nearest(flag, flags)}")
        if self._takes_config and not parsed.config:
            self.error("--config=RECIPE is needed; `flax-resnets train` lists the recipes")
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        for theirs, ours in _WORDS.items():
            message = message.replace(theirs, ours, 1)
        raise UserError(f"{self._prefix_of_errors}{message.removeprefix('argument ')}")


def whole_number(least: int) -> Any:
    """An argument's `type`: whole numbers from `least` up.

    Example:
        >>> whole_number(1)("12")
        12
    """

    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 100 and int(text) >= least:
            return int(text)
        raise argparse.ArgumentTypeError(f"={text}: must be a whole number from {least} up")

    return parse


def nearest(word: str, known: Iterable[str]) -> str:
    """What to say of a word that is not known."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else "see --help"
