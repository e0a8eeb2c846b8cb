"""Tells a run's callbacks what happens; a callback that fails or is slow is named."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flax_resnets.errors import UserError
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.interruption import Interruption, Stopped

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run

# A callback that takes a larger share of an epoch's time, and more seconds, is named.
_SLOW_SHARE = 0.05
_SLOW_SECONDS = 0.5


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of a class whose __str__ fails
        return ""


class Observers:
    """The callbacks of a run, as a context that closes them.

    An error in a callback of the user's stops the run as a signal does: all processes stop at the same step, and save.
    The callback is not called again, except for `close`. Leaving the context raises the error.

    Args:
        own: callbacks of this package. Their errors are raised as they are.
        users: callbacks of the user's.
        stop: stops the run.
        say: prints a line.

    Raises:
        UserError: on leaving the context, if a callback of the user's failed; it names the callback's class, the method
            and the error, which is its `__cause__`.
    """

    def __init__(
        self, own: Sequence[Callback], users: Sequence[Callback], stop: Interruption, say: Callable[[str], None]
    ):
        self._own, self._users = own, users
        self._stop, self._say = stop, say
        self._error: UserError | None = None
        self._silent: set[int] = set()  # their places among the user's
        self._named: set[int] = set()  # as slow
        self._seconds = [0.0] * len(users)
        self._epoch_began = 0.0

    @property
    def failed(self) -> bool:
        """Whether a callback of the user's has failed."""
        return self._error is not None

    def tell(self, method: str, run: "Run", *arguments: Any) -> None:
        """Calls a method of each callback.

        Args:
            method: its name, such as `on_epoch_end`.
            run: the run.
            arguments: what the method takes after the run.
        """
        if method == "on_epoch_begin":
            self._seconds, self._epoch_began = [0.0] * len(self._users), time.perf_counter()
        for callback in self._own:
            getattr(callback, method)(run, *arguments)
        for place, callback in enumerate(self._users):
            if place in self._silent:
                continue
            started = time.perf_counter()
            with self._caught(place, method):
                getattr(callback, method)(run, *arguments)
            self._seconds[place] += time.perf_counter() - started
        if method == "on_epoch_end":
            self._name_slow(run.history[-1].epoch)

    def __enter__(self) -> "Observers":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with contextlib.ExitStack() as stack:
            for callback in self._own:
                stack.callback(callback.close)
            for place in reversed(range(len(self._users))):
                with self._caught(place, "close"):
                    self._users[place].close()
        if self._error is not None:
            if error is None or isinstance(error, Stopped):
                raise self._error from self._error.__cause__
            self._say(str(self._error))  # beside the other error, which is raised

    @contextlib.contextmanager
    def _caught(self, place: int, method: str) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as error:
            self._silent.add(place)
            if self._error is not None:
                return  # it may follow from the first one
            where = f"{type(self._users[place]).__name__}.{method}"
            if isinstance(error, UserError):
                self._error = error
            else:
                what = f"{type(error).__name__}: {_text(error)[:300]}".rstrip(": ")
                self._error = UserError(
                    f"{where}: {what}; what was trained is saved, and once that is put right, the same command goes on"
                )
                self._error.__cause__ = error
            self._stop.ask(where)

    def _name_slow(self, epoch: int) -> None:
        whole = time.perf_counter() - self._epoch_began
        for place, seconds in enumerate(self._seconds):
            callback = self._users[place]
            is_slow = seconds > max(_SLOW_SHARE * whole, _SLOW_SECONDS) and not callback.takes_time
            if is_slow and place not in self._named:
                self._named.add(place)
                name = type(callback).__name__
                self._say(f"{name} took {seconds / whole:.0%} of epoch {epoch}'s time, {seconds:.1f} of {whole:.1f} s")
