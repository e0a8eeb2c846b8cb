"""A tensor of which the name, shape and dtype are known, but whose numbers have not been read."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# dtypes in which weights may be stored. float32 holds float16 and bfloat16 exactly; float64 is rounded to it.
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Stored:
    """A tensor whose numbers have not been read yet.

    A file may claim any size. The shapes are compared with the network's first, and only tensors that fit are read. So
    a file cannot make a program allocate more memory than the network needs.

    Attributes:
        shape: shape of the tensor in torch.
        dtype: name of the dtype, such as `float32`.
        read: returns the numbers, in that shape and in a dtype that numpy can convert to float32. Raises `UserError` if
            the file is damaged.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]
