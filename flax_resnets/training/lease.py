"""The lock of a workdir in a bucket: a file that its owner writes again and again."""

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flax_resnets import storage

NAME = "lock.json"
_BEAT = 15.0  # seconds between two writes of the owner
_EXPIRY = 60.0  # seconds without a write after which the lock is taken from its owner
_POLL = 2.0  # seconds between two looks at the lock of another machine


class Lease:
    """A lock that is held. A thread writes it every 15 seconds, and only if nobody else has written it since.

    Args:
        path: of the lock.
        owner: the content, by which others know who holds it.
        generation: of the lock that was written last.
    """

    def __init__(self, path: Path, owner: dict[str, Any], generation: int):
        self._path, self._owner, self._generation = path, owner, generation
        self._written, self._lost = time.monotonic(), False
        self._end, self._writing = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises OSError if another start has taken the lock. Asks the bucket if the lock may have expired."""
        if not self._lost and time.monotonic() - self._written > _EXPIRY:
            self._write()
        if self._lost:
            what = "another start has taken over, because this one was not heard of for a minute"
            raise storage.BucketError(errno.EBUSY, what, str(self._path))

    def release(self) -> None:
        """Ends the thread and removes the lock, if it is still this one."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # it expires
            storage.remove_if(self._path, self._generation)

    def _beat(self) -> None:
        while not self._end.wait(_BEAT) and not self._lost:
            with contextlib.suppress(OSError):  # the next one may succeed
                self._write()

    def _write(self) -> None:
        with self._writing:
            asked = time.monotonic()
            self._owner["beat"] = self._owner.get("beat", 0) + 1
            generation = storage.write(self._path, json.dumps(self._owner).encode(), self._generation)
            if generation is None:
                self._lost = True
            else:
                self._generation, self._written = generation, asked


_held: dict[str, Lease] = {}


def check_held(path: Path) -> None:
    """Raises OSError if this process held the lock of the path's workdir, and another start has taken it.

    Called before anything is written there.
    """
    for workdir, lease in tuple(_held.items()):
        if os.fspath(path).startswith(f"{workdir}/"):
            lease.check()


@contextlib.contextmanager
def leased(workdir: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a workdir in a bucket inside the `with` block.

    If the owner is a process of this machine that has ended, the lock is taken from it at once. If it is one of another
    machine, this waits for a minute whether it writes the lock again.

    Args:
        workdir: the directory; it need not exist.
        say: is called with a message when the lock of another owner is taken, or waited for.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the lock cannot be written.
    """
    path, owner = workdir / NAME, _myself()
    while (generation := storage.write(path, json.dumps(owner).encode(), 0)) is None:
        if (found := storage.read_state(path)) is None:
            continue  # released meanwhile
        _wait_for_its_end(workdir, *found, say)
        if (generation := storage.write(path, json.dumps(owner).encode(), found[1])) is not None:
            break
    lease = _held[os.fspath(workdir)] = Lease(path, owner, generation)
    try:
        yield
    finally:
        del _held[os.fspath(workdir)]
        lease.release()


def _wait_for_its_end(workdir: Path, content: bytes, generation: int, say: Callable[[str], None]) -> None:
    """Returns when the lock's owner is known to have ended; raises BlockingIOError if it has not."""
    try:
        owner = json.loads(content)
        name = f"process {owner['process']} of {owner['host']}"
        there = (owner["boot"], owner["namespace"]) == _machine()
        alive = _started(owner["process"]) == owner["started"]
    except (ValueError, KeyError, TypeError):
        name, there, alive = "an unknown process", False, True
    if there:
        if alive:
            raise BlockingIOError(f"{name} is training in it")
        say(f"{workdir}: the lock of {name} is taken over, because that process has ended")
        return
    say(f"{workdir}: locked by {name}; if it is not heard of for {_EXPIRY:.0f} s, its lock is taken over")
    until = time.monotonic() + _EXPIRY
    while (found := storage.read_state(workdir / NAME)) is not None and time.monotonic() < until:
        if found[1] != generation:
            raise BlockingIOError(f"{name} is training in it")
        time.sleep(_POLL)
    if found is not None:
        say(f"{workdir}: the lock of {name} has expired and is taken over")


def _myself() -> dict[str, Any]:
    boot, namespace = _machine()
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _started(os.getpid()),
        "boot": boot,
        "namespace": namespace,
        "key": uuid.uuid4().hex,
    }


def _machine() -> tuple[str, int]:
    """What is the same for all processes that see each other by their numbers: a boot of Linux, and a container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # no Linux
        return uuid.uuid4().hex, 0


def _started(process: int) -> str | None:
    """When a process of this machine began, in the kernel's count; None if there is none of this number."""
    try:
        # The program's name, in parentheses, may contain anything.
        return Path(f"/proc/{int(process)}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
