"""How many steps the host may start before the devices have computed them."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import jax

# Steps that may be running or queued on the devices: enough that the devices never wait for the host, and few enough
# that batches do not pile up in device memory.
AHEAD = 2

WAIT = "wait for devices"  # in a trace of the profiler

Output = TypeVar("Output")


def each_computed(outputs: Iterable[Output]) -> Iterator[Output]:
    """Yields each step's output once it is computed; by then the next `AHEAD` steps have been started.

    Args:
        outputs: outputs (trees of arrays); taking one from the iterable starts its step.

    Example:
        >>> square = jax.jit(lambda x: x * x)
        >>> [int(output) for output in each_computed(square(x) for x in range(4))]
        [0, 1, 4, 9]
    """
    under_way: deque[Output] = deque()
    for output in outputs:
        under_way.append(output)
        if len(under_way) > AHEAD:
            with jax.profiler.TraceAnnotation(WAIT):
                output = jax.block_until_ready(under_way.popleft())
            yield output
    for output in under_way:
        yield jax.block_until_ready(output)
