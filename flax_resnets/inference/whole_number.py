"""Whole numbers that a caller gives, such as the number of images in a step."""

import operator
from typing import Any

from flax_resnets.errors import UserError
from flax_resnets.fields import MOST, shown

MOST_IN_A_STEP = 2**16
"""Images in a step of a trained network: the largest batch that is of use, and at 224 pixels 10 GB."""


def whole_number(name: str, value: Any, most: int = MOST) -> int:
    """The value as an int, of which numpy's are one too.

    Args:
        name: of the argument, for the message.
        value: as the caller gave it.
        most: the largest that is allowed.

    Raises:
        UserError: it is no whole number from 1 up to `most`.

    Example:
        >>> import numpy as np
        >>> whole_number("top_k", np.int64(5))
        5
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if not 1 <= number <= most:
        raise UserError(f"{name}={shown(value)[:100]}: must be a whole number from 1 to {most}")
    return number
