"""Compiles ResNet-50's training step for 8 to 1024 TPU chips, 256 images on each, and writes docs/scale.md.

    python -m benchmarks.speed.scale
    python -m benchmarks.speed.scale --only v5e:8x8 v5p:4x4x4
    python -m benchmarks.speed.scale --page
    python -m benchmarks.speed.scale --check

Needs no TPU: `pip install -e ".[train,tpu]"` brings the compiler. A step takes minutes to compile, the smallest slices
come first, and each result is kept in results/scale.json as it comes: what is there already is not compiled again.

`--page` compiles nothing and writes the page from what is kept; `--check` writes nothing either, and exits with 1 where
the page is not what would be written.
"""

import argparse
import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.records.results import read_json
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.tpu.chips import parse_topology

ROOT = Path(__file__).resolve().parents[2]

RECIPE = "rn50_imagenet"
IMAGES_PER_CHIP = 256


class Target(NamedTuple):
    """Chips to compile for.

    Attributes:
        topology: of a slice.
        slices: how many of them.
    """

    topology: str
    slices: int = 1

    @property
    def name(self) -> str:
        """As the table has it, and results/scale.json."""
        return self.topology if self.slices == 1 else f"{self.slices} slices of {self.topology}"

    @property
    def chips(self) -> int:
        """Of all slices."""
        return self.slices * parse_topology(self.topology).devices

    @property
    def generation(self) -> str:
        """Such as `v5e`."""
        return self.topology.partition(":")[0]


# By generation, each from 8 chips up. A slice of v5e or v6e has 256 chips at most: 1024 are four of them.
TARGETS = (
    *(Target("v5e:2x4"), Target("v5e:8x8"), Target("v5e:16x16"), Target("v5e:16x16", 4)),
    *(Target("v6e:2x4"), Target("v6e:8x8"), Target("v6e:16x16"), Target("v6e:16x16", 4)),
    *(Target("v5p:2x2x2"), Target("v5p:4x4x4"), Target("v5p:4x8x8"), Target("v5p:8x8x16")),
)

_HEADER = f"""\
# One step on more and more chips

Written by `python -m benchmarks.speed.scale` from `results/scale.json`: the training step of `configs/{RECIPE}.py`
(ResNet-50, 224 px, bfloat16, BatchNorm over the whole batch), {IMAGES_PER_CHIP} images a chip, compiled for TPUs that
are not here. It was run on none of them. Figures are the compiler's, for one chip and one step.

Temporary memory is what the step needs beside arguments (weights, optimizer state, the batch) and results; the ratio is
to the generation's 8 chips. A slice of v5e or v6e has 256 chips at most: 1024 are four slices, which meet over the data
centre's network. Compilations took what they took on two cores that had other work.

Over several slices libtpu 0.0.52 gives no fusion a second output. Within one, a convolution hands BatchNorm's sums over
beside its image; over several, each sum reads the image again, and both stay in memory for longer. It is so over two
slices already, and for two convolutions with a norm between them; of eight options of the compiler none brought it
back. With `batch_norm=device` the step needs 10.3 GB over two slices of v5e:2x2, but moves as much: 116.5 GB.
"""


def compile_for(target: Target) -> dict[str, Any]:
    """What the compiler says of a target, with the versions that said it."""
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.tpu.compile_only import compile_only

    config = load_config(ROOT / "configs" / f"{RECIPE}.py")
    config = dataclasses.replace(config, batch_size=IMAGES_PER_CHIP * target.chips)
    versions = {name: version(name) for name in ("jax", "libtpu")}
    return {**compile_only(config, target.topology, target.slices), "slices": target.slices, "versions": versions}


def page(results: dict[str, dict[str, Any]]) -> str:
    """The text of docs/scale.md.

    Args:
        results: by `Target.name`, what `compile_for` gave.
    """
    header = [
        "TPUs",
        "chips",
        "GB temp",
        "against 8",
        "GB arguments",
        "GB moved",
        "TFLOP",
        "all-reduces",
        "compiled in",
    ]
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    first = {target.generation: target.name for target in reversed(TARGETS)}
    for target in TARGETS:
        row, base = results.get(target.name), results.get(first[target.generation])
        cells = [target.name, f"{target.chips}"]
        if row is None:
            cells += ["not compiled", *[""] * (len(header) - 3)]
        elif not row["fits"]:
            cells += ["does not fit", *[""] * (len(header) - 4), f"{row['compile_seconds']:.0f} s"]
        else:
            cells += [
                f"{row['temp_bytes'] / 1e9:.3f}",
                f"{row['temp_bytes'] / base['temp_bytes']:.4f}" if base and base["fits"] else "",
                *(f"{row[name] / 1e9:.3f}" for name in ("argument_bytes", "bytes_accessed")),
                f"{row['flops'] / 1e12:.3f}",
                f"{row['all_reduces']}",
                f"{row['compile_seconds']:.0f} s",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    versions = sorted({f"jax {row['versions']['jax']}, libtpu {row['versions']['libtpu']}" for row in results.values()})
    return "\n".join([_HEADER, *lines, "", *_findings(results), f"Compiled by {'; '.join(versions)}.", ""])


def _findings(results: dict[str, dict[str, Any]]) -> list[str]:
    """How far the figures are from staying as they are on 8 chips, a line for slices alone and one for several."""
    first = {target.generation: target.name for target in reversed(TARGETS)}
    lines = []
    for where, several in (("Within a slice", False), ("Over several slices", True)):
        ratios, meetings = [], set()
        for target in TARGETS:
            row, base = results.get(target.name), results.get(first[target.generation])
            if (target.slices > 1) == several and row and base and row["fits"] and base["fits"]:
                ratios.append(row["temp_bytes"] / base["temp_bytes"])
                meetings.add(row["all_reduces"])
        if ratios:
            counts = ", ".join(map(str, sorted(meetings)))
            lines.append(f"{where}: temporary memory {min(ratios):.4f} to {max(ratios):.4f}, {counts} all-reduces.")
            lines.append("")
    return lines


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [target.name for target in TARGETS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="TPUS", help=f"of {', '.join(names)}")
    parser.add_argument("--page", action="store_true", help="compile nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 where docs/scale.md is out of date")
    parsed = parser.parse_args(arguments)
    kept, path = root / "results" / "scale.json", root / "docs" / "scale.md"
    try:
        results: dict[str, dict[str, Any]] = read_json(kept) if kept.exists() else {}
        if parsed.check:
            if path.exists() and path.read_text() == page(results):
                return 0
            print("scale.py: docs/scale.md is out of date; --page writes it", file=sys.stderr)
            return 1
        wanted = [] if parsed.page else sorted(TARGETS, key=lambda target: target.chips)
        for target in wanted:
            if target.name in results or target.name not in (parsed.only or names):
                continue
            print(f"compiling for {target.name}", file=sys.stderr, flush=True)
            results[target.name] = compile_for(target)
            print(json.dumps(results[target.name]), flush=True)
            write_whole(kept, (json.dumps(results, indent=2) + "\n").encode())
        path.write_text(page(results))
    except (UserError, OSError) as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
