"""The error that every mistake of a user raises, and how a command line prints warnings."""

import sys
import warnings
from pathlib import Path
from typing import Any

# Of a longer word its ends are shown: a message is to stay below 600 characters.
_LONGEST_WORD = 300


class UserError(ValueError):
    r"""A mistake in what the user asked for or supplied: a flag, a config field, a file.

    The message is one line that names the field or file, its value, and what would be right. The command line
    prints that line to stderr and exits with code 2; a traceback would only hide it.

    The message may contain values from command lines and files. White space becomes single spaces, and other characters
    that cannot be printed are escaped as in Python, so that no value can break the line or control the terminal. Of a
    word of more than 300 characters the ends are shown.

    Example:
        >>> raise UserError("batch_size=0: must be at least 1")
        Traceback (most recent call last):
        ...
        flax_resnets.errors.UserError: batch_size=0: must be at least 1
        >>> str(UserError("model=\x1b[31mred\n: no such model"))
        'model=\\x1b[31mred : no such model'
    """

    def __init__(self, message: str):
        super().__init__(" ".join(_shown(word) for word in message.split()))


def _shown(word: str) -> str:
    if len(word) > _LONGEST_WORD:
        word = f"{word[:120]}...({len(word)} characters)...{word[-80:]}"
    return printable(word)


def short(value: Any) -> str:
    """A value that anybody may have written, for a message: its first 100 characters."""
    return str(value)[:100]


def printable(text: str) -> str:
    r"""The text with characters that cannot be printed escaped as in Python, so that none can control a terminal.

    Example:
        >>> print(printable("a\x1b[31m b"))
        a\x1b[31m b
    """
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def plain_warnings(program: str) -> None:
    """Makes Python print each warning as one line on stderr, without a line of source code.

    This changes the whole process, so only a command line calls it. The line of a warning from another package also
    names the warning's class, file and line number.
    """
    package = str(Path(__file__).parent)

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> None:
        origin = "" if filename.startswith(package) else f" ({category.__name__} at {filename}:{lineno})"
        print(f"{program}: {UserError(f'{message}{origin}')}", file=sys.stderr)

    warnings.showwarning = show
