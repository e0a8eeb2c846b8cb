"""The differences between a source of weights and a network, collected for one error message."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flax_resnets.errors import UserError

# A message has at most so many characters, whatever a file holds: it must be read at a glance.
LONGEST_MESSAGE = 600

_LONGEST_LABEL = 160
_LONGEST_NAME = 80


class Misfit(UserError):
    """Weights that do not fit a network.

    Attributes:
        mismatch: all differences.
    """

    def __init__(self, label: str, mismatch: "Mismatch"):
        super().__init__(mismatch.in_words(label))
        self.mismatch = mismatch


@dataclass
class Mismatch:
    """The tensors that do not fit.

    Attributes:
        missing: names that the network has and the source has not.
        extra: names that the source has and the network has not.
        misshaped: names, each with its shape and the shape that it should have.
        unfit: names of tensors whose values cannot be weights, each with the reason.
        cause: what is probably wrong, and what would be right, if that is known. The second may be empty.

    Example:
        >>> Mismatch(missing=["fc.bias"], extra=["head.bias"]).raise_if_any("a.npz")
        Traceback (most recent call last):
        ...
        flax_resnets.weights.mismatch.Misfit: a.npz: does not fit the model: 1 missing: 'fc.bias'; 1 extra: 'head.bias'
    """

    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    cause: tuple[str, str] | None = None

    def __bool__(self) -> bool:
        """Whether anything does not fit."""
        return bool(self.missing or self.extra or self.misshaped or self.unfit)

    def raise_if_any(self, label: str) -> None:
        """Raises one error if there is any difference.

        Raises:
            Misfit: in one line that begins with `label`.
        """
        if self:
            raise Misfit(label, self)

    def in_words(self, label: str, network: str = "the model", remedy: bool = True) -> str:
        """The numbers of differences, the first of each kind, and their cause, in at most 600 characters.

        Args:
            label: what the message begins with; of a long one the end is kept.
            network: how the message calls the network.
            remedy: whether to say what would be right.
        """
        label = short_label(label)
        kinds = {
            "missing": [shown_name(name) for name in self.missing],
            "extra": [shown_name(name) for name in self.extra],
            "misshaped": self.misshaped,
            "unfit": self.unfit,
        }
        text = ""
        for most in (3, 2, 1):
            parts = [f"{len(notes)} {kind}: {listed(sorted(notes), most)}" for kind, notes in kinds.items() if notes]
            if self.cause:
                parts.append(": ".join(filter(None, self.cause)) if remedy else self.cause[0])
            text = f"{label}: does not fit {network}: {'; '.join(parts)}"
            if len(text) <= LONGEST_MESSAGE:
                break
        return cut(text)


def short_label(label: str) -> str:
    """What a message begins with, a path or a name; of a long one the end.

    Example:
        >>> len(short_label("x/" * 1000))
        160
    """
    return label if len(label) <= _LONGEST_LABEL else f"...{label[3 - _LONGEST_LABEL :]}"


def shown_name(name: str) -> str:
    """A tensor's name in quotes. Names come from the file and may have any length.

    Example:
        >>> print(shown_name("fc.bias"), len(shown_name("x" * 1000)))
        'fc.bias' 80
    """
    text = repr(name[:_LONGEST_NAME])
    return text if len(text) <= _LONGEST_NAME and len(name) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 4]}...'"


def listed(notes: Sequence[str], most: int = 3) -> str:
    """The first notes, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    more = f" and {len(notes) - most} more" if len(notes) > most else ""
    return ", ".join(notes[:most]) + more


def cut(text: str) -> str:
    """The text, cut to the longest message that is allowed."""
    return text if len(text) <= LONGEST_MESSAGE else f"{text[: LONGEST_MESSAGE - 4]} ..."
