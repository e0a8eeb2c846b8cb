"""How far the host runs ahead of the devices."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax

# Steps that may be under way on the devices while the host goes on: enough that they never wait, few enough that
# batches do not pile up in their memory.
AHEAD = 2

Output = TypeVar("Output")


def each_computed(outputs: Iterable[Output]) -> Iterator[Output]:
    """What steps give, each once it is computed; by then the next `AHEAD` have been started.

    Args:
        outputs: trees of arrays, of steps that are started as they are asked for.

    Example:
        >>> square = jax.jit(lambda x: x * x)
        >>> [int(output) for output in each_computed(square(x) for x in range(4))]
        [0, 1, 4, 9]
    """
    under_way: deque[Output] = deque()
    for output in outputs:
        under_way.append(output)
        if len(under_way) > AHEAD:
            yield jax.block_until_ready(under_way.popleft())
    for output in under_way:
        yield jax.block_until_ready(output)
