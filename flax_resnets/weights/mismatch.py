"""The differences between a source of weights and a network, collected for one error message."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flax_resnets.errors import UserError

# Above the number of a ResNet-152's tensors, so only a file that was made to be hostile has a list that is cut short.
_LISTED = 1000


@dataclass
class Mismatch:
    """The tensors that do not fit.

    Attributes:
        missing: names that the network has and the source has not.
        extra: names that the source has and the network has not.
        misshaped: names, each with its shape and the shape that it should have.
        unfit: names of tensors whose values cannot be weights, each with the reason.
        advice: what would be right, if that is known.

    Example:
        >>> Mismatch(missing=["fc.bias"], extra=["head.bias"]).raise_if_any("a.npz")
        Traceback (most recent call last):
        ...
        flax_resnets.errors.UserError: a.npz: does not fit the model: 1 missing: 'fc.bias'; 1 extra: 'head.bias'
    """

    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    advice: str = ""

    def raise_if_any(self, label: str) -> None:
        """Raises one error if there is any difference.

        Raises:
            UserError: with all differences, in one line that begins with `label`.
        """
        kinds = {
            "missing": [repr(name) for name in self.missing],
            # Names of arbitrary length, from the file.
            "extra": [repr(name[:80]) for name in self.extra],
            "misshaped": self.misshaped,
            "unfit": self.unfit,
        }
        parts = [f"{len(notes)} {kind}: {_listed(notes)}" for kind, notes in kinds.items() if notes]
        if parts:
            parts += [self.advice] if self.advice else []
            raise UserError(f"{label}: does not fit the model: {'; '.join(parts)}")


def _listed(notes: Sequence[str]) -> str:
    more = f" and {len(notes) - _LISTED} more" if len(notes) > _LISTED else ""
    return ", ".join(sorted(notes)[:_LISTED]) + more
