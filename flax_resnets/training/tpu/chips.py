"""Published figures of TPUs: the shapes a topology can have, and a lower bound for the time of a step."""

import difflib
import math
import re
from typing import Any, NamedTuple

from flax_resnets.errors import UserError


class Chip(NamedTuple):
    """A TPU generation; figures are for one chip.

    Attributes:
        flops_per_second: peak rate in bfloat16.
        memory_bytes: part of the high-bandwidth memory (HBM) that libtpu leaves to programs.
        bytes_per_second: bandwidth between that memory and the chip.
        slices: shapes of slices that can be rented. In generations with three-dimensional shapes only the smaller ones
            are listed: all shapes whose sides are multiples of 4 can be rented too.
        most_chips: largest number of chips in one slice.
        options: options with which libtpu sees the chip as one device.
    """

    flops_per_second: float
    memory_bytes: float
    bytes_per_second: float
    slices: tuple[str, ...]
    most_chips: int
    options: dict[str, str]


_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_DEEP = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8")

# Rates and slices are from "Cloud TPU system architecture", one page a generation: https://cloud.google.com/tpu/docs/v4
# and so on. These pages give v4 and v6e 32 GB of memory, v5e 16 and v5p 95. The part of it that is left to programs is
# the one in the compiler's error for a program that is too large (libtpu 0.0.52). A v4 chip has two cores; `megacore`
# makes them one device, as Cloud TPU does. The cores of a v5p are one device by default.
CHIPS = {
    "v4": Chip(275e12, 30.75 * 2**30, 1200e9, _DEEP, 4096, {"chip_config_name": "megacore"}),
    "v5e": Chip(197e12, 15.75 * 2**30, 819e9, _FLAT, 256, {}),
    "v5p": Chip(459e12, 95.73 * 2**30, 2765e9, _DEEP, 6144, {}),
    "v6e": Chip(918e12, 31.24 * 2**30, 1638e9, _FLAT, 256, {}),
}


class Topology(NamedTuple):
    """A slice of a TPU pod.

    Attributes:
        name: such as `v5e:4x4`.
        generation: a key of `CHIPS`.
        devices: how many chips it has; each is one device to JAX.
    """

    name: str
    generation: str
    devices: int

    @property
    def chip(self) -> Chip:
        """The figures of each of its chips."""
        return CHIPS[self.generation]


def parse_topology(name: str) -> Topology:
    """Parses `GENERATION:SHAPE`.

    Raises:
        UserError: there is no such generation, or it cannot be rented in this shape.

    Example:
        >>> parse_topology("v5e:4x4").devices
        16
    """
    generation, _, shape = name.partition(":")
    known = [f"{each}:{slice_}" for each, chip in CHIPS.items() for slice_ in chip.slices]
    if generation in CHIPS and re.fullmatch(r"[1-9][0-9]{0,3}(x[1-9][0-9]{0,3})+", shape):
        chip, sides = CHIPS[generation], [int(side) for side in shape.split("x")]
        whole_cubes = len(sides) == 3 and chip.slices is _DEEP and all(side % 4 == 0 for side in sides)
        if shape in chip.slices or (whole_cubes and math.prod(sides) <= chip.most_chips):
            return Topology(name, generation, math.prod(sides))
    if generation in CHIPS:
        known = [each for each in known if each.startswith(f"{generation}:")]
    longer = [each for each in known if ":" in name and each.startswith(name)]
    close = longer or difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    hint = f"; did you mean {close[0]}?" if close else ""
    if generation in CHIPS:
        chip = CHIPS[generation]
        more = f" or sides that are multiples of 4, up to {chip.most_chips} chips" if chip.slices is _DEEP else ""
        raise UserError(f"--topology={name}: {generation} comes as {', '.join(chip.slices)}{more}{hint}")
    raise UserError(f"--topology={name}: must be {', '.join(CHIPS)} and a shape, such as v5e:4x4 or v5p:2x2x1{hint}")


def roofline(flops: float, bytes_accessed: float, chip: Chip) -> dict[str, Any]:
    """The least time that a program's arithmetic and its memory traffic take at the chip's published rates.

    Williams, Waterman and Patterson 2009, "Roofline", doi:10.1145/1498765.1498785. It is an estimate: no program
    reaches either rate, all-reduces are not included, and the compiler counts some bytes that never leave the chip.

    Args:
        flops: of the program on one device.
        bytes_accessed: of the program on one device.
        chip: the device.

    Returns:
        `compute_seconds`, `memory_seconds`, `step_seconds` (the longer of the two), and `bound` (its name).

    Example:
        >>> roofline(flops=197e12, bytes_accessed=2 * 819e9, chip=CHIPS["v5e"])
        {'compute_seconds': 1.0, 'memory_seconds': 2.0, 'step_seconds': 2.0, 'bound': 'memory'}
    """
    compute, memory = flops / chip.flops_per_second, bytes_accessed / chip.bytes_per_second
    return {
        "compute_seconds": compute,
        "memory_seconds": memory,
        "step_seconds": max(compute, memory),
        "bound": "compute" if compute >= memory else "memory",
    }
