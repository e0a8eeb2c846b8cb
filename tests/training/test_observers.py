"""Callbacks that fail, and slow ones."""

import contextlib
import re
import sys
import time
from types import SimpleNamespace

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training import observers
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.interruption import Interruption, Stopped
from flax_resnets.training.loop import fit
from flax_resnets.training.observers import Observers
from tests.training.test_early_stopping import checkpoints, figures

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")


@pytest.fixture(scope="module")
def unbroken(make_trainer, config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    fit(make_trainer(config), workdir)
    return figures(workdir)


class Broken(Callback):
    """Fails in one method, if it is called with these arguments after the run."""

    def __init__(self, method: str, *arguments: object):
        self.closed = 0

        def fail(*given):
            if not arguments or given[1:2] == arguments:
                raise ZeroDivisionError("division by zero")

        setattr(self, method, fail)

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("method", "arguments", "saved"),
    [
        ("on_run_begin", (), []),
        ("on_epoch_begin", (2,), [6, 7]),
        ("on_step_end", (8,), [6, 10]),  # the steps in flight are finished
        ("on_step_end", (4,), [6]),  # which end the epoch
        ("on_evaluation_step", (3,), [6]),
        ("on_run_end", (), None),
        ("close", (), None),
    ],
)
def test_an_error_costs_no_step(make_trainer, config, unbroken, tmp_path, method, arguments, saved):
    trainer, broken = make_trainer(config), Broken(method, *arguments)
    with pytest.raises(
        UserError, match=rf"Broken\.{method}: ZeroDivisionError: division by zero; what was trained is saved, and once"
    ) as caught:
        fit(trainer, tmp_path, callbacks=[broken])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert broken.closed == (method != "close")
    if saved is None:
        assert figures(tmp_path) == unbroken
    else:
        assert checkpoints(tmp_path) == saved
        fit(trainer, tmp_path)
        assert figures(tmp_path) == unbroken


def test_an_error_at_an_epochs_end_keeps_the_epoch(make_trainer, config, unbroken, tmp_path):
    trainer = make_trainer(config)

    class Second(Callback):
        def on_epoch_end(self, run, row):
            if row.epoch >= 2:
                raise UserError(f"{tmp_path}/my.csv: is not mine")

    with pytest.raises(UserError, match=r"my\.csv: is not mine$"):  # a UserError says itself what is wrong
        fit(trainer, tmp_path, callbacks=[Second()])
    assert figures(tmp_path) == unbroken[:2]
    assert checkpoints(tmp_path) == [12, 13]
    with pytest.raises(UserError, match=r"my\.csv: is not mine$"):
        fit(trainer, tmp_path, callbacks=[Second()])
    assert figures(tmp_path) == unbroken  # it was the last epoch, so the run is done


def test_the_first_error_is_told_and_other_callbacks_are_called_on():
    class Watch(Callback):
        def on_step_end(self, run, step, output):
            said.append(step)

    said, stop, other = [], Interruption(), Broken("on_step_end")
    told = Observers((), [Broken("on_epoch_begin", 1), other, Watch()], stop, said.append)
    told.tell("on_epoch_begin", None, 1)
    assert told.failed
    assert stop.signal == "Broken.on_epoch_begin"
    told.tell("on_step_end", None, 1, None)
    told.tell("on_step_end", None, 2, None)
    with pytest.raises(UserError, match=r"Broken\.on_epoch_begin: ZeroDivisionError"), told:
        raise Stopped("by it")
    assert said == [1, 2]
    assert other.closed == 1


def test_another_error_is_not_hidden_by_that_of_a_callback():
    said = []
    with pytest.raises(MemoryError), Observers((), [Broken("close")], Interruption(), said.append):
        raise MemoryError
    assert said[0].startswith("Broken.close: ZeroDivisionError: division by zero")


def test_sys_exit_is_an_error_too():
    stop = Interruption()

    class Exits(Callback):
        def on_step_end(self, run, step, output):
            sys.exit("enough")

    saved = r"^Exits\.on_step_end: SystemExit: enough; what was trained is saved"
    with pytest.raises(UserError, match=saved), Observers((), [Exits()], stop, print) as told:
        told.tell("on_step_end", None, 1, None)
    assert stop


def test_an_error_of_our_own_is_no_users_mistake():
    closed = Broken("on_step_end")
    with pytest.raises(ZeroDivisionError), Observers([closed], [closed], Interruption(), print) as told:
        told.tell("on_step_end", None, 1, None)
    assert closed.closed == 2


def test_a_slow_callback_is_named_once(monkeypatch):
    monkeypatch.setattr(observers, "_SLOW_SECONDS", 0.01)
    said, run = [], SimpleNamespace(history=[SimpleNamespace(epoch=4)])

    class Slow(Callback):
        def on_step_end(self, run, step, output):
            time.sleep(0.02)

    class Tracer(Slow):
        takes_time = True

    users = [Callback(), Tracer(), Slow()]
    with Observers((), users, Interruption(), said.append) as told, contextlib.suppress(ValueError):
        for epoch in (4, 5):
            told.tell("on_epoch_begin", run, epoch)
            told.tell("on_step_end", run, 1, None)
            told.tell("on_epoch_end", run, None)
    (line,) = said
    assert re.fullmatch(r"Slow took \d+% of epoch 4's time, [\d.]+ of [\d.]+ s", line)
