"""Being asked to stop: Ctrl-C, a scheduler's SIGTERM, a lost terminal; of several processes, all at the same step."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _to_be_heard() -> list[signal.Signals]:
    """Those of `STOPS` that get a handler: in a thread Python allows none, and nohup has SIGHUP ignored."""
    if threading.current_thread() is not threading.main_thread():
        return []
    hang_up_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOPS if not (hang_up_ignored and number == signal.SIGHUP)]


class Stopped(KeyboardInterrupt):
    """A stop was asked for, and what there was to save is saved. The argument is what asked: a signal's name."""


class Interruption:
    """A context in which SIGINT, SIGTERM and SIGHUP raise a flag instead of ending the process where it stands.

    The flag is the object's truth. A second SIGINT raises KeyboardInterrupt after all, for whoever will not wait. One
    that was blocked until then (`signal.pthread_sigmask`) is heard as the context begins. A SIGHUP that is ignored, as
    under nohup, stays so. In a thread other than the main one Python has no signals; `ask` raises the flag there.

    Attributes:
        signal: the name of the signal that came, such as `SIGINT`, or what `ask` was given; None before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._previous = {}
        self._at_once = False

    def __enter__(self) -> "Interruption":
        numbers = _to_be_heard()
        for number in numbers:
            self._previous[number] = signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal is not None

    def ask(self, who: str = "a request") -> None:
        """Raises the flag as a signal would, from any thread."""
        self.signal = self.signal or who

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context with nothing to save, such as hours of decoding: the signal raises `Stopped` where it comes."""
        self._at_once, others = True, sys.unraisablehook

        def hook(unraisable: Any) -> None:
            if isinstance(unraisable.exc_value, Stopped):
                # Raised in a callback of the garbage collector, which ignores it: to be raised once more, elsewhere.
                number, self.signal = signal.Signals[str(self.signal)], None
                threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            else:
                others(unraisable)

        sys.unraisablehook = hook
        try:
            if self:
                raise Stopped(self.signal)
            yield
            if self:  # asked for in a thread
                raise Stopped(self.signal)
        except Exception as error:
            if self:  # a library under way made that of it
                raise Stopped(self.signal) from error
            raise
        finally:
            self._at_once, sys.unraisablehook = False, others

    def _note(self, number: int, frame: FrameType | None) -> None:
        before = self.signal
        if before == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name
        if before is None and self._at_once:
            raise Stopped(self.signal)


class SharedInterruption(Interruption):
    """An `Interruption` of several processes: once one is asked to stop, all are, at the same place.

    Each asking of its truth is a place, so that every process must ask equally often; JAX's runtime, which has hung on
    to SIGTERM since `jax.distributed.initialize`, agrees on one that no process has passed yet.
    """

    def __init__(self):
        super().__init__()
        self._places = 0

    def __enter__(self) -> "SharedInterruption":
        numbers = _to_be_heard()
        for number in numbers:
            if number != signal.SIGTERM:  # which is the runtime's: a handler of ours would take it away
                self._previous[number] = signal.signal(number, self._pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        return self

    def ask(self, who: str = "a request") -> None:
        """As ever; the others learn of it as of a SIGTERM."""
        os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """As ever: the others have to hear of it as well, and do so where all of them ask."""
        yield

    def __bool__(self) -> bool:
        self._places += 1
        if self.signal is None and multihost_utils.reached_preemption_sync_point(self._places):
            self.signal = "SIGTERM"
        return self.signal is not None

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def interruption() -> Interruption:
    """What stops a run here: one process by itself, several together."""
    return SharedInterruption() if jax.process_count() > 1 else Interruption()
