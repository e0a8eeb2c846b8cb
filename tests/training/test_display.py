"""What is shown of progress: lines where there is no terminal, one line written over in a notebook."""

import io
import re
import sys
import types

import pytest
from rich.console import Console

from flax_resnets.training import display
from flax_resnets.training.display import Display


@pytest.fixture
def clock(monkeypatch):
    """A clock to be set by hand."""
    now = types.SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(display.time, "monotonic", lambda: now.seconds)
    return now


def test_without_a_terminal_there_is_a_line_a_minute(clock, capsys):
    with Display().bar("epoch 3/10", 1000, "images/s", 64) as bar:
        for step in range(1, 1001):
            clock.seconds += 0.25
            bar.to(step, lambda: 1.5)
    first, *_, last = lines = capsys.readouterr().out.splitlines()
    assert first == "epoch 3/10: 240 of 1,000, loss 1.5000, 256 images/s, 03:10 left"
    assert last.startswith("epoch 3/10: 960 of 1,000, loss 1.5000, 256 images/s, 00:10 left")
    assert len(lines) == 4


def test_gone_on_with_in_the_middle_it_counts_its_own_steps(clock, capsys):
    """The time left is computed without the minutes in which the programs were compiled."""
    with Display().bar("epoch 3/10", 1000) as bar:
        clock.seconds += 90
        bar.to(501)
        clock.seconds += 100
        bar.to(601)
    assert capsys.readouterr().out.splitlines() == [
        "epoch 3/10: 501 of 1,000",
        "epoch 3/10: 601 of 1,000, 06:39 left",
    ]


def test_what_is_soon_done_prints_nothing(clock, capsys):
    with Display().bar("evaluating", 10) as bar:
        bar.to(10)
    with Display(silent=True).bar("evaluating", 10) as bar:
        clock.seconds += 1000
        bar.to(10)
    assert capsys.readouterr().out == ""


def test_in_a_notebook_one_line_is_written_over(clock, monkeypatch):
    """With what every notebook has. rich's bar would need ipywidgets, and warn if they are missing."""
    shown: list[tuple[str, bool]] = []

    def ipython_display(data: dict, raw: bool, display_id: str, update: bool) -> None:
        assert raw
        shown.append((data["text/plain"], update))

    notebook = types.ModuleType("IPython")
    notebook.display = types.SimpleNamespace(display=ipython_display)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    screen = Display()
    screen.console = Console(force_jupyter=True)
    with screen.bar("epoch 1/2", 8) as bar:
        for step in range(1, 9):
            clock.seconds += 0.25
            bar.to(step)
    assert shown == [
        ("epoch 1/2: 2 of 8, 00:02 left", False),
        ("epoch 1/2: 4 of 8, 00:01 left", True),
        ("epoch 1/2: 6 of 8, 00:00 left", True),
        ("epoch 1/2: 8 of 8, 00:00 left", True),
        ("", True),
    ]


class Gone:
    """A terminal that has been closed."""

    def __init__(self, error: OSError):
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), BrokenPipeError()])
def test_a_terminal_that_is_gone_is_no_error(monkeypatch, error):
    monkeypatch.setattr(sys, "stdout", Gone(error))
    Display().say("nobody hears it")


def test_a_full_disk_under_the_output_is_one(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Gone(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        Display().say("nobody hears it")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("coloured", [True, False])
def test_no_color(monkeypatch, coloured):
    """https://no-color.org: with NO_COLOR there is no colour; bold is none."""
    monkeypatch.setenv("NO_COLOR", "" if coloured else "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", out := Terminal())
    with Display().bar("epoch 1/10", 10) as bar:
        bar.to(5)
    assert "epoch 1/10" in out.getvalue()
    assert bool(re.search(r"\x1b\[(?:\d+;)*(?:3\d|9\d)[;m]", out.getvalue())) is coloured


def test_quiet_shows_no_progress_but_what_is_said(monkeypatch, clock, capsys):
    monkeypatch.setenv("FLAX_RESNETS_QUIET", "1")
    display = Display()
    with display.bar("epoch 1/10", 10) as bar:
        clock.seconds += 90
        bar.to(5)
    display.say("checkpoint 7 is damaged")
    assert capsys.readouterr().out == "checkpoint 7 is damaged\n"
