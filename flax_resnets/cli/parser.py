"""The argument parser of all commands: argparse, with errors as `UserError`s that suggest the nearest flag."""

import argparse
import difflib
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from flax_resnets.errors import UserError
from flax_resnets.fields import MOST

_FIELD = "--config."

# argparse's phrases, and the phrases used here. An error raised by an argument's `type` begins with `=` and the value.
_WORDS = {"expected one argument": "needs a value", "ignored explicit argument": "takes no value:", ": =": "="}


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `UserError`, and suggests the nearest flag for an unknown one.

    Args:
        command: name of the command.
        program: as in `flax_resnets.cli.main`.
    """

    def __init__(self, command: str, program: str = "flax_resnets"):
        script = program.endswith(".py")
        self._prefix_of_errors = "" if script else f"{command}: "
        self._takes_fields = self._takes_config = False
        super().__init__(
            prog=f"python {program}" if script else f"flax-resnets {command}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.add_argument("--quiet", action="store_true", help="show no progress; results, notes and errors remain")

    def add_config(self) -> None:
        """Adds `--config`, which is required, and `--config.FIELD=VALUE`.

        In the parsed namespace `overrides` is a dict from FIELD to VALUE.
        """
        self._takes_config = self._takes_fields = True
        self.add_argument(
            "--config",
            metavar="RECIPE",
            help="the name of a recipe that comes with the package, a file such as my_recipe.py, or a run's "
            "config.json; --config.FIELD=VALUE changes one field of it",
        )

    def add_fields(self) -> None:
        """Adds `--config.FIELD=VALUE` alone, for a command without a recipe; see `add_config`."""
        self._takes_fields = True

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Parses the arguments into a namespace.

        Raises:
            UserError: an argument is unknown, missing, or has a value that is not allowed.
            SystemExit: `--help` was given, and has been printed.
        """
        overrides: dict[str, str] = {}
        rest = []
        for argument in arguments:
            if not (self._takes_fields and argument.startswith(_FIELD)):
                rest.append(self._as_spelt(argument))
                continue
            flag, equals, value = argument.partition("=")
            if not equals:
                self.error(f"{flag}: write {flag}=VALUE")
            overrides[flag.removeprefix(_FIELD)] = value
        parsed, unknown = self.parse_known_args(rest, argparse.Namespace(overrides=overrides))
        if unknown:
            flag, equals, value = unknown[0].partition("=")
            following = unknown[1] if len(unknown) > 1 and not unknown[1].startswith("--") else None
            flags = [name for action in self._actions for name in action.option_strings]
            meant = _meant_override(flag, value if equals else following) if self._takes_config else None
            if not flag.startswith("-"):
                self.error(f"takes no further argument: {unknown[0]!r}; {meant or 'see --help'}")
            self.error(f"{flag}: no such flag; {meant or nearest(flag, flags)}")
        if self._takes_config and not parsed.config:
            self.error("--config=RECIPE is needed; `flax-resnets train` lists the recipes")
        return parsed

    def _as_spelt(self, argument: str) -> str:
        """The argument with its flag as the parser spells it: `--data-dir` and `--data_dir` mean the same."""
        flag, equals, value = argument.partition("=")
        for action in self._actions:
            for name in action.option_strings:
                if name.replace("_", "-") == flag.replace("_", "-"):
                    return f"{name}{equals}{value}"
        return argument

    def error(self, message: str) -> NoReturn:
        """Raises the message as a `UserError`."""
        for theirs, ours in _WORDS.items():
            message = message.replace(theirs, ours, 1)
        raise UserError(f"{self._prefix_of_errors}{message.removeprefix('argument ')}")


def whole_number(least: int, most: int = MOST) -> Any:
    """A `type` for arguments that are whole numbers from `least` to `most`.

    Example:
        >>> whole_number(1)("12")
        12
    """

    def parse(text: str) -> int:
        if text.isascii() and text.isdecimal() and len(text) < 100 and least <= int(text) <= most:
            return int(text)
        right = f"from {least} up" if most == MOST else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"={text}: must be a whole number {right}")

    return parse


def share(text: str) -> float:
    """A `type` for arguments that are shares, above 0 and up to 1.

    Example:
        >>> share("0.875")
        0.875
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if 0 < value <= 1:
        return value
    raise argparse.ArgumentTypeError(f"={text}: must be above 0 and up to 1")


def _meant_override(flag: str, value: str | None) -> str | None:
    # Imported here, because it imports JAX.
    from flax_resnets.training.recipes import as_override

    meant = as_override(flag, value)
    return meant and f"did you mean {meant}?"


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint to add to the error about an unknown word."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]}?" if close else "see --help"
