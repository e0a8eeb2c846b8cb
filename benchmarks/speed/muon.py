"""Times Muon's directions for a network's kernels against optax's, by turns.

    python -m benchmarks.speed.muon
    python -m benchmarks.speed.muon --models resnet18d --rounds 3

Both compute directions of the same random gradients for the kernels of a network's hidden convolutions; the network
itself is not run. The table also has the largest difference between the two directions of a kernel, divided by their
root mean square.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from flax_resnets import create_model
from flax_resnets.cli.bench.figures import ratios, spread
from flax_resnets.errors import UserError
from flax_resnets.machine import describe_machine
from flax_resnets.training.optimizers.orthogonal import as_large_as_adams, scale_by_muon


def optaxs(momentum: Any) -> optax.GradientTransformation:
    """`scale_by_muon` with optax's arithmetic on every device."""

    def dimensions(kernels: Any) -> Any:
        return jax.tree.map(lambda _: contrib.MuonDimensionNumbers((0, 1, 2), 3), kernels)

    return optax.chain(
        contrib.scale_by_muon(beta=momentum, weight_dimension_numbers=dimensions),
        optax.stateless_with_tree_map(lambda update, _: as_large_as_adams(update)),
    )


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Times both for one network; returns a row of the table."""
    model = create_model(name, num_classes=10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    shapes = [leaf.shape for leaf in jax.tree.leaves(params) if leaf.ndim == 4 and leaf.shape[2] > 3]
    keys = jax.random.split(jax.random.key(1), len(shapes))
    gradients = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    muons = {"ours": scale_by_muon(0.9), "optax": optaxs(0.9)}
    updates = {contender: jax.jit(muon.update) for contender, muon in muons.items()}
    states = {contender: muon.init(gradients) for contender, muon in muons.items()}
    seconds: dict[str, list[float]] = {contender: [] for contender in muons}
    directions = {}
    for turn in range(rounds + 1):
        for contender, update in updates.items():
            started = time.perf_counter()
            directions[contender], _ = jax.block_until_ready(update(gradients, states[contender]))
            if turn > 0:  # the first compiles
                seconds[contender].append(time.perf_counter() - started)
    pairs = zip(directions["ours"], directions["optax"], strict=True)
    apart = max(float(jnp.abs(ours - theirs).max() / jnp.sqrt(jnp.square(theirs).mean())) for ours, theirs in pairs)
    return {
        "model": name,
        "seconds": {contender: spread(values) for contender, values in seconds.items()},
        "ratio": ratios(seconds, "ours")["optax"],
        "largest_difference": apart,
        "rounds": rounds,
        "versions": {"jax": jax.__version__, "optax": optax.__version__},
        "machine": describe_machine(),
    }


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18d", "resnet50d"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file for a line of JSON for each")
    arguments = parser.parse_args()
    try:
        for name in arguments.models:
            create_model(name)  # reports a misspelt name before minutes are spent
    except UserError as error:
        print(f"muon.py: {error}", file=sys.stderr)
        return 2
    print("| network | ours | optax | optax / ours (quartiles) | largest difference |\n|---|---:|---:|---:|---:|")
    for name in arguments.models:
        row = measure(name, arguments.rounds)
        ours, theirs, ratio = row["seconds"]["ours"], row["seconds"]["optax"], row["ratio"]
        print(f"| {name} | {ours.median:.2f} s | {theirs.median:.2f} s", end=" | ")
        print(
            f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f}) | {row['largest_difference']:.1e} |", flush=True
        )
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
