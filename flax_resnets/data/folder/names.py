"""Many file names in little memory."""

import os
from collections.abc import Iterable, Iterator

import numpy as np


class Names:
    """Names in one `bytes` object: a list of 100,000 takes about 10 MB more.

    Attributes:
        blob: all names, one after the other, as the file system has them.
        ends: int64 `(N,)`: where each name ends in `blob`.

    Example:
        >>> names = Names(["cat/1.jpg", "dog/2.jpg"])
        >>> len(names), names[1], names[-1]
        (2, b'dog/2.jpg', b'dog/2.jpg')
    """

    def __init__(self, names: Iterable[str | bytes] = ()):
        encoded = [os.fsencode(name) for name in names]
        self.blob = b"".join(encoded)
        self.ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:
        index = range(len(self))[index]
        return self.blob[self.ends[index - 1] if index else 0 : self.ends[index]]

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for end in self.ends.tolist():
            yield self.blob[start:end]
            start = end

    def take(self, indices: np.ndarray) -> "Names":
        """The names with these indices, in this order."""
        names = list(self)
        return Names(names[index] for index in indices.tolist())
