"""Measures the share of a training run outside its steps, and the memory of the process after each epoch.

    python -m benchmarks.speed.overhead -- --config configs/rn18_imagenette.py --config.data_dir=DIR
    python -m benchmarks.speed.overhead --images 640 -- --config configs/rn18_imagenette.py --config.data_dir=DIR

The arguments after `--` are train.py's; the run is trained in this process, in a new workdir. The script waits for the
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
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jax

from flax_resnets import cli
from flax_resnets.cpu import start_with_huge_pages
from flax_resnets.data.batches import Split
from flax_resnets.data.cache import CachedImages
from flax_resnets.errors import UserError
from flax_resnets.machine import describe_machine
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.compilation import keep_compiled_programs
from flax_resnets.training.display import Display
from flax_resnets.training.loop import Run, fit
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.recipes import load_config
from flax_resnets.training.splits import load_split
from flax_resnets.training.trainer import Trainer


def timed(step: Callable[..., Any], seconds: list[float], ends: list[float]) -> Callable[..., Any]:
    """The step, waited for; its seconds and the time of its end are noted."""

    def call(*arguments: Any) -> Any:
        started = time.perf_counter()
        result = jax.block_until_ready(step(*arguments))
        ends.append(time.perf_counter())
        seconds.append(ends[-1] - started)
        return result

    return call


class Memory(Callback):
    """Notes the process's memory after each epoch, in MiB."""

    def __init__(self):
        self.mib: list[float] = []

    def on_epoch_end(self, run: Run, row: EpochMetrics) -> None:
        """See `Callback`."""
        self.mib.append(resident())


def first_images(split: Split, images: int | None) -> Split:
    """The split's first images alone."""
    return CachedImages(split.images[:images], split.labels[:images]) if isinstance(split, CachedImages) else split


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
    start_with_huge_pages()  # as train.py does by itself
    parsed = cli.parse(["train", *arguments.train])
    try:
        config = load_config(parsed.config, parsed.overrides)
        keep_compiled_programs()
        display = Display()
        (train, classes), (valid, _) = (load_split(config, split, display) for split in ("train", "validation"))
        train, valid = first_images(train, arguments.images), first_images(valid, arguments.images)
        trainer = Trainer(config, train, valid, classes, display)
    except UserError as error:
        print(f"overhead.py: {error}", file=sys.stderr)
        sys.exit(2)
    training, evaluation, ends, memory_callback = [], [], [], Memory()
    train_step_at = cache(lambda size: timed(trainer.steps.train_step_at(size), training, ends))
    watched = trainer.with_steps(train_step_at=train_step_at, eval_step=timed(trainer.steps.eval_step, evaluation, []))
    with tempfile.TemporaryDirectory() as workdir:
        fit(watched, Path(workdir), callbacks=[memory_callback])
    wall = time.perf_counter() - ends[0]

    steps = training[1:]
    evaluating = sum(evaluation[1:]) + statistics.median(evaluation)
    median = statistics.median(steps)
    memory = memory_callback.mib
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
