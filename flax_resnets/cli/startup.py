"""Starts and ends a process of the command line: what is done before JAX is imported and after the command."""

import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

_STOPS = [signal.SIGINT, signal.SIGTERM]
if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup sets this
    _STOPS.append(signal.SIGHUP)


def hold_signals() -> None:
    """Blocks the signals that stop a run, until `run` handles them.

    The imports take seconds. A signal that comes during them takes effect afterwards, when `run` begins. After `run`
    there is nothing to stop, so the signals have no effect.
    """
    for number in _STOPS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def release_signals() -> None:
    """Lets signals end the process immediately: for commands that save nothing and may take minutes."""
    for number in _STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def end(code: int) -> NoReturn:
    """Ends the process without waiting for threads whose work is no longer needed, such as those of a download.

    In a run of several processes, Python ends the process as usual, so that the others are notified.
    """
    jax = sys.modules.get("jax")  # not imported by --help
    if jax is None or not jax.distributed.is_initialized():
        with suppress(OSError):  # the terminal is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
