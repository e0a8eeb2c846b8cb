"""Measures how long a program that imports a network waits for its first weights, beside a plain linen ResNet.

    python -m benchmarks.speed.first_weights
    python -m benchmarks.speed.first_weights --models resnet18 --rounds 3

That is `jax.jit(model.init)(key, images)` in a new process that has imported everything: tracing, compiling, and the
draw itself. Most of it is compiling. The two take turns, each in its own process, without compiled programs of an
earlier start. The plain network is that of `flax_resnets/cli/bench/plain_linen.py`, with linen's initializers.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flax_resnets import create_model
from flax_resnets.cli.bench.figures import ratios, spread
from flax_resnets.cli.bench.plain_linen import NETWORKS
from flax_resnets.machine import describe_machine

CONTENDERS = ("ours", "plain linen")


def measure(name: str, contender: str) -> dict[str, float]:
    """Draws the weights in this process; wall clock and CPU time."""
    model = create_model(name) if contender == "ours" else NETWORKS[name]
    images, key = jnp.zeros((1, 224, 224, 3)), jax.block_until_ready(jax.random.key(0))
    started, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(jax.jit(partial(model.init, train=False))(key, images))
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - used}


def main() -> None:
    """Starts the processes by turns and prints a line of JSON for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "resnet50"], choices=NETWORKS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the lines of JSON")
    parser.add_argument("--turn", choices=CONTENDERS, help=argparse.SUPPRESS)  # of a round's process
    arguments = parser.parse_args()
    if arguments.turn:
        print(json.dumps(measure(arguments.models[0], arguments.turn)))
        return
    rows = []
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    for name in arguments.models:
        command = [sys.executable, "-m", "benchmarks.speed.first_weights", "--models", name, "--turn"]
        turns: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
        for _ in range(arguments.rounds):
            for contender in CONTENDERS:
                turns[contender].append(json.loads(subprocess.check_output([*command, contender], env=environment)))
        row: dict[str, Any] = {"model": name, "rounds": arguments.rounds, **describe_machine()}
        for figure in ("seconds", "cpu_seconds"):
            of_turns = {contender: [turn[figure] for turn in turns[contender]] for contender in CONTENDERS}
            row[figure] = {contender: spread(values) for contender, values in of_turns.items()}
            row[f"{figure}_ratio"] = ratios(of_turns, "ours")
        rows.append(row)
        print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
