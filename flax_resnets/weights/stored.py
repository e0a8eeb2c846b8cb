"""A tensor in a file: what is known of it before its numbers are read."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# What weights are stored in; the wider ones are rounded to float32, which holds the narrower ones exactly.
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Stored:
    """A tensor whose numbers have not been read yet.

    A file may claim any size. Shapes are therefore compared with the network's first, and only what fits is read, so
    that no file makes a program allocate more than the network itself has.

    Attributes:
        shape: as torch has it.
        dtype: name of the dtype, such as `float32`.
        read: gives the numbers, with that shape, in a dtype that numpy can cast to float32. Raises `UserError` where
            the file turns out to be damaged.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
