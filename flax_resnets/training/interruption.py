"""Being asked to stop: Ctrl-C, or the SIGTERM of a scheduler."""

import signal
from types import FrameType


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
