"""Measures how long `load_weights` takes from a `.safetensors` file to variables on the device, and its memory.

    python -m benchmarks.speed.load
    python -m benchmarks.speed.load --models resnet18 --rounds 3

Each round is a process of its own that has imported everything, made a network and used the device once. It loads a
file that has just been written, so the system has it in memory: the disk's speed does not count. "first" is the first
load of the process, which also traces the network for its shapes; "again" is the next one.

Memory is the highest of the process's own (anonymous) memory during the first load, above what it had before, as a
multiple of the file's bytes. The variables themselves are 1. The file is mapped, and its pages are the system's.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnets import create_model, load_weights
from flax_resnets.cli.bench.figures import spread
from flax_resnets.machine import describe_machine
from flax_resnets.weights.export import export_state_dict
from flax_resnets.weights.safetensors_format import write_safetensors

_EVERY = 0.002  # seconds between two readings of the memory


def own_memory() -> int:
    """The process's anonymous memory in bytes; Linux alone tells it."""
    (kib,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(kib) * 1024


def write(name: str, path: Path) -> None:
    """Writes random weights of a network."""
    model, random = create_model(name), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    variables: Any = jax.tree.map(lambda leaf: random.random(leaf.shape, np.float32), shapes)
    write_safetensors(path, dict(export_state_dict(model, variables)))


def load(name: str, path: Path) -> dict[str, Any]:
    """Loads the file twice in this process."""
    model = create_model(name)
    jax.block_until_ready(jnp.zeros(1000) + 1)
    before, highest, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY):
            highest[0] = max(highest[0], own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    seconds, cpu = [], []
    for _ in range(2):
        started, used = time.perf_counter(), time.process_time()
        variables = jax.block_until_ready(load_weights(model, path))
        seconds.append(time.perf_counter() - started)
        cpu.append(time.process_time() - used)
        done.set()
        watcher.join()
        del variables
    return {"seconds": seconds, "cpu_seconds": cpu, "memory": (highest[0] - before) / path.stat().st_size}


def main() -> None:
    """Writes the files, starts the processes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet50"], metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the lines of JSON")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)  # of a round's process
    arguments = parser.parse_args()
    if arguments.file:
        print(json.dumps(load(arguments.models[0], arguments.file)))
        return
    rows = []
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "model.safetensors")
            write(name, path)
            command = [sys.executable, "-m", "benchmarks.speed.load", "--models", name, "--file", str(path)]
            rounds = [json.loads(subprocess.check_output(command)) for _ in range(arguments.rounds)]
            row: dict[str, Any] = {"model": name, "bytes": path.stat().st_size, **describe_machine()}
        for place, which in enumerate(("first", "again")):
            for figure in ("seconds", "cpu_seconds"):
                row[f"{which}_{figure}"] = spread([each[figure][place] for each in rounds])
        row["memory"] = spread([each["memory"] for each in rounds])
        rows.append(row)
        print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
