"""Runs tasks in other processes. Results are passed on at once, and a task that crashes does not affect the others.

A part of accelerator.py is a module with `tasks(job)`, which returns names in order, each with a function that yields
rows. The parent starts a worker process with some of the names. The worker writes a line of JSON when a task begins,
for each row, and when the task ends. If a task raises an error, its row has the reason in one line. If a task ends its
worker, the parent writes that row, and starts another worker for the other tasks.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks.on_accelerator.rows import Row

ROOT = Path(__file__).resolve().parents[2]
WORKER = [sys.executable, "-m", "benchmarks.on_accelerator.tasks"]
_LONGEST_REASON = 400  # characters


@dataclasses.dataclass(frozen=True)
class Job:
    """What all tasks are told.

    Attributes:
        part: name of the part.
        small: whether to use small sizes for CPUs.
        output: directory in which tasks may write.
        data_dir: directory of TFDS's datasets; None for TFDS's default.
        deadline: `time.time()` at which the tasks must have ended.
        backend: JAX's backend, as `jax.default_backend()` names it.
        device: the kind of the first device, as JAX names it.
        devices: number of devices.
    """

    part: str
    small: bool
    output: str
    data_dir: str | None
    deadline: float
    backend: str
    device: str
    devices: int

    @property
    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.time()


Task = Callable[[], Iterable[Row]]


def tasks_of(job: Job) -> dict[str, Task]:
    """The tasks of a part, in order."""
    return importlib.import_module(f"benchmarks.on_accelerator.{job.part}").tasks(job)


def in_a_line(error: BaseException) -> str:
    """What went wrong."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST_REASON]


def work(argument: str) -> None:
    """The main function of a worker. It does not return.

    Args:
        argument: JSON with the job and the names of the tasks.
    """
    order = json.loads(argument)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever libraries print goes to stderr, away from the messages
    _end_with_parent()
    tasks = tasks_of(Job(**order["job"]))
    for name in order["names"]:
        print(json.dumps({"begin": name}), file=answers)
        try:
            for row in tasks[name]():
                print(json.dumps({"row": row}), file=answers)
        except Exception as error:
            print(json.dumps({"row": {"error": in_a_line(error)}}), file=answers)
        print(json.dumps({"end": name}), file=answers)
    answers.close()
    os._exit(0)  # other threads may still compile programs that are no longer needed


def _end_with_parent() -> None:
    """Kills this process and its children when the parent ends, so that none of them occupies the device."""

    def watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def run_tasks(
    job: Job,
    names: Iterable[str],
    *,
    together: bool,
    grace: float = 0.0,
    environment: dict[str, str] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Runs tasks until all have ended or the deadline is reached.

    Args:
        job: what the tasks are told.
        names: names of the tasks.
        together: whether all tasks run in one process, while it lives; otherwise each has its own.
        grace: seconds after the deadline in which a task may end by itself.
        environment: variables for the workers, in addition to this process's.

    Yields:
        The name of a task and one of its rows: a result, or `error`, or `skipped` if the task was not started.
    """
    left = list(names)
    while left:
        if job.seconds_left <= 0:
            for name in left:
                yield name, {"skipped": "the time was up before it began"}
            return
        with _Worker(job, left if together else left[:1], environment or {}) as worker:
            begun = None
            for message in worker.messages(job.deadline + grace):
                if "begin" in message:
                    begun = message["begin"]
                elif "row" in message:
                    yield left[0], message["row"]
                else:
                    left.remove(message["end"])
                    begun = None
            if begun is not None or not worker.finished:
                yield left[0], {"error": worker.how_it_ended()}
                left.pop(0)


class _Worker:
    """A worker process, with all processes that it starts."""

    def __init__(self, job: Job, names: list[str], environment: dict[str, str]):
        order = json.dumps({"job": dataclasses.asdict(job), "names": names})
        self._log: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  # closed by __exit__
        self._process = subprocess.Popen(
            [*WORKER, order],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # its own process group, which can be killed as a whole
        )
        self._timed_out = False

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._log):
            assert file is not None
            file.close()

    def messages(self, deadline: float) -> Iterator[dict[str, Any]]:
        """The worker's messages until it ends. At the deadline they stop, and the worker is to be killed."""
        assert self._process.stdout is not None
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                left = deadline - time.time()
                if left <= 0:
                    self._timed_out = True
                    return
                if not selector.select(min(left, 1.0)):
                    continue
                more = os.read(self._process.stdout.fileno(), 65536)
                if not more:
                    return
                *lines, said = (said + more).split(b"\n")
                yield from map(json.loads, lines)

    @property
    def finished(self) -> bool:
        """Whether the worker ended by itself, with exit code 0."""
        return not self._timed_out and self._process.wait() == 0

    def how_it_ended(self) -> str:
        """Why the worker gives no more messages, in one line."""
        if self._timed_out:
            return "the time was up, and it was stopped"
        code = self._process.wait()
        self._log.seek(0)
        last = [line.strip() for line in self._log if line.strip()][-1:]
        how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ": ".join([how, *last])[:_LONGEST_REASON]


if __name__ == "__main__":
    work(sys.argv[1])
