"""Measures on a GPU or TPU, within minutes: whether this library is right there, how fast it is, what recipes reach.

    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --part fast --budget 300
    python benchmarks/accelerator.py --part results --data_dir DIR --budget 3600
    python benchmarks/accelerator.py --small
    python benchmarks/accelerator.py --page
    python benchmarks/accelerator.py --check

There are three parts, in this order. `correct` compares what the device computes with what the CPU of the same machine
computes. `fast` compares the speed with that of other libraries. `results` trains recipes, one after another. `--part`
names a part, and may be given several times.

Each figure is a line of JSON in OUTPUT/DEVICE.jsonl, which is written as soon as the figure is known. If a part or one
of its tasks fails, its line gives the reason, and the other tasks still run. A further start adds lines, and resumes
the runs of recipes.

`--budget` is the time for all parts together. With three parts, the first may use 3 tenths and the second 4 tenths of
it; time that a part leaves goes to the next part. `--small` uses small sizes for CPUs, and the CPU itself if there is
no other device. It shows that the script works; its lines do not appear on the page.

`--page` writes docs/accelerators.md from results/accelerator/*.jsonl, into which lines from other machines are copied.
`--check` writes nothing and exits with 1 if the page is not up to date. A missing accelerator and other mistakes give
one line and exit code 2.
"""

import argparse
import datetime
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.on_accelerator.page import page  # noqa: E402
from benchmarks.on_accelerator.rows import Parser, RowFile, read_all  # noqa: E402
from benchmarks.on_accelerator.tasks import Job, run_tasks, tasks_of  # noqa: E402
from flax_resnets.errors import UserError  # noqa: E402
from flax_resnets.machine import describe_machine  # noqa: E402

# The parts' shares of the budget, relative to each other.
SHARES = {"correct": 3, "fast": 4, "results": 3}
_GRACE = {"results": 90.0}  # seconds after the deadline, in which the run of a recipe can save

_PROBE = """
import json, jax
first = jax.devices()[0]
print(json.dumps({"backend": jax.default_backend(), "device": first.device_kind, "devices": jax.device_count(),
                  "memory": (first.memory_stats() or {}).get("bytes_limit"), "jax": jax.__version__}))
"""


def probe() -> dict[str, Any]:
    """The backend and the devices that JAX finds. Another process asks JAX: this one must not occupy the device.

    Raises:
        UserError: JAX is not installed, or does not start.
    """
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise UserError(f"JAX does not start: {(done.stderr.strip().splitlines() or ['no reason given'])[-1][:400]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(parts: list[str], budget: float, small: bool, output: Path, data_dir: Path | None) -> Path:
    """Runs parts and writes their rows; returns the path of the file.

    Args:
        parts: keys of `SHARES`.
        budget: seconds for all parts together.
        small: whether to use small sizes for CPUs.
        output: directory for rows and runs.
        data_dir: directory of TFDS's datasets; None for TFDS's default.

    Raises:
        UserError: there is no accelerator, or `output` cannot be written.
    """
    begun = time.time()
    found = probe()
    if found["backend"] == "cpu" and not small:
        raise UserError("no accelerator: JAX finds CPUs alone; --small takes them for one, with small sizes")
    kind = re.sub(r"[^a-z0-9]+", "-", found["device"].lower()).strip("-") or "device"
    rows = RowFile(output / f"{kind}{'-small' if small else ''}.jsonl")
    about: dict[str, Any] = {"device": found["device"], "jax": found["jax"]} | ({"small": True} if small else {})

    def add(part: str, task: str, row: dict[str, Any]) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        rows.add({"part": part, "task": task, **about, "at": now, **row})
        what = row.get("error") or row.get("skipped") or row.get("unfinished")
        verdict = {True: "holds", False: "DOES NOT HOLD"}.get(row.get("ok"), "")
        known = [str(row[name]) for name in ("precision", "contender", "way", "kernel") if name in row]
        print(" ".join(filter(None, [f"{part}: {task}:", *known, what or verdict or "measured"])), flush=True)

    add("machine", "machine", {**found, **describe_machine(), "budget": budget, "parts": parts})
    shares = [SHARES[part] for part in parts]
    for number, part in enumerate(parts, start=1):
        deadline = begun + budget * sum(shares[:number]) / sum(shares)
        place = str(output.resolve()), data_dir and str(data_dir.resolve())
        job = Job(part, small, *place, deadline, found["backend"], found["device"], found["devices"])
        for task, row in run_tasks(
            job,
            tasks_of(job),
            together=part == "correct",
            grace=_GRACE.get(part, 0.0),
            environment=_environment(job),
        ):
            add(part, task, row)
    rows.close()
    return rows.path


def _environment(job: Job) -> dict[str, str]:
    """Environment variables for a part's processes, without those that the user has set."""
    wanted = {}
    if job.small and job.backend == "cpu":
        # A small run spends nearly all of its time on compiling.
        wanted["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    if job.part == "fast":
        # The contenders are processes that share the device's memory.
        wanted["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be seconds, a number above 0")
    return value


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=SHARES, help="run only this part")
    parser.add_argument("--budget", type=_seconds, default=400.0, metavar="SECONDS", help="for all parts (400)")
    parser.add_argument("--small", action="store_true", help="sizes for CPUs")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for rows and runs (runs/accelerator)")
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="where TFDS keeps datasets, for `results`")
    parser.add_argument("--page", action="store_true", help="write docs/accelerators.md alone")
    parser.add_argument("--check", action="store_true", help="exit with 1 if docs/accelerators.md is out of date")
    try:
        parsed = parser.parse_args(arguments)
        path = root / "docs" / "accelerators.md"
        if parsed.page or parsed.check:
            wanted = page(read_all(root / "results" / "accelerator"))
            if parsed.page:
                path.write_text(wanted)
            elif not path.exists() or path.read_text() != wanted:
                print("accelerator.py: docs/accelerators.md is out of date; --page writes it", file=sys.stderr)
                return 1
            return 0
        if parsed.data_dir and not parsed.data_dir.is_dir():
            raise UserError(f"--data_dir={parsed.data_dir}: no such directory; must be that of TFDS's datasets")
        parts = [part for part in SHARES if part in (parsed.part or SHARES)]
        output = parsed.output or root / "runs" / "accelerator"
        print(measure(parts, parsed.budget, parsed.small, output, parsed.data_dir))
    except (UserError, OSError) as error:
        print(f"accelerator.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("accelerator.py: interrupted; what was measured is written", file=sys.stderr)
        return 130
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # so that the processes that this one started end too
    sys.exit(main(sys.argv[1:]))
