"""Measures the share of a training run outside its steps, and the memory of the process after each epoch.

    python -m benchmarks.speed.overhead -- --config configs/rn18_imagenette.py --config.data_dir=DIR
    python -m benchmarks.speed.overhead --images 640 -- --config configs/rn18_imagenette.py --config.data_dir=DIR

The arguments after `--` are train.py's; `train.main` runs in this process, in a new workdir. The script waits for the
end of every training step and every evaluation step, which the trainer does not do. So work between steps, such as
gathering the batch, logging, saving and drawing, never overlaps with a step, and the share is an upper bound:

    1 - (seconds in training steps + seconds in evaluation steps) / (seconds from the first step's end to the run's)

The first training step is not counted on either side, because it compiles. The first evaluation step compiles too: it
is counted with the median time, so its compilation counts as overhead. Work that slows a step down while it runs, such
as writing a checkpoint, is part of that step's seconds. Therefore the share is given a second time with every training
step counted with the median time; this second share grows with other load on the machine.

Memory is the resident set of the process when each epoch's row is written, in MiB. The decoded images are mapped from a
file and count once they have been read, so memory grows in the first epoch.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

import train
from flax_resnets.cli.bench.machine import describe_machine
from flax_resnets.data.cache import CachedImages
from flax_resnets.training import build, loop, splits


def watch(images: int | None) -> dict[str, list[float]]:
    """Patches the training loop so that it measures times and memory.

    Args:
        images: how many images of each split to use, from the first; None for all.

    Returns:
        Lists that the run will fill: `train` and `evaluation`, seconds of each step; `memory`, MiB after each epoch;
        `started`, the time at which the first step was done.
    """
    seen: dict[str, list[float]] = {"train": [], "evaluation": [], "memory": [], "started": []}
    make = {"train": build.make_train_step, "evaluation": build.make_eval_step}
    cached_images, add_epoch = splits.cached_images, loop.MetricsLog.add_epoch

    def timed(kind: str) -> Any:
        def make_step(*args: Any, **kwargs: Any) -> Any:
            step = make[kind](*args, **kwargs)

            def call(*args: Any) -> Any:
                started = time.perf_counter()
                result = jax.block_until_ready(step(*args))
                ended = time.perf_counter()
                seen[kind].append(ended - started)
                if not seen["started"]:
                    seen["started"].append(ended)
                return result

            return call

        return make_step

    def first_images(*args: Any, **kwargs: Any) -> CachedImages:
        cached = cached_images(*args, **kwargs)
        return CachedImages(cached.images[:images], cached.labels[:images])

    def note_memory(log: Any, row: Any) -> None:
        add_epoch(log, row)
        seen["memory"].append(resident())

    build.make_train_step, build.make_eval_step = timed("train"), timed("evaluation")
    splits.cached_images = first_images
    loop.MetricsLog.add_epoch = note_memory
    return seen


def resident() -> float:
    """Resident memory of the process in MiB; where the system does not report it, the largest so far."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Runs, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="only the first N of each split, for a shorter run")
    parser.add_argument("--json", type=Path, help="file for a line of JSON")
    parser.add_argument(
        "train", nargs="+", metavar="ARGUMENT", help="arguments of train.py, after --; this script adds --workdir"
    )
    arguments = parser.parse_args()
    train.start_with_huge_pages()  # as it does by itself when it is run as a script
    seen = watch(arguments.images)
    with tempfile.TemporaryDirectory() as workdir:
        if code := train.main([*arguments.train, "--workdir", f"{workdir}/run"]):
            sys.exit(code)
        wall = time.perf_counter() - seen["started"][0]

    steps, evaluation = seen["train"][1:], seen["evaluation"]
    evaluating = sum(evaluation[1:]) + statistics.median(evaluation)
    median = statistics.median(steps)
    memory = seen["memory"]
    row = {
        "share_outside_steps": 1 - (sum(steps) + evaluating) / wall,
        "share_outside_median_steps": 1 - (len(steps) * median + evaluating) / wall,
        "seconds": wall,
        "steps": len(steps),
        "median_step_seconds": median,
        "evaluation_seconds": evaluating,
        "memory_mib": memory,
        "memory_last_against_second": memory[-1] / memory[1] if len(memory) > 2 else None,
        "command": [part for part in arguments.train if "data_dir" not in part],
        "images": arguments.images,
        "versions": {"jax": jax.__version__},
        "machine": describe_machine(),
    }
    print(f"\n{wall:.1f} s from the first step's end: {len(steps)} steps of {median:.3f} s (median),", end=" ")
    print(f"{evaluating:.1f} s of evaluation steps")
    print(f"outside steps: {row['share_outside_steps']:.2%}", end="; ")
    print(f"with every step counted as the median one: {row['share_outside_median_steps']:.2%}")
    print("MiB after each epoch:", *(f"{each:.0f}" for each in memory))
    if len(memory) > 2:
        print(f"the last against the second: {memory[-1] / memory[1] - 1:+.1%}")
    print("\n" + json.dumps(row))
    if arguments.json:
        with arguments.json.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
