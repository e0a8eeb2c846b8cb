"""Being asked to stop: Ctrl-C, or the SIGTERM of a scheduler; of several processes, all at the same step."""

import os
import signal
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Interruption:
    """A context in which SIGINT and SIGTERM raise a flag instead of ending the process where it stands.

    The flag is the object's truth. A second SIGINT raises KeyboardInterrupt after all, for whoever will not wait.

    Attributes:
        signal: the name of the signal that came, such as `SIGINT`; None before.
    """

    def __init__(self):
        self.signal: str | None = None
        self._previous = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __bool__(self) -> bool:
        return self.signal is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name


class SharedInterruption(Interruption):
    """An `Interruption` of several processes: once one is asked to stop, all are, at the same place.

    Each asking of its truth is a place, so that every process must ask equally often; JAX's runtime, which has hung on
    to SIGTERM since `jax.distributed.initialize`, agrees on one that no process has passed yet.
    """

    def __init__(self):
        super().__init__()
        self._places = 0

    def __enter__(self) -> "SharedInterruption":
        # SIGTERM is the runtime's: a handler of ours would take it away.
        self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._pass_on)
        return self

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
