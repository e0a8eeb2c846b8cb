"""Interrupts and damages runs of train.py in the ways that they must survive, and records what was lost.

    python -m benchmarks.drills.reliability
    python -m benchmarks.drills.reliability --drill kills --kills 200
    python -m benchmarks.drills.reliability --page
    python -m benchmarks.drills.reliability --check

A drill starts `train.py` as a user does, in its own process and terminal, on the bundled sample. It causes a fault,
starts `train.py` again, and compares the end with that of an undisturbed run. `--drill` names a drill, and may be given
several times; without it all drills run. Each drill updates its entry of results/reliability.json as it goes, so that
an interrupted drill keeps its counts. Mounts need root on Linux: a drill that cannot mount says so in its entry.

The promises and explanations stand in docs/reliability.md itself. This script writes only the part of the page between
the two markers. `--page` writes it without running drills. `--check` writes nothing and exits with 1 if that part is
not up to date. Other mistakes give one line and exit code 2.
"""

import argparse
import contextlib
import json
import os
import pty
import random
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.drills.emulator import Emulator
from benchmarks.records.pages import with_generated
from benchmarks.records.results import read_json
from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.machine import describe_machine
from flax_resnets.training.amendments import in_force, read_amendments
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.workdir import recorded_config

ROOT = Path(__file__).resolve().parents[2]

# Three epochs of twelve steps, saved every second step. A start takes three seconds to its first step, and three more
# to its end. At every moment something is being computed, evaluated or written.
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
# TensorStore says which credentials it uses, and XLA on a busy machine that it compiles for minutes.
_NOT_OURS = re.compile(
    r"\w\d+ .* (?:google_auth_provider|slow_operation_alarm)\.cc.*\n|\n*\*+\n\[Compiling .*\n\*+\n\n?"
)
_WITHIN = 30.0  # seconds within which a run must end after a signal

# When to cause a fault: seconds after the start, a text to wait for on the terminal, or a condition.
Moment = float | str | Callable[[], bool]


@dataclass
class Start:
    """One start of train.py, and what happened until its end.

    Attributes:
        code: exit code; negative for the signal that killed it.
        out: text on its terminal.
        err: text on stderr.
        seconds: from its start to its end.
        stopping: seconds from the fault to the end; None if it ended before the fault.
    """

    code: int
    out: str
    err: str
    seconds: float
    stopping: float | None

    @property
    def began_at(self) -> int | None:
        """The step from which it resumed; None if it ended before that."""
        if found := re.search(r"going on from step (\d+) of", self.out):
            return int(found[1])
        if "already done" in self.out:
            return EPOCHS * STEPS_PER_EPOCH
        return 0 if "train_loss" in self.out else None

    @property
    def step(self) -> int | None:
        """The last step that its progress bar showed; without one, the step from which it resumed."""
        shown = re.findall(r"epoch (\d+)/\d+ \S* *(\d+)/\d+", self.out)
        steps = [(int(epoch) - 1) * STEPS_PER_EPOCH + int(step) for epoch, step in shown]
        return max(steps, default=self.began_at)

    @property
    def phase(self) -> str:
        """The phase in which it ended."""
        shown = re.findall(r"(epoch|evaluating) [^\n]*?\d+/\d+", self.out.rpartition("train_loss")[2])
        if not shown:
            return "before the first step"
        return "training" if shown[-1] == "epoch" else "evaluating, closing"


def command(workdir: Path, *flags: str) -> list[str]:
    """The command line that starts a run."""
    return [sys.executable, "train.py", *SMALL, *flags, f"--workdir={workdir}"]


def start(
    workdir: Path,
    *flags: str,
    at: Moment | None = None,
    do: Callable[[int], object] | None = None,
    within: float = 600.0,
    watch: Callable[[int], object] | None = None,
    cache: Path | None = None,
    longest: float = 600.0,
) -> Start:
    """Starts train.py, causes a fault, and waits for the end.

    Args:
        workdir: of the run.
        *flags: further arguments.
        at: when to cause the fault.
        do: causes the fault; is called with the process id.
        within: seconds within which the process must end after the fault.
        watch: is called with the process id about ten times a second.
        cache: directory for decoded images and compiled programs, in place of the environment's.
        longest: seconds that the start may take.

    Raises:
        RuntimeError: it did not end in time, and was killed.
    """
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    if cache:
        environment["FLAX_RESNETS_CACHE"] = str(cache)
    begun = time.monotonic()
    done, deadline = None, begun + longest
    process = subprocess.Popen(
        command(workdir, *flags), cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert process.stderr is not None
    shown = {ours: b"", process.stderr.fileno(): b""}
    try:
        while process.poll() is None:
            now = time.monotonic()
            if isinstance(at, float):
                due = now >= begun + at
            elif isinstance(at, str):
                due = at in _plain(shown[ours])
            else:
                due = at is not None and at()
            if do and due and done is None:
                do(process.pid)  # may wait for a moment to do it
                done = time.monotonic()
                deadline = done + within
            if now > deadline:
                raise RuntimeError(f"had not ended {now - (done or begun):.0f} s later")
            if watch:
                watch(process.pid)
            if callable(at) and not done:  # it may hold for a millisecond
                _read(shown, 0)
                time.sleep(0.0005)
                continue
            wait = begun + at - now if isinstance(at, float) and not due else 0.05
            _read(shown, min(wait, 0.05))
        ended = time.monotonic()
        while _read(shown, 0):
            pass
        out, err = (_plain(text) for text in shown.values())
        err = _NOT_OURS.sub("", err)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
        os.close(ours)
    return Start(process.returncode, out, err, ended - begun, ended - done if done else None)


def _read(shown: dict[int, bytes], seconds: float) -> bool:
    """Adds what can be read from each file; returns whether there was anything."""
    added = False
    for file in select.select(list(shown), [], [], seconds)[0]:
        try:
            text = os.read(file, 65536)
        except OSError:  # the other end of the terminal is closed
            text = b""
        shown[file] += text
        added = added or bool(text)
    if not added and seconds:
        time.sleep(0.01)  # at a file's end select() does not wait
    return added


def _plain(shown: bytes) -> str:
    return _ESCAPES.sub("", shown.decode(errors="replace"))


def rows(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a run, without measured times."""
    read = [json.loads(line) for line in storage.content(workdir / "metrics.jsonl").decode().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in read]


@dataclass
class Entry:
    """The result of a drill, an entry of results/reliability.json.

    Attributes:
        fault: what is done to the run.
        tried: number of faults.
        runs, different_bits: number of finished runs compared with the undisturbed one, and how many of them differed.
        lost: steps shown on the terminal and then repeated: a number for each fault after a first step.
        failed: what went wrong, a line for each failure.
        more: figures that only this drill has.
        skipped: why the drill did not run.
        seconds: duration of the drill.
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
        """Counts a finished run, and checks that its rows and its digest equal those of the undisturbed run."""
        self.runs += 1
        ours, theirs = rows(workdir), rows(unbroken)
        self.different_bits += ours[-1].get("state_digest") != theirs[-1]["state_digest"]
        if ours != theirs:
            self.failed.append(f"run {self.runs}: its metrics are not the unbroken run's: {ours}")

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON, with the lost steps as their median and maximum."""
        lost = {"median": statistics.median(self.lost), "most": max(self.lost)} if self.lost else None
        survived = max(0, self.tried - len(self.failed))
        about = {"jax": version("jax"), "machine": describe_machine()}
        return {**self.__dict__, "survived": survived, "lost": lost, "seconds": round(self.seconds, 1), **about}


@dataclass
class Ground:
    """The directories and figures that all drills share.

    Attributes:
        scratch: a directory for workdirs.
        unbroken: workdir of the undisturbed run.
        life: seconds that its start took, from the beginning of the process to its end.
        seed: for random moments.
    """

    scratch: Path
    unbroken: Path
    life: float
    seed: int = 0


def ground(scratch: Path, seed: int = 0) -> Ground:
    """Trains the undisturbed run twice, because the first one also compiles.

    Raises:
        RuntimeError: the run fails.
    """
    for name in ("compiles", "unbroken"):
        done = start(scratch / name)
        if done.code or done.err:
            raise RuntimeError(f"the unbroken run ended with exit code {done.code}: {done.err}")
    return Ground(scratch, scratch / "unbroken", done.seconds, seed)


def send(pid: int, number: signal.Signals) -> None:
    """Sends a signal. A stop is sent at the earliest when train.py handles it: before its first line Python does."""
    if number != signal.SIGKILL:
        while _begins(pid):
            time.sleep(0.01)
        time.sleep(0.05)  # the next line of train.py holds the signals
    os.kill(pid, number)


def _begins(pid: int) -> bool:
    """Whether a process has no function of its own for SIGTERM yet (Python has one for SIGINT)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # not Linux
        return False
    (state,), (caught,) = (re.findall(rf"^{name}:\s*(\w+)", status, re.MULTILINE) for name in ("State", "SigCgt"))
    return state != "Z" and not int(caught, 16) >> (signal.SIGTERM - 1) & 1


def interrupted(
    on: Ground,
    entry: Entry,
    number: signal.Signals,
    times: int,
    *flags: str,
    begin: Callable[[Path], object] | None = None,
    moments: Sequence[Callable[[Path], Moment]] = (),
    cache: Path | None = None,
) -> Iterator[None]:
    """Sends signals to a run at random moments, start after start, until the run is finished; then takes another run.

    SIGKILL ends the process, and the next start resumes from the last checkpoint. After SIGINT and SIGTERM the run must
    save and end with exit code 0 within 30 s, and lose nothing. Moments are uniform over the expected duration of a
    start. This duration grows with each signal and shrinks with each start that ends before its signal, so that it
    follows the speed of a shared machine.

    Args:
        on: shared directories and figures.
        entry: to be filled; `failed` gets a line for each start that ended otherwise, or wrote to stderr.
        number: the signal.
        times: number of signals; the last run is then finished without one.
        *flags: further arguments of each start.
        begin: makes the workdir of each run; None for runs from their beginning.
        moments: makes moments of a workdir. Every second signal is at one of these, in turn, and not at a random one.
        cache: see `start`.

    Yields:
        After each finished run.
    """
    chance = random.Random(f"{on.seed} {number.name}")
    kills = number == signal.SIGKILL
    phases: dict[str, int] = {}
    stopping: list[float] = []
    entry.more = {"phases": phases}
    workdir, known = on.scratch / f"{number.name} 0", None
    life = on.life
    while entry.tried < times or storage.exists(workdir):
        if begin is not None and not storage.exists(workdir):
            begin(workdir)
        at: Moment = chance.uniform(0.0, life)
        if moments and entry.tried % 2:
            at = moments[entry.tried // 2 % len(moments)](workdir)
        do = (lambda pid: send(pid, number)) if entry.tried < times else None
        try:
            done = start(workdir, *flags, at=at, do=do, within=_WITHIN, cache=cache)
        except RuntimeError as error:
            done = Start(-signal.SIGKILL, "", f"{number.name}: {error}", 0.0, None)
        if known is not None and done.began_at is not None:
            entry.lost.append(max(0, known - done.began_at))  # the checkpoint may be later than the last step shown
            known = None
        if done.stopping is not None:
            entry.tried += 1
            life *= 1.03
            phase = _where(done, workdir) if moments else done.phase
            phases[phase] = phases.get(phase, 0) + 1
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
        if storage.exists(workdir):
            storage.move(workdir, on.scratch / f"{workdir.name}, ended")
        workdir, known = on.scratch / f"{number.name} {entry.runs + len(entry.failed)}", None
        if stopping and not kills:
            entry.more["stopping_seconds"] = _median_and_most(stopping)
        yield


def in_bucket(
    on: Ground, entry: Entry, number: signal.Signals, times: int, faults: dict[str, float], *flags: str
) -> Iterator[None]:
    """Like `interrupted`, with workdirs in a bucket that fails.

    Args:
        on: shared directories and figures.
        entry: to be filled.
        number: the signal.
        times: number of signals.
        faults: attributes of the emulator, such as `latency`.
        *flags: further arguments of each start.

    Yields:
        After each finished run.
    """
    with Emulator("bucket", seed=on.seed).serving() as emulator:
        before = dict(os.environ)
        os.environ.update(emulator.environment)
        try:
            vars(emulator).update(faults)
            place = storage.bucket_path("gs://bucket/drill", "scratch")
            done = start(place / "unbroken", *flags)
            if done.code or done.err:
                entry.failed.append(f"without a signal: exit code {done.code}: {done.err.strip()[-500:]}")
                return
            entry.compare(place / "unbroken", on.unbroken)
            yield from interrupted(Ground(place, on.unbroken, done.seconds, on.seed), entry, number, times, *flags)
        finally:
            os.environ.clear()
            os.environ.update(before)


def _where(done: Start, workdir: Path) -> str:
    """What a killed run was doing, more exactly than `Start.phase`: told by its terminal and its workdir."""
    if storage.exists(workdir / "config.json"):
        amendments = read_amendments(workdir)
        if in_force(amendments, recorded_config(workdir)) != amendments:
            return "amending: the row is written, the configuration is not"
    if list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp")):
        return "saving"
    if done.phase != "training" or done.step is None:
        return done.phase
    epoch = int(re.findall(r"epoch (\d+)/", done.out)[-1])
    if done.step <= max(done.began_at or 0, (epoch - 1) * STEPS_PER_EPOCH):
        return f"epoch {epoch}: compiling, or in its first step"
    return f"epoch {epoch}"


def _saving(workdir: Path) -> Moment:
    """The moment when a checkpoint is being written."""
    return lambda: any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def _amending(workdir: Path) -> Moment:
    """The moment when the rows have been written anew, which is what an amendment does first."""
    before = (workdir / "metrics.jsonl").stat().st_ino
    return lambda: (workdir / "metrics.jsonl").stat().st_ino != before


def killed_in_phases(on: Ground, entry: Entry, times: int, cache: Path) -> Iterator[None]:
    """Kills a run in whose first epoch only the head trains: at random, when it compiles each phase, when it saves."""
    flags = ("--config.freeze_epochs=1",)
    done = start(on.scratch / "unbroken, in phases", *flags)
    if done.code or done.err:
        raise RuntimeError(f"the unbroken run in phases ended with exit code {done.code}: {done.err}")
    there = Ground(on.scratch / "in phases", on.scratch / "unbroken, in phases", done.seconds, on.seed)
    there.scratch.mkdir()
    moments = (lambda _: "epoch 1/", lambda _: "epoch 2/", _saving)
    yield from interrupted(there, entry, signal.SIGKILL, times, *flags, moments=moments, cache=cache)


def killed_while_amended(on: Ground, entry: Entry, times: int, cache: Path) -> Iterator[None]:
    """Stops a run within its second epoch, goes on by `--amend`, and kills that: at random, when it amends, saves."""
    stopped = on.scratch / "stopped"
    first = start(stopped, "--config.epochs=2", at="epoch 2/", do=lambda pid: os.kill(pid, signal.SIGTERM))
    flags = ("--config.learning_rate=2e-3", "--config.optimizer=sgd", "--config.ema_decay=0.9", "--amend")
    unbroken = _copy(stopped, on.scratch / "unbroken, amended")
    done = start(unbroken, *flags)
    if first.code or first.err or done.code or done.err or len(read_amendments(unbroken)) != 1:
        raise RuntimeError(f"the unbroken amended run ended with exit code {done.code}: {first.err} {done.err}")
    there = Ground(on.scratch / "amended", unbroken, done.seconds, on.seed)
    there.scratch.mkdir()

    def begin(workdir: Path) -> None:
        _copy(stopped, workdir)

    moments = (_amending, _saving)
    yield from interrupted(there, entry, signal.SIGKILL, times, *flags, begin=begin, moments=moments, cache=cache)


def _median_and_most(numbers: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(numbers), 1), "most": round(max(numbers), 1)}


def damaged(on: Ground, entry: Entry) -> Iterator[None]:
    """Damages the newest checkpoint of a finished run, file by file; the run must fall back to the previous one.

    Then all checkpoints are damaged: two starts must refuse, and not start over.
    """
    newest = max((on.unbroken / "checkpoints").iterdir(), key=lambda path: int(path.name))
    largest = max((newest / "state" / "d").iterdir(), key=lambda path: path.stat().st_size).relative_to(newest)
    named = ("state/manifest.ocdbt", "state/_METADATA", "state/_sharding", "proof/metadata", "_CHECKPOINT_METADATA")
    some = [largest, *map(Path, named)]
    cases = [(f"{how} {file}", partial(damage, file)) for how, damage in DAMAGES.items() for file in some]
    cases += [("emptied directory", _empty_directory), ("half of the files", _half_of_the_files)]
    entry.more = {"noticed": 0, "harmless": []}
    for name, damage in cases:
        workdir = _copy(on.unbroken, on.scratch / f"damaged {entry.tried}")
        damage(workdir / "checkpoints" / newest.name)
        done = start(workdir)
        entry.tried += 1
        if f"checkpoint {newest.name} is damaged (" in done.out:
            entry.more["noticed"] += 1
        else:
            entry.more["harmless"].append(name)  # the damaged file is not read: the digest is right
        if done.code or done.err:
            entry.failed.append(f"{name}: exit code {done.code}: {done.err}")
        else:
            entry.compare(workdir, on.unbroken)
        yield
    workdir = _copy(on.unbroken, on.scratch / "all damaged")
    for step in (workdir / "checkpoints").iterdir():
        _half_of_the_files(step)
    before = (workdir / "metrics.jsonl").read_bytes()
    for _ in range(2):
        done = start(workdir)
        entry.tried += 1
        if not (_one_line(done, 2, "none of its checkpoints can be read") and not _files(workdir / "checkpoints")):
            entry.failed.append(f"all damaged: exit code {done.code}: {done.err}")
        if (workdir / "metrics.jsonl").read_bytes() != before:
            entry.failed.append("all damaged: its metrics changed")
    yield


def _truncate(file: Path, step: Path) -> None:
    content = (step / file).read_bytes()
    (step / file).write_bytes(content[: len(content) // 2])


def _flip_a_bit(file: Path, step: Path) -> None:
    content = bytearray((step / file).read_bytes())
    content[len(content) // 2] ^= 1
    (step / file).write_bytes(content)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "cut to half:": _truncate,
    "a bit flipped in": _flip_a_bit,
    "no bytes left of": lambda file, step: (step / file).write_bytes(b""),
    "missing:": lambda file, step: (step / file).unlink(),
}


def _empty_directory(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def _half_of_the_files(step: Path) -> None:
    for path in sorted(_files(step))[::2]:
        path.unlink()


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


def _copy(workdir: Path, to: Path) -> Path:
    shutil.copytree(workdir, to)
    return to


def _one_line(done: Start, code: int, words: str) -> bool:
    """Whether a start ended with this exit code and one line on stderr that contains the words."""
    return done.code == code and done.err.count("\n") == 1 and words in done.err


class NotHere(Exception):
    """A drill cannot run on this machine; the argument says why."""


@contextlib.contextmanager
def _small_disk(on: Ground) -> Iterator[Path]:
    """A filesystem of 4 MiB."""
    disk = on.scratch / "disk"
    disk.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk))
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--recursive", str(disk)], check=True)


def _mount(*arguments: str) -> None:
    try:
        subprocess.run(["mount", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise NotHere("mount: no such command") from None
    except subprocess.CalledProcessError as error:
        raise NotHere(error.stderr.strip()) from None


def _fill(disk: Path) -> None:
    """Fills the disk."""
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**16, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def _make_read_only(disk: Path) -> None:
    """Makes the disk read-only for files opened from now on."""
    _mount("--bind", str(disk), str(disk))
    _mount("-o", "remount,bind,ro", str(disk))


def refused(on: Ground, entry: Entry, times: int, fault: str) -> Iterator[None]:
    """At a random moment the disk becomes full or read-only. Later the fault is removed, and the run must resume.

    Args:
        on: shared directories and figures.
        entry: to be filled.
        times: number of runs.
        fault: `full` or `read-only`.

    Yields:
        After each finished run.
    """
    chance = random.Random(f"{on.seed} {fault}")
    words, do = {
        "full": ("No space left on device", _fill),
        "read-only": ("Read-only file system", _make_read_only),
    }[fault]
    entry.more = {"phases": {}}
    for number in range(times):
        with _small_disk(on) as disk:
            workdir = disk / "run"
            at = 0.0 if number == 0 else chance.uniform(0, on.life)
            done = start(workdir, at=at, do=lambda pid, disk=disk: do(disk))
            if done.code:  # otherwise it ended before the fault
                entry.tried += 1
                entry.more["phases"][done.phase] = entry.more["phases"].get(done.phase, 0) + 1
                if not _one_line(done, 2, words):
                    entry.failed.append(f"{done.phase}: exit code {done.code}: {done.err[-500:]}")
                empty = [path for path in _files(disk) if not path.stat().st_size and path.name != "metrics.jsonl"]
                if fault == "full" and [path for path in empty if path.name != "filler"]:
                    entry.failed.append(f"{done.phase}: left empty: {', '.join(map(str, empty))}")
            if fault == "full":
                (disk / "filler").unlink(missing_ok=True)
            elif done.stopping is not None:
                subprocess.run(["umount", str(disk)], check=True)
            last = start(workdir)
            if last.code or last.err:
                entry.failed.append(f"afterwards: exit code {last.code}: {last.err[-500:]}")
            else:
                entry.compare(workdir, on.unbroken)
        yield


def vanished(on: Ground, entry: Entry) -> Iterator[None]:
    """Files that a run reads or writes are deleted while it trains."""
    data, cache, workdir = (on.scratch / f"vanishing {what}" for what in ("data", "cache", "run"))
    _copy_of_the_sample(data / "copied_images")
    flags = ["--config.dataset=copied_images", f"--config.data_dir={data}"]
    shown = "epoch 2/"

    # The images are mapped into memory, so the run goes on.
    for name, gone in (("cache", cache), ("data", data)):
        done = start(workdir / name, *flags, cache=cache, at=shown, do=lambda pid, gone=gone: shutil.rmtree(gone))
        entry.tried += 1
        if done.code or done.err or done.stopping is None:
            entry.failed.append(f"{name}: exit code {done.code}: {done.err[-500:]}")
        else:
            entry.compare(workdir / name, on.unbroken)
        yield
    # The next start needs the data.
    done = start(workdir / "data", *flags, cache=cache)
    entry.tried += 1
    if not _one_line(done, 2, "no such directory"):
        entry.failed.append(f"no data: exit code {done.code}: {done.err[-500:]}")
    yield
    for name in ("checkpoints", "."):
        where = workdir / "emptied" / name
        done = start(workdir / "emptied", at=shown, do=lambda pid, where=where: shutil.rmtree(where))
        entry.tried += 1
        if not _one_line(done, 2, f"train.py: {workdir}"):
            entry.failed.append(f"{name}: exit code {done.code}: {done.err[-500:]}")
        shutil.rmtree(workdir / "emptied", ignore_errors=True)
        yield


def _copy_of_the_sample(directory: Path) -> None:
    """Copies the bundled sample as another dataset, whose files may be deleted."""
    from flax_resnets.data.tfds import SAMPLE, SAMPLE_DIR

    shutil.copytree(SAMPLE_DIR / SAMPLE, directory)
    for path in _files(directory):
        if path.suffix == ".json":
            path.write_text(path.read_text().replace(SAMPLE, directory.name))
        path.rename(path.with_name(path.name.replace(SAMPLE, directory.name)))


def soak(on: Ground, entry: Entry, epochs: int = 20) -> Iterator[None]:
    """Thousands of steps, saved every tenth: memory, open files and files in the workdir must not grow.

    Args:
        on: shared directories and figures.
        entry: to be filled.
        epochs: of a hundred steps each.

    Yields:
        At the end.
    """
    workdir = on.scratch / "soak"
    seen: dict[str, list[float]] = {"memory_mib": [], "open_files": [], "other_files": [], "checkpoints": []}

    def watch(pid: int) -> None:
        try:
            memory = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
            open_files = len(os.listdir(f"/proc/{pid}/fd"))
            files = sum("checkpoints" not in path.parts for path in _files(workdir))
        except OSError:  # the process has ended, or a checkpoint was just removed
            return
        if not open_files:  # the process is ending
            return
        steps = sum(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*"))
        for name, figure in zip(seen, (memory, open_files, files, steps), strict=True):
            seen[name].append(figure)

    flags = ["--config.batch_size=60", f"--config.epochs={epochs}", "--config.save_every=10"]
    done = start(workdir, *flags, watch=watch, longest=3600.0)
    entry.tried += 1
    if done.code or done.err:
        entry.failed.append(f"exit code {done.code}: {done.err[-500:]}")
    # The first fifth of the time is the start, the first evaluation and the first drawing.
    fifth = len(seen["memory_mib"]) // 5
    entry.more = {"steps": 100 * epochs}
    for name, figures in seen.items():
        figures = figures[fifth:]
        level = min if name == "open_files" else statistics.median  # writing a checkpoint opens some
        early, late = level(figures[:fifth]), level(figures[-fifth:])
        entry.more[name] = {"second_fifth": round(early), "last_fifth": round(late), "most": round(max(figures))}
        if late > early * (1.05 if name == "memory_mib" else 1):
            entry.failed.append(f"{name}: {early:.0f} in the second fifth of its time, {late:.0f} in the last")
    if max(seen["checkpoints"]) > 4:  # the latest two, the best, and the next
        entry.failed.append(f"checkpoints: {max(seen['checkpoints'])} at once")
    yield


def two_at_once(on: Ground, entry: Entry, times: int = 5) -> Iterator[None]:
    """A second start in the workdir of a running one: it must refuse, and leave the first alone."""
    for number in range(times):
        workdir, others = on.scratch / f"two {number}", []
        done = start(
            workdir, at="epoch 1/", do=lambda pid, workdir=workdir, others=others: others.append(start(workdir))
        )
        entry.tried += 1
        if not (others and _one_line(others[0], 2, "another process is training in it")):
            entry.failed.append(f"the second: {others}")
        if done.code or done.err:
            entry.failed.append(f"the first: exit code {done.code}: {done.err}")
        else:
            entry.compare(workdir, on.unbroken)
        yield


def diverged(on: Ground, entry: Entry) -> Iterator[None]:
    """A far too large weight decay makes the weights grow from step to step, until the loss is not finite."""
    flags = ["--config.optimizer=sgd", "--config.schedule=constant", "--config.learning_rate=1"]
    flags += ["--config.weight_decay=20", "--config.max_skipped_steps=10"]
    workdir, before = on.scratch / "diverged", None
    for _ in range(2):  # the second time from the last checkpoint
        done = start(workdir, *flags)
        entry.tried += 1
        found = re.search(r"was not finite for (\d+) steps in a row, up to step (\d+)", done.err)
        if not (found and _one_line(done, 3, found[0])):
            entry.failed.append(f"exit code {done.code}: {done.err[-500:]}")
            break
        last_finite = int(found[2]) - int(found[1])
        kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
        entry.more = {"last_finite_step": last_finite, "checkpoints": kept}
        good = [step for step in kept if step <= last_finite]
        content = [path.read_bytes() for step in good for path in _files(workdir / "checkpoints" / str(step))]
        if len(good) < 2 or before not in (None, content):
            entry.failed.append(f"the loss was finite up to step {last_finite}; the checkpoints are {kept}")
        before = content
    yield


SLOW, RARE = {"latency": 0.2}, "--config.save_every=1000"  # saved at the end of an epoch only

FAULTS = {
    "kills": "kill -9 at a random moment",
    "phases": "kill -9 of a run with `freeze_epochs=1`",
    "amended": "kill -9 of a run that goes on by `--amend`",
    "sigterm": "SIGTERM at a random moment",
    "sigint": "SIGINT (Ctrl-C) at a random moment",
    "damaged": "the newest checkpoint damaged, or all of them",
    "bucket_kills": "a bucket: kill -9 at a random moment",
    "bucket_sigterm": "a bucket: SIGTERM at a random moment",
    "bucket_slow": "a bucket that answers after 200 ms: kill -9",
    "bucket_slow_sigterm": "a bucket that answers after 200 ms: SIGTERM",
    "bucket_refusing": "a bucket that answers one request in ten with 503: kill -9",
    "bucket_cut": "a bucket that cuts one upload in ten: kill -9",
    "full": "the disk full from a random moment on",
    "read_only": "the disk read-only from a random moment on",
    "vanished": "data, image cache, checkpoints or workdir deleted in mid-run",
    "two": "a second start in the same workdir",
    "diverged": "a loss that is not finite any more",
    "soak": "2,000 steps, saved every tenth",
}


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drill", action="append", choices=FAULTS, help="this drill; default all")
    parser.add_argument("--kills", type=int, default=200, metavar="N", help="of kill -9; default 200")
    parser.add_argument(
        "--stops", type=int, default=30, metavar="N", help="of SIGTERM, SIGINT, and kill -9 of other runs; default 30"
    )
    parser.add_argument("--bucket", type=int, default=20, metavar="N", help="of kill -9 in a bucket; default 20")
    parser.add_argument("--seed", type=int, default=0, help="for random moments; default 0")
    parser.add_argument("--page", action="store_true", help="only write the figures in docs/reliability.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 if docs/reliability.md is out of date")
    parsed = parser.parse_args(arguments)
    results, path = root / "results" / "reliability.json", root / "docs" / "reliability.md"
    try:
        if parsed.check:
            if with_generated(path, generated(read_json(results))) == path.read_text():
                return 0
            print("reliability.py: docs/reliability.md is out of date; --page writes it", file=sys.stderr)
            return 1
        if not parsed.page:
            with tempfile.TemporaryDirectory() as scratch:
                _take_place(ground(Path(scratch), parsed.seed), parsed, results)
        path.write_text(with_generated(path, generated(read_json(results))))
    except (UserError, OSError, RuntimeError) as error:
        print(f"reliability.py: {error}", file=sys.stderr)
        return 2
    return 0


def _take_place(on: Ground, parsed: argparse.Namespace, results: Path) -> None:
    kill, some = signal.SIGKILL, parsed.bucket
    drills = {
        "kills": lambda entry: interrupted(on, entry, signal.SIGKILL, parsed.kills),
        "phases": lambda entry: killed_in_phases(on, entry, parsed.stops, on.scratch / "cache"),
        "amended": lambda entry: killed_while_amended(on, entry, parsed.stops, on.scratch / "cache"),
        "sigterm": lambda entry: interrupted(on, entry, signal.SIGTERM, parsed.stops),
        "sigint": lambda entry: interrupted(on, entry, signal.SIGINT, parsed.stops),
        "damaged": lambda entry: damaged(on, entry),
        "bucket_kills": lambda entry: in_bucket(on, entry, kill, some, {}),
        "bucket_sigterm": lambda entry: in_bucket(on, entry, signal.SIGTERM, some // 2, {}),
        "bucket_slow": lambda entry: in_bucket(on, entry, kill, some // 4, SLOW, RARE),
        "bucket_slow_sigterm": lambda entry: in_bucket(on, entry, signal.SIGTERM, some // 4, SLOW, RARE),
        "bucket_refusing": lambda entry: in_bucket(on, entry, kill, some // 2, {"refused": 0.1}, RARE),
        "bucket_cut": lambda entry: in_bucket(on, entry, kill, some // 2, {"cut": 0.1}, RARE),
        "full": lambda entry: refused(on, entry, 10, "full"),
        "read_only": lambda entry: refused(on, entry, 10, "read-only"),
        "vanished": lambda entry: vanished(on, entry),
        "two": lambda entry: two_at_once(on, entry),
        "diverged": lambda entry: diverged(on, entry),
        "soak": lambda entry: soak(on, entry),
    }
    for name in parsed.drill or drills:
        entry, begun = Entry(FAULTS[name]), time.monotonic()

        def write(name: str = name, entry: Entry = entry, begun: float = begun) -> None:
            entry.seconds = time.monotonic() - begun
            known = read_json(results) if results.exists() else {}
            known[name] = entry.as_json()
            write_whole(results, (json.dumps(known, indent=2) + "\n").encode())

        try:
            for _ in drills[name](entry):
                write()
        except NotHere as reason:
            entry.skipped = str(reason)
        write()
        print(f"{name}: tried {entry.tried}, failed {len(entry.failed)}, {entry.seconds:.0f} s", flush=True)


def generated(results: dict[str, Any]) -> str:
    """The table and the notes of docs/reliability.md."""
    table = ["| fault | times | survived | lost steps: median, most | runs compared | different |"]
    table.append("|---|---:|---:|---:|---:|---:|")
    notes = []
    for name in FAULTS:
        if (entry := results.get(name)) is None:
            continue
        if entry["skipped"]:
            table.append(f"| {entry['fault']} | not tried: {entry['skipped']} | | | | |")
            continue
        lost = f"{entry['lost']['median']:g}, {entry['lost']['most']}" if entry["lost"] else ""
        cells = [entry["fault"], entry["tried"], entry["survived"], lost, entry["runs"], entry["different_bits"]]
        table.append("| " + " | ".join(map(str, cells)) + " |")
        notes += [f"- {entry['fault']}: {note}" for note in (*_details(name, entry["more"]), *entry["failed"])]
    machine = next(iter(results.values()))["machine"]
    where = f"{machine['cpu']}, {machine['cores']} cores, which other programs used as well"
    where += f"; Python {machine['python']}, jax {next(iter(results.values()))['jax']}"
    return "\n".join([*table, "", *notes, "", f"Machine: {where}."])


def _details(name: str, more: dict[str, Any]) -> list[str]:
    """The figures that only this drill has, in words."""
    said = []
    if more.get("phases"):
        said.append("phases that it hit: " + ", ".join(f"{phase} ({count})" for phase, count in more["phases"].items()))
    if "stopping_seconds" in more:
        said.append("seconds to the end: {median} (median), {most} (most)".format(**more["stopping_seconds"]))
    if name == "damaged":
        harmless = f"; not needed to read it: {', '.join(more['harmless'])}" if more["harmless"] else ""
        said.append(f"{more['noticed']} times noticed, and the previous checkpoint was used{harmless}")
    if name == "diverged":
        kept = ", ".join(map(str, more["checkpoints"]))
        said.append(f"the loss was finite up to step {more['last_finite_step']}; the checkpoints kept are {kept}")
    if name == "soak":
        words = "{0}: {second_fifth} in the second fifth of the run, {last_fifth} in the last, at most {most}"
        named = {"memory_mib": "memory, MiB", "open_files": "open files", "other_files": "files beside checkpoints/"}
        said += [words.format(name, **more[figure]) for figure, name in named.items()]
        said.append(f"at most {more['checkpoints']['most']} checkpoints at once")
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
