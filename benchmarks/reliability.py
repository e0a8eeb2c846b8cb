"""Breaks runs of train.py in the ways it promises to survive, and writes down what that cost.

    python benchmarks/reliability.py
    python benchmarks/reliability.py --drill kills --kills 200
    python benchmarks/reliability.py --page
    python benchmarks/reliability.py --check

A drill starts `train.py` as a user does, in a process of its own on a terminal of its own, on the bundled sample; does
something to it; starts it again; and compares the end with that of a run which nothing was done to. `--drill` names
one, and may be given several times; without it all take place. Each writes its entry of results/reliability.json as it
goes, and docs/reliability.md with it, so that one broken off has counted what took place. Mounts need root on Linux: a
drill that cannot make them says so in its entry.

`--page` writes docs/reliability.md alone; `--check` writes nothing and exits with 1 where it is not what would be
written. Other mistakes are one line and exit code 2.
"""

import argparse
import json
import os
import pty
import random
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# Three epochs of twelve steps, saved every second: a start takes three seconds to its first step and as long again to
# its end, and there is no moment at which nothing is being computed, evaluated or written.
SMALL = (
    "--config=configs/lenet_bn_fashion_mnist.py",
    "--config.dataset=fashion_mnist_sample",
    "--config.image_size=12",
    "--config.store_size=12",
    "--config.model_options.padding=2",
    "--config.batch_size=500",
    "--config.epochs=3",
    "--config.save_every=2",
    "--config.optimizer=adamw",
    "--config.learning_rate=3e-3",
    "--config.flip=true",
)
EPOCHS, STEPS_PER_EPOCH = 3, 12
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WITHIN = 30.0  # seconds in which whoever is asked to stop has to


@dataclass
class Start:
    """One start of train.py, and what it did until its end.

    Attributes:
        code: its exit code, negative for the signal that killed it.
        out: what its terminal showed.
        err: what it wrote to stderr.
        seconds: from its start to its end.
        stopping: seconds from what was done to it to its end; None where it ended before.
    """

    code: int
    out: str
    err: str
    seconds: float
    stopping: float | None

    @property
    def began_at(self) -> int | None:
        """The step it went on from; None where it did not come to it."""
        if found := re.search(r"going on from step (\d+) of", self.out):
            return int(found[1])
        if "already done" in self.out:
            return EPOCHS * STEPS_PER_EPOCH
        return 0 if "train_loss" in self.out else None

    @property
    def step(self) -> int | None:
        """The last step that its bar showed; before there was one, the step it began at."""
        shown = re.findall(r"epoch (\d+)/\d+ \S* *(\d+)/\d+", self.out)
        steps = [(int(epoch) - 1) * STEPS_PER_EPOCH + int(step) for epoch, step in shown]
        return max(steps, default=self.began_at)

    @property
    def phase(self) -> str:
        """What it was at when it ended."""
        shown = re.findall(r"(epoch|evaluating) [^\n]*?\d+/\d+", self.out.rpartition("train_loss")[2])
        if not shown:
            return "before the first step"
        return "training" if shown[-1] == "epoch" else "evaluating, closing"


def command(workdir: Path, *flags: str) -> list[str]:
    """The line that starts a run."""
    return [sys.executable, "train.py", *SMALL, *flags, f"--workdir={workdir}"]


def start(
    workdir: Path,
    *flags: str,
    at: float | str | None = None,
    do: Callable[[int], object] | None = None,
    within: float = 600.0,
    watch: Callable[[int], object] | None = None,
    cache: Path | None = None,
) -> Start:
    """Starts train.py, does something to it, and waits for its end.

    Args:
        workdir: of the run.
        *flags: more of the command line.
        at: when to do it: seconds from the start, or what the terminal shows by then.
        do: called with the process's id.
        within: seconds in which it then has to end.
        watch: called with the process's id some ten times a second.
        cache: of decoded images and compiled programs, in place of the environment's.

    Raises:
        RuntimeError: it did not end in time, and was killed.
    """
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    if cache:
        environment["FLAX_RESNETS_CACHE"] = str(cache)
    begun = time.monotonic()
    done, deadline, shown = None, begun + 600, b""
    with tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command(workdir, *flags), cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=err
        )
        os.close(theirs)
        try:
            while process.poll() is None:
                now = time.monotonic()
                due = now >= begun + at if isinstance(at, float) else at is not None and at in _plain(shown)
                if do and due and done is None:
                    do(process.pid)
                    done, deadline = now, time.monotonic() + within
                if now > deadline:
                    raise RuntimeError(f"was not at its end {now - (done or begun):.0f} s later")
                if watch:
                    watch(process.pid)
                wait = begun + at - now if isinstance(at, float) and not due else 0.05
                if select.select([ours], [], [], min(wait, 0.05))[0]:
                    shown += _read(ours)
            ended = time.monotonic()
            while select.select([ours], [], [], 0)[0] and (rest := _read(ours)):
                shown += rest
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        err.seek(0)
        said = err.read()
    return Start(process.returncode, _plain(shown), said, ended - begun, ended - done if done else None)


def _plain(shown: bytes) -> str:
    return _ESCAPES.sub("", shown.decode(errors="replace"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody has the other end any more
        time.sleep(0.01)
        return b""


def rows(workdir: Path) -> list[dict[str, Any]]:
    """A run's rows without what a clock measured."""
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in read]


@dataclass
class Entry:
    """What is known of a drill, as results/reliability.json has it.

    Attributes:
        fault: what is done to the run.
        tried: how often.
        runs, different_bits: brought to their end and compared with the unbroken one; how many of them differed.
        lost: steps that had been shown and were taken again, a number for each fault that hit after a first step.
        failed: what went wrong, a line each.
        more: figures of this drill alone.
        skipped: why it did not take place.
        seconds: that it took.
    """

    fault: str
    tried: int = 0
    runs: int = 0
    different_bits: int = 0
    lost: list[int] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    skipped: str | None = None
    seconds: float = 0.0

    def compare(self, workdir: Path, unbroken: Path) -> None:
        """Counts a finished run, which must be equal to the unbroken one, row by row and in its digest."""
        self.runs += 1
        ours, theirs = rows(workdir), rows(unbroken)
        self.different_bits += ours[-1].get("state_digest") != theirs[-1]["state_digest"]
        if ours != theirs:
            self.failed.append(f"run {self.runs}: its metrics are not the unbroken run's: {ours}")

    def as_json(self) -> dict[str, Any]:
        """All of it, the lost steps as their median and the most."""
        from flax_resnets.bench.machine import describe_machine

        lost = {"median": statistics.median(self.lost), "most": max(self.lost)} if self.lost else None
        survived = max(0, self.tried - len(self.failed))
        about = {"jax": version("jax"), "machine": describe_machine()}
        return {**self.__dict__, "survived": survived, "lost": lost, "seconds": round(self.seconds, 1), **about}


@dataclass
class Ground:
    """What drills stand on.

    Attributes:
        scratch: a directory for workdirs.
        unbroken: the workdir of a run that nothing was done to.
        life: seconds that a start of it takes, from the process's beginning to its end.
        seed: of what is drawn.
    """

    scratch: Path
    unbroken: Path
    life: float
    seed: int = 0


def ground(scratch: Path, seed: int = 0) -> Ground:
    """Trains the unbroken run, twice: the first compiles.

    Raises:
        RuntimeError: it does not train.
    """
    for name in ("compiles", "unbroken"):
        done = start(scratch / name)
        if done.code or done.err:
            raise RuntimeError(f"the unbroken run ended with exit code {done.code}: {done.err}")
    return Ground(scratch, scratch / "unbroken", done.seconds, seed)


def interrupted(on: Ground, entry: Entry, number: signal.Signals, times: int) -> Iterator[None]:
    """Signals a run at random moments, start after start, until it comes to its end; then another run.

    SIGKILL ends it where it stands, and the next start goes on from its last checkpoint. SIGINT and SIGTERM it answers
    by saving and ending with exit code 0, within 30 s, and nothing is lost. Moments are drawn uniformly over the life
    of a start; it grows with each signal and shrinks with each start that came to its end before one, so that it
    follows a machine which others use as well.

    Args:
        on: where.
        entry: to be filled; `failed` has a line for each start that ended otherwise, or wrote to stderr.
        number: the signal.
        times: how often; the run that is under way then comes to its end.

    Yields:
        Whenever a run has come to its end.
    """
    chance = random.Random(f"{on.seed} {number.name}")
    kills = number == signal.SIGKILL
    first = 0.0 if kills else 0.3  # a stop that is asked for before a program's first line is Python's own matter
    phases: dict[str, int] = {}
    stopping: list[float] = []
    entry.more = {"phases": phases}
    workdir, known = on.scratch / f"{number.name} 0", None
    life = on.life
    while entry.tried < times or workdir.exists():
        at = chance.uniform(first, life) if entry.tried < times else None
        try:
            done = start(workdir, at=at, do=lambda pid: os.kill(pid, number), within=_WITHIN)
        except RuntimeError as error:
            done = Start(-signal.SIGKILL, "", f"{number.name}: {error}", 0.0, None)
        if known is not None and done.began_at is not None:
            entry.lost.append(max(0, known - done.began_at))  # what is saved may be ahead of what was shown
            known = None
        if done.stopping is not None:
            entry.tried += 1
            life *= 1.03
            phases[done.phase] = phases.get(done.phase, 0) + 1
            stopping.append(done.stopping)
            if done.phase != "before the first step":
                known = done.step
        ends = (0, -number) if kills and done.stopping is not None else (0,)
        if done.err or done.code not in ends:
            entry.failed.append(f"{done.phase}: exit code {done.code}: {done.err.strip()[-500:]}")
        elif done.code == 0 and f"stopped by {number.name}; to go on: " not in done.out:
            entry.compare(workdir, on.unbroken)
            life = max(0.9 * life, done.seconds)
        else:
            continue
        if workdir.exists():
            workdir.rename(on.scratch / f"{workdir.name}, ended")
        workdir, known = on.scratch / f"{number.name} {entry.runs + len(entry.failed)}", None
        if stopping and not kills:
            entry.more["stopping_seconds"] = _median_and_most(stopping)
        yield


def _median_and_most(numbers: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(numbers), 1), "most": round(max(numbers), 1)}


FAULTS = {
    "kills": "kill -9 at a random moment",
    "sigterm": "SIGTERM at a random moment",
    "sigint": "Ctrl-C (SIGINT) at a random moment",
}


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drill", action="append", choices=FAULTS, help="this one; all of them otherwise")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="of kill -9 (200)")
    parser.add_argument("--stops", type=int, default=30, metavar="N", help="of SIGTERM, and of SIGINT (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (0)")
    parsed = parser.parse_args(arguments)
    path = root / "results" / "reliability.json"
    with tempfile.TemporaryDirectory() as scratch:
        on = ground(Path(scratch), parsed.seed)
        drills = {
            "kills": lambda entry: interrupted(on, entry, signal.SIGKILL, parsed.kills),
            "sigterm": lambda entry: interrupted(on, entry, signal.SIGTERM, parsed.stops),
            "sigint": lambda entry: interrupted(on, entry, signal.SIGINT, parsed.stops),
        }
        for name in parsed.drill or drills:
            entry, begun = Entry(FAULTS[name]), time.monotonic()
            for _ in drills[name](entry):
                entry.seconds = time.monotonic() - begun
                results = json.loads(path.read_text()) if path.exists() else {}
                results[name] = entry.as_json()
                path.write_text(json.dumps(results, indent=2) + "\n")
            print(f"{name}: tried {entry.tried}, failed {len(entry.failed)}, {entry.seconds:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
