"""Stops a run on Ctrl-C, SIGTERM or a lost terminal; several processes stop at the same step."""

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
    """The signals of `STOPS` to handle: none in a thread, where Python allows no handlers; not SIGHUP under nohup."""
    if threading.current_thread() is not threading.main_thread():
        return []
    hang_up_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOPS if not (hang_up_ignored and number == signal.SIGHUP)]


class Stopped(KeyboardInterrupt):
    """The run was asked to stop and has saved its state. The argument says by what: a signal's name, or as in `ask`."""


class Interruption:
    """A context in which SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process.

    The object is true if the flag is set. A second SIGINT raises KeyboardInterrupt, for a user who does not want to
    wait. A signal that was blocked before (`signal.pthread_sigmask`) takes effect when the context begins. If SIGHUP
    was ignored before, as under nohup, it is still ignored. In a thread other than the main one Python delivers no
    signals; there `ask` sets the flag.

    Attributes:
        signal: name of the signal that set the flag, such as `SIGINT`, or the argument of `ask`; None before.
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
        """Sets the flag, from any thread.

        Args:
            who: what asks for the stop, for the message.
        """
        self.signal = self.signal or who

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A context in which a signal raises `Stopped` immediately: for work with nothing to save, such as decoding."""
        self._at_once, others = True, sys.unraisablehook

        def hook(unraisable: Any) -> None:
            if isinstance(unraisable.exc_value, Stopped):
                # It was raised in a callback of the garbage collector, which ignores exceptions. Send the signal again.
                number, self.signal = signal.Signals[str(self.signal)], None
                threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
            else:
                others(unraisable)

        sys.unraisablehook = hook
        try:
            if self:
                raise Stopped(self.signal)
            yield
            if self:  # `ask` was called in a thread
                raise Stopped(self.signal)
        except Exception as error:
            if self:  # a library turned `Stopped` into another error
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
    """An `Interruption` of several processes: if one of them is asked to stop, all stop at the same point.

    A point is one evaluation of the object's truth value, so all processes must evaluate it equally often. JAX's
    runtime has handled SIGTERM since `jax.distributed.initialize`. It agrees on a point that no process has reached.
    """

    def __init__(self):
        super().__init__()
        self._places = 0

    def __enter__(self) -> "SharedInterruption":
        numbers = _to_be_heard()
        for number in numbers:
            if number != signal.SIGTERM:  # the runtime handles it; a handler here would replace the runtime's
                self._previous[number] = signal.signal(number, self._pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        return self

    def ask(self, who: str = "a request") -> None:
        """Sends this process a SIGTERM, by which all processes learn of it.

        Args:
            who: not used; `signal` becomes `SIGTERM`.
        """
        os.kill(os.getpid(), signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Does nothing, because no process stops before the point at which all stop."""
        yield

    def __bool__(self) -> bool:
        self._places += 1
        if self.signal is None and multihost_utils.reached_preemption_sync_point(self._places):
            self.signal = "SIGTERM"
        return self.signal is not None

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def interruption() -> Interruption:
    """An `Interruption` for one process, a `SharedInterruption` for several."""
    return SharedInterruption() if jax.process_count() > 1 else Interruption()
