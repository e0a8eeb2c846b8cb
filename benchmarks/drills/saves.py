"""Measures what saving a checkpoint costs a run, on a disk and in a bucket.

    python -m benchmarks.drills.saves --model resnet50 --megabytes 100

A state of the network and SGD's momentum is saved three times. For each place this prints how long the training thread
waits, and the seconds until the checkpoint is complete. The bucket is on this machine (`benchmarks.drills.emulator`),
answers after a given time, and takes and gives a given number of megabytes per second in each connection.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import flax_resnets
from benchmarks.drills.emulator import Emulator
from flax_resnets import storage
from flax_resnets.training.checkpoints import Checkpoints
from flax_resnets.training.state import TrainState, create_state


def measure(state: TrainState, workdir: Path, times: int = 3) -> tuple[float, float]:
    """Medians of the seconds that `save` takes, and that pass until the checkpoint is complete."""
    checkpoints = Checkpoints(workdir / "checkpoints", lambda: ())
    waited, complete = [], []
    for number in range(times):
        begun = time.perf_counter()
        checkpoints.save(state.replace(step=jnp.int32(number)))
        waited.append(time.perf_counter() - begun)
        checkpoints.wait()
        complete.append(time.perf_counter() - begun)
    checkpoints.close()
    return statistics.median(waited), statistics.median(complete)


def main() -> None:
    """Prints a row for each place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="name of a network; default resnet50")
    parser.add_argument("--megabytes", type=float, default=100.0, help="per second of each connection; default 100")
    parsed = parser.parse_args()
    model = flax_resnets.create_model(parsed.model)
    state = create_state(model, optax.sgd(0.1, momentum=0.9), (64, 64, 3), seed=0)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6
    print(f"{parsed.model}, {size:.0f} MB\n\n| place | the step waits | complete after |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch, Emulator("bucket").serving() as emulator:
        print("| disk | {:.2f} s | {:.1f} s |".format(*measure(state, Path(scratch))), flush=True)
        os.environ.update(emulator.environment)
        emulator.bandwidth = int(1e6 * parsed.megabytes)
        for latency in (0.0, 0.05, 0.2):
            emulator.latency = latency
            figures = measure(state, storage.bucket_path(f"gs://bucket/{latency}", "workdir"))
            print("| bucket, {:.0f} ms | {:.2f} s | {:.1f} s |".format(1000 * latency, *figures), flush=True)


if __name__ == "__main__":
    main()
