"""Compiles ResNet-50's training step for 8 to 1024 TPU chips, 256 images on each; writes the table of docs/scale.md.

    python -m benchmarks.speed.scale
    python -m benchmarks.speed.scale --only v5e:8x8 v5p:4x4x4
    python -m benchmarks.speed.scale --page
    python -m benchmarks.speed.scale --check

No TPU is needed: `pip install -e ".[train,tpu]"` installs the compiler. A step takes minutes to compile; the smallest
slices come first. Each result is written to results/scale.json at once, and results in that file are not compiled
again.

The prose of docs/scale.md stands in the page itself; this script writes only the part between the two markers. `--page`
compiles nothing and writes this part from the kept results. `--check` writes nothing and exits with 1 if this part is
not up to date.
"""

import argparse
import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.records.pages import with_generated
from benchmarks.records.results import read_json
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.tpu.chips import parse_topology

ROOT = Path(__file__).resolve().parents[2]

RECIPE = "rn50_imagenet"
IMAGES_PER_CHIP = 256


class Target(NamedTuple):
    """A number of slices to compile for.

    Attributes:
        topology: of one slice.
        slices: number of slices.
    """

    topology: str
    slices: int = 1

    @property
    def name(self) -> str:
        """The name in the table and in results/scale.json."""
        return self.topology if self.slices == 1 else f"{self.slices} slices of {self.topology}"

    @property
    def chips(self) -> int:
        """The number of chips in all slices."""
        return self.slices * parse_topology(self.topology).devices

    @property
    def generation(self) -> str:
        """The TPU generation, such as `v5e`."""
        return self.topology.partition(":")[0]


# By generation, each from 8 chips up. A slice of v5e or v6e has at most 256 chips, so 1024 chips are four slices.
TARGETS = (
    *(Target("v5e:2x4"), Target("v5e:8x8"), Target("v5e:16x16"), Target("v5e:16x16", 4)),
    *(Target("v6e:2x4"), Target("v6e:8x8"), Target("v6e:16x16"), Target("v6e:16x16", 4)),
    *(Target("v5p:2x2x2"), Target("v5p:4x4x4"), Target("v5p:4x8x8"), Target("v5p:8x8x16")),
)


def compile_for(target: Target) -> dict[str, Any]:
    """The compiler's figures for a target, with the versions of jax and libtpu."""
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.tpu.compile_only import compile_only

    config = load_config(ROOT / "configs" / f"{RECIPE}.py")
    config = dataclasses.replace(config, batch_size=IMAGES_PER_CHIP * target.chips)
    versions = {name: version(name) for name in ("jax", "libtpu")}
    return {**compile_only(config, target.topology, target.slices), "slices": target.slices, "versions": versions}


def generated(results: dict[str, dict[str, Any]]) -> str:
    """The table of docs/scale.md, and the figures below it.

    Args:
        results: the results of `compile_for`, by `Target.name`.
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
    return "\n".join([*lines, "", *_findings(results), f"Compiled by {'; '.join(versions)}."])


def _findings(results: dict[str, dict[str, Any]]) -> list[str]:
    """The range of temporary memory relative to 8 chips: one line for single slices and one for several slices."""
    first = {target.generation: target.name for target in reversed(TARGETS)}
    lines = []
    for where, several in (("Within a slice", False), ("Over several slices", True)):
        ratios, all_reduces = [], set()
        for target in TARGETS:
            row, base = results.get(target.name), results.get(first[target.generation])
            if (target.slices > 1) == several and row and base and row["fits"] and base["fits"]:
                ratios.append(row["temp_bytes"] / base["temp_bytes"])
                all_reduces.add(row["all_reduces"])
        if ratios:
            counts = ", ".join(map(str, sorted(all_reduces)))
            lines.append(f"{where}: temporary memory {min(ratios):.4f} to {max(ratios):.4f}, {counts} all-reduces.")
            lines.append("")
    return lines


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [target.name for target in TARGETS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="TPUS", help=f"of {', '.join(names)}")
    parser.add_argument("--page", action="store_true", help="compile nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 if docs/scale.md is out of date")
    parsed = parser.parse_args(arguments)
    kept, path = root / "results" / "scale.json", root / "docs" / "scale.md"
    try:
        results: dict[str, dict[str, Any]] = read_json(kept) if kept.exists() else {}
        if parsed.check:
            if with_generated(path, generated(results)) == path.read_text():
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
        path.write_text(with_generated(path, generated(results)))
    except (UserError, OSError) as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
