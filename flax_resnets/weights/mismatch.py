"""The differences between a source of weights and a network, collected for one error message."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flax_resnets.errors import UserError

# Above the number of a ResNet-152's tensors, so only a file that was made to be hostile has a list that is cut short.
_LISTED = 1000
_LISTED_IN_SHORT = 2


class Misfit(UserError):
    """Weights that do not fit a network.

    Attributes:
        short: the message with only the first differences of each kind, and their number.
    """

    def __init__(self, message: str, short: str):
        super().__init__(message)
        self.short = short


@dataclass
class Mismatch:
    """The tensors that do not fit.

    Attributes:
        missing: names that the network has and the source has not.
        extra: names that the source has and the network has not.
        misshaped: names, each with its shape and the shape that it should have.
        unfit: names of tensors whose values cannot be weights, each with the reason.
        advice: what is wrong and what would be right, if that is known. The short message has only the first.

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
    advice: tuple[str, str] | None = None

    def raise_if_any(self, label: str) -> None:
        """Raises one error if there is any difference.

        Raises:
            Misfit: with all differences, in one line that begins with `label`.
        """
        if self.missing or self.extra or self.misshaped or self.unfit:
            wrong, right = (self.advice[0], ": ".join(self.advice)) if self.advice else (None, None)
            raise Misfit(self._in_words(label, _LISTED, right), self._in_words(label, _LISTED_IN_SHORT, wrong))

    def _in_words(self, label: str, most: int, advice: str | None) -> str:
        kinds = {
            "missing": [repr(name) for name in self.missing],
            # Names of arbitrary length, from the file.
            "extra": [repr(name[:80]) for name in self.extra],
            "misshaped": self.misshaped,
            "unfit": self.unfit,
        }
        parts = [f"{len(notes)} {kind}: {_listed(notes, most)}" for kind, notes in kinds.items() if notes]
        parts += [advice] if advice else []
        return f"{label}: does not fit the model: {'; '.join(parts)}"


def _listed(notes: Sequence[str], most: int) -> str:
    more = f" and {len(notes) - most} more" if len(notes) > most else ""
    return ", ".join(sorted(notes)[:most]) + more
