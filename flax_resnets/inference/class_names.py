"""Names of classes: in words where a dataset numbers them, and as a user gives them."""

import csv
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from flax_resnets.errors import UserError

_MOST_BYTES = 10_000_000

IMAGENETTE: Mapping[str, str] = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
"""Imagenette's classes by their WordNet identifiers, by which the dataset names them."""


def _imagenet() -> dict[str, str]:
    text = (resources.files("flax_resnets.inference") / "imagenet.csv").read_text(encoding="utf-8")
    return dict(list(csv.reader(text.splitlines()))[1:])


IMAGENET: Mapping[str, str] = _imagenet()
"""The 1,000 classes of ILSVRC 2012, in the order of their labels: WordNet identifiers, and the synsets' words.

Both are WordNet's; its licence is in WORDNET_LICENSE.
"""

TABLES: Sequence[Mapping[str, str]] = (IMAGENETTE, IMAGENET)
"""Tables from the names in a dataset to words. To add one: a table, and its name here."""


def in_words(name: str) -> str:
    """The words for a class that its dataset names by an identifier; any other name as it is.

    Example:
        >>> in_words("n01440764"), in_words("Sneaker")
        ('tench', 'Sneaker')
    """
    return next((table[name] for table in TABLES if name in table), name)


def normalised(name: str) -> str:
    """The name in the form in which names are compared (NFC): macOS takes a file's letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def by_name(names: Iterable[str]) -> dict[str, list[int]]:
    """The numbers of the classes of each name, which is `normalised`.

    Example:
        >>> by_name(["crane", "hen", "crane"])
        {'crane': [0, 2], 'hen': [1]}
    """
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(normalised(name), []).append(number)
    return numbers


def ambiguous(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Says that several classes have the words that a user or a dataset gives."""
    which = ", ".join(f"{names[number][:50]!r} ({number})" for number in numbers[:3])
    return f"{len(numbers)} classes have these words: {which}"


def given_names(text: str) -> tuple[str, ...]:
    """The class names that a command line gives: a file with a name in each line, or names with commas between.

    Args:
        text: the file's path, or the names.

    Raises:
        UserError: the file cannot be read, or there is no name.

    Example:
        >>> given_names("cat, dog")
        ('cat', 'dog')
    """
    path = os.path.expanduser(text)
    if not os.path.exists(path):
        if "," not in text:
            raise UserError(f"--class-names={text[:100]}: no such file; name one, or give the names as a,b,c")
        names = text.split(",")
    else:
        try:
            if not os.path.isfile(path):
                raise ValueError("is no file")
            if os.path.getsize(path) > _MOST_BYTES:
                raise ValueError("is too large for a list of names")
            names = Path(path).read_text(encoding="utf-8-sig").splitlines()  # Windows' editors begin a file with a mark
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"--class-names={text[:100]}: {reason}; must be a text file, a name in each line") from None
    names = tuple(name.strip() for name in names if name.strip())
    if not names:
        raise UserError(f"--class-names={text[:100]}: holds no name")
    return names
