"""Lets contenders take turns, so that other load on the machine slows all of them equally."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

_CHILD = Path(__file__).with_name("child.py")
_END = 10.0  # seconds that a child has to end after its input ends


@dataclass(frozen=True)
class Contender:
    """A program to be timed.

    Attributes:
        name: its name in the results.
        file: a Python file with the function `prepare`; see `child.py`.
        options: keyword arguments of `prepare`; JSON values.
    """

    name: str
    file: Path
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    """A process and its contenders. It has several only on a device that allows one process, such as a TPU.

    Attributes:
        contenders: that run in it.
        python: the interpreter that runs it.
        paths: directories to import from, before its own environment.
        environment: its environment variables; None for this process's.
    """

    contenders: Sequence[Contender]
    python: str | Path = sys.executable
    paths: Sequence[str] = ()
    environment: Mapping[str, str] | None = None


@dataclass
class Measurement:
    """The results.

    Attributes:
        seconds: for each contender, the time of one repetition in each round.
        facts: for each contender, the facts that its `prepare` returned, `steps` in a turn, and `first_seconds`, the
            time of the first repetition, compilation included.
        left_out: for each contender without results, the reason.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def interleave(
    processes: Sequence[Process],
    rounds: int,
    *,
    turn: float = 2.0,
    pause: float = 0.2,
    say: Callable[[str], None] = lambda _: None,
) -> Measurement:
    """Times contenders by turns.

    Processes are started and warmed up one after the other. Then, in each round, every contender has a turn while the
    others wait. Each round begins with the next contender, so that none always follows the same other one. A contender
    that cannot be prepared, fails or dies is left out, and the others continue.

    Args:
        processes: processes with contenders; the names of the contenders must differ.
        rounds: number of turns of each contender.
        turn: length of a turn in seconds: as many repetitions as fit, at least one.
        pause: seconds between turns, in which the threads of the previous contender become idle.
        say: is called with progress messages.

    Example:
        >>> interleave([Process([Contender("nothing", Path("/no/such/file.py"))])], rounds=1).left_out
        {'nothing': "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file.py'"}
    """
    result = Measurement()
    with ExitStack() as stack:
        turns: dict[str, tuple[_Child, int]] = {}

        def leave_out(name: str, reason: str) -> None:
            result.left_out[name] = reason
            turns.pop(name, None)
            result.seconds.pop(name, None)
            say(f"{name}: left out: {reason}")

        for process in processes:
            try:
                child = stack.enter_context(_started(process, turn))
            except OSError as error:
                for contender in process.contenders:
                    leave_out(contender.name, f"{process.python}: {error.strerror}")
                continue
            answer = child.answer()
            each = answer if isinstance(answer, list) else [answer] * len(process.contenders)
            for number, (contender, ready) in enumerate(zip(process.contenders, each, strict=True)):
                if "error" in ready:
                    leave_out(contender.name, ready["error"])
                else:
                    turns[contender.name] = child, number
                    result.seconds[contender.name] = []
                    facts = {name: ready[name] for name in ("steps", "first_seconds")}
                    result.facts[contender.name] = facts | ready["facts"]
                    say(f"{contender.name}: ready, first repetition {ready['first_seconds']:.1f} s")
        for number in range(rounds):
            names = list(turns)
            start = number % max(len(names), 1)
            for name in names[start:] + names[:start]:
                time.sleep(pause)
                child, task = turns[name]
                answer = child.ask(task)
                if "error" in answer:
                    leave_out(name, f"round {number + 1}: {answer['error']}")
                else:
                    result.seconds[name].append(answer["seconds"])
            say(f"round {number + 1} of {rounds}")
    result.facts = {name: facts for name, facts in result.facts.items() if name in result.seconds}
    return result


@contextmanager
def _started(process: Process, turn: float) -> Iterator["_Child"]:
    """Runs `child.py` in a process while the context lasts."""
    tasks = [{"file": str(contender.file), "options": contender.options} for contender in process.contenders]
    order = {"paths": list(process.paths), "turn": turn, "tasks": tasks}
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        running = subprocess.Popen(
            [str(process.python), str(_CHILD), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=process.environment,
            text=True,
        )
        try:
            yield _Child(running, log)
        finally:
            for pipe in (running.stdin, running.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            try:
                running.wait(_END)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


class _Child:
    """The parent's side of `child.py`."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]):
        self._process = process
        self._log = log

    def ask(self, task: int) -> dict[str, Any]:
        """Runs one turn."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the child is dead; `answer` gives the reason
            self._process.stdin.write(f"{task}\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """The next answer of the child, or an error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            return json.loads(line)
        except ValueError:
            return {"error": f"answered {line.strip()[:100]!r}" if line else self._end()}

    def _end(self) -> str:
        code = self._process.wait()
        self._log.seek(0)
        last = [text.strip() for text in self._log if text.strip()][-1:]
        how = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ": ".join([how, *last])
