"""Everything in which a source differs from a network, gathered so that one error can tell it all."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flax_resnets.errors import UserError

# More than a ResNet-152 has tensors: what is cut short is no wrong file but a hostile one.
_LISTED = 1000


@dataclass
class Mismatch:
    """What does not fit.

    Attributes:
        missing: names the network has and the source has not.
        extra: names the source has and the network has not.
        misshaped: names with the shape that is and the shape that should be.
        unfit: names of tensors whose numbers cannot be weights, and why.
        advice: what would be right, where that is known.

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
        """Raise the one error, if anything was noted.

        Raises:
            UserError: with every note, in one line that begins with `label`.
        """
        kinds = {
            "missing": [repr(name) for name in self.missing],
            # The only names that a stranger chose: they may be of any length.
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
