"""A signal sets a flag if there is something to save, and raises an exception if there is not."""

import signal
import time

import pytest

from flax_resnets.training.interruption import Interruption, Stopped


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_is_noted_and_the_handlers_of_before_come_back(number):
    before = signal.getsignal(number)
    with Interruption() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop.signal == number.name
    assert signal.getsignal(number) is before


def test_what_came_before_it_listened_is_heard():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)
    with Interruption() as stop:
        assert stop.signal == "SIGTERM"


def test_a_hang_up_that_is_ignored_stays_so():
    """SIGHUP is ignored, as under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_asked_for_before_the_work_begins_it_does_not_begin():
    stop = Interruption()
    stop.ask("a button")
    with stop, pytest.raises(Stopped, match="a button"), stop.at_once():
        pytest.fail("went on")


def test_a_second_ctrl_c_does_not_wait():
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def stopped(stop: Interruption) -> None:
    with stop.at_once():
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("went on")


def test_at_once_it_is_raised():
    with Interruption() as stop, pytest.raises(Stopped, match="SIGTERM"):
        stopped(stop)


def test_at_once_what_came_before_is_raised():
    with Interruption() as stop:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGTERM"), stop.at_once():
            pytest.fail("went on")


def swallowed(stop: Interruption) -> None:
    """The signal comes while an extension module is imported, which raises another error."""
    with stop.at_once():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None


def test_what_a_library_makes_of_it_is_still_a_stop():
    with Interruption() as stop, pytest.raises(Stopped, match="SIGINT"):
        swallowed(stop)


class Stopping:
    """Like a callback of the garbage collector, whose exceptions are ignored."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def collected(stop: Interruption) -> None:
    with stop.at_once():
        Stopping()
        time.sleep(10)
        pytest.fail("went on")


def test_where_it_cannot_be_raised_it_is_raised_a_little_later():
    with Interruption() as stop, pytest.raises(Stopped, match="SIGTERM"):
        collected(stop)


def test_an_error_of_its_own_is_left_alone():
    with Interruption() as stop, pytest.raises(ValueError, match="its own"), stop.at_once():
        raise ValueError("its own")
