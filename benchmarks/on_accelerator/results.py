"""Part 3 of accelerator.py: complete runs of recipes, one after another, the shortest first.

Each run is `train.py` in its own process, with a workdir in OUTPUT/workdirs/. The files that `results.py --add` reads
are copied to OUTPUT/runs/RECIPE/seedK/. If time runs out, the run is stopped by SIGTERM and saves. The same command
line resumes it.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.on_accelerator.rows import Row
from benchmarks.on_accelerator.tasks import ROOT, Job, Task
from benchmarks.records.results import this_machine

PACKED = "packed.json"
"""A file beside a packed dataset. For each dataset it has the difference from the original, and fields to set."""

STOPPING = 60.0  # seconds in which a run must save after it was asked to stop


class Run(NamedTuple):
    """A run of a recipe.

    Attributes:
        recipe: name of a file in configs/.
        seed: seed of the run.
        precision: the precision instead of the recipe's; None for the recipe's.
    """

    recipe: str
    seed: int = 0
    precision: str | None = None

    @property
    def name(self) -> str:
        """Of its task."""
        return f"{self.recipe} seed {self.seed}" + (f" {self.precision}" if self.precision else "")


RUNS = (
    Run("imagenette_5ep", 0),
    Run("imagenette_5ep", 0, "bfloat16"),
    *(Run("imagenette_5ep", seed) for seed in range(1, 5)),
    *(Run(f"{name}_fashion_mnist") for name in ("alexnet", "nin", "vgg11_quarter", "rn18")),
    *(Run("imagenette_20ep", seed) for seed in range(3)),
    *(Run(name) for name in ("imagenette_80ep", "vgg11_fashion_mnist", "rn50_imagenette")),
)

# A small run trains a small network: for one epoch on the sample in the package or, with --data_dir, for a few steps on
# the recipe's own data.
_SMALL = {"progressive": "()", "epochs": "1", "image_size": "28", "optimizer": "adamw"}
_ON_THE_SAMPLE = {"model": "lenet_bn", "dataset": "fashion_mnist_sample", "store_size": "28", "batch_size": "500"}
_ON_THE_SAMPLE |= {"mean": "(0.286,)", "std": "(0.353,)"}
_ON_RECIPE_DATA = {"model": "resnet18", "model_options.width": "8", "save_every": "2"}


def tasks(job: Job) -> dict[str, Task]:
    """The part's tasks, in order. A small run has only the first two."""
    runs = RUNS[:2] if job.small else RUNS
    return {run.name: partial(_run_recipe, job, run) for run in runs}


def _overrides(job: Job, run: Run) -> tuple[dict[str, str], str | None, str]:
    """The fields that the command line sets, how the data differs from the recipe's, and the name for RESULTS.md."""
    from flax_resnets.training.recipes import load_config

    config = load_config(ROOT / "configs" / f"{run.recipe}.py")
    fields, differs, name = {"seed": str(run.seed)}, None, run.recipe
    if run.precision:
        fields["precision"] = run.precision
        name = f"{name}_{run.precision}"
    if job.data_dir:
        fields["data_dir"] = job.data_dir
        packed = packed_sets(Path(job.data_dir))
        dataset = config.dataset
        if dataset not in packed and not Path(job.data_dir, *dataset.split("/")).is_dir():
            # If there are only packed images of another size, these are used.
            others = [each for each in packed if each.partition("/")[0] == dataset.partition("/")[0]]
            dataset = others[0] if others else dataset
        if dataset in packed:
            differs = packed[dataset]["differs"]
            if dataset != config.dataset:
                fields["dataset"], differs = dataset, f"{dataset} in place of {config.dataset}: {differs}"
            if differs:
                fields |= packed[dataset]["fields"]
                name = f"{name}_packed"
    if job.small:
        fields |= _SMALL | (_ON_RECIPE_DATA if job.data_dir else _ON_THE_SAMPLE)
    return fields, differs, name


def packed_sets(data_dir: Path) -> dict[str, dict[str, Any]]:
    """The description that accelerator_pack.py wrote beside the data; empty if the data is not packed."""
    sets: dict[str, dict[str, Any]] = {}
    for path in sorted(data_dir.glob(f"*/{PACKED}")):
        sets |= json.loads(path.read_text())
    return sets


def command(job: Job, run: Run, workdir: Path) -> list[str]:
    """The command line that starts a run or resumes it."""
    fields, _, _ = _overrides(job, run)
    line = [sys.executable, str(ROOT / "train.py"), f"--config={ROOT / 'configs' / run.recipe}.py"]
    return [*line, f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in fields.items())]


def _run_recipe(job: Job, run: Run) -> Iterator[Row]:
    """Starts or resumes the run, until its end or the deadline."""
    _, differs, name = _overrides(job, run)
    output = Path(job.output).resolve()
    workdir = output / "workdirs" / name / f"seed{run.seed}"
    about = {"recipe": run.recipe, "seed": run.seed, "name": name, "data": differs}
    started = time.time()
    code, reason = (0, None) if _done(workdir) else _trained(job, run, workdir)
    seconds = time.time() - started
    epochs = [row for row in _metrics(workdir) if row["event"] == "epoch"]
    row: Row = {**about, "seconds": seconds, "done": _done(workdir), "epochs": len(epochs)}
    if epochs:
        home = output / "runs" / name / f"seed{run.seed}"
        _copy_results(job, workdir, home, differs)
        speeds = sorted(each["images_per_second"] for each in epochs)
        row |= {"accuracy": epochs[-1]["accuracy"], "images_per_second": speeds[len(speeds) // 2]}
        row |= {"epochs_wanted": json.loads((workdir / "config.json").read_text())["epochs"], "home": str(home)}
    if code == 0 and not row["done"]:
        reason = reason or "stopped by a signal, and saved"
    yield row | ({"unfinished": reason} if code == 0 and reason else {"error": reason} if reason else {})


def _trained(job: Job, run: Run, workdir: Path) -> tuple[int, str | None]:
    """Runs train.py; returns its exit code, and why it stopped before its end."""
    wait = min(STOPPING, max(job.seconds_left / 10, 2.0))  # time to save before the deadline
    with contextlib.ExitStack() as stack:
        workdir.parent.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context((workdir.parent / f"seed{run.seed}.log").open("w+"))
        process = subprocess.Popen(
            command(job, run, workdir), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        stopped = None
        while process.poll() is None:
            time.sleep(0.1)
            if stopped is None and job.seconds_left < wait:
                stopped = "the time was up; it is saved, and the same command goes on"
                process.send_signal(signal.SIGTERM)
            elif stopped is None and job.small and job.data_dir and any(workdir.glob("checkpoints/[0-9]*")):
                stopped = "stopped after its first steps, because of --small"
                process.send_signal(signal.SIGTERM)
            elif stopped and job.seconds_left < -STOPPING:
                process.kill()
        if process.returncode == 0:
            return 0, stopped
        log.seek(0)
        last = [line.strip() for line in log if line.strip()][-1:]
        ended = f"ended with exit code {process.returncode}"
        return process.returncode, ": ".join([ended, *last])[:400]


def _metrics(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _done(workdir: Path) -> bool:
    return any(row["event"] == "done" for row in _metrics(workdir))


def _copy_results(job: Job, workdir: Path, home: Path, differs: str | None) -> None:
    """Copies a run's small files and describes its machine, for `results.py --add`."""
    home.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "metrics.jsonl", "curves.png"):
        if (workdir / name).exists():
            shutil.copyfile(workdir / name, home / name)
    hardware = None if job.backend == "cpu" else job.device if job.devices == 1 else f"{job.devices} of {job.device}"
    machine = {**this_machine(), "hardware": hardware, "data": differs}
    (home / "machine.json").write_text(json.dumps(machine, indent=2) + "\n")
