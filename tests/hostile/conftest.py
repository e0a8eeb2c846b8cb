"""Checks that a hostile input gives one printable line on stderr and exit code 2, and leaves no file behind."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from watching import listing

import train
from flax_resnets import cli


@pytest.fixture
def sandbox(tmp_path, monkeypatch) -> Path:
    """A directory with a home, a working directory and a directory for temporary files, in which nothing may change.

    Decoded images and compiled programs are kept elsewhere, with those of all tests.
    """
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


# Long enough for a field's name, its value, and all allowed values.
LONGEST_LINE = 6000


@pytest.fixture
def refused(sandbox, capfd) -> Callable[..., str]:
    """Calls a function that must return exit code 2, checks what it leaves, and returns its line on stderr."""

    def check(door: Callable[[], int], *mentioned: str) -> str:
        before = listing(sandbox)
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            code = door()
        _, err = capfd.readouterr()
        assert code == 2, err
        assert [str(each.message) for each in warned] == []
        assert err.endswith("\n"), err
        line = err[:-1]
        assert line.isprintable(), err  # a second line, an escape sequence or a bell would not be
        assert "Traceback" not in line
        assert len(line) < LONGEST_LINE
        for each in mentioned:
            assert each in line
        assert listing(sandbox) == before
        return line

    return check


@pytest.fixture(autouse=True)
def no_training(monkeypatch) -> None:
    """Fails a test whose request is accepted, instead of training for minutes."""
    from flax_resnets.training.loop import Run

    def accepted(*_):
        pytest.fail("accepted: the training begins")

    monkeypatch.setattr(Run, "_epochs", accepted)


@pytest.fixture
def train_refuses(refused) -> Callable[..., str]:
    """Checks that `train.py` refuses these arguments, in a line that contains the texts `mentioned`."""

    def check(arguments: list[str], *mentioned: str) -> str:
        line = refused(lambda: train.main(arguments), *mentioned)
        assert line.startswith("train.py: ")
        return line

    return check


@pytest.fixture
def command_refuses(refused) -> Callable[..., str]:
    """Checks that `python -m flax_resnets` refuses these arguments, in a line that contains the texts `mentioned`."""

    def check(arguments: list[str], *mentioned: str) -> str:
        line = refused(lambda: cli.main(arguments), *mentioned)
        assert line.startswith("flax_resnets: ")
        return line

    return check
