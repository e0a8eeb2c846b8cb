"""What becomes of a hostile input: one printable line on stderr, exit code 2, and no trace of it anywhere."""

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
    """A home, a working directory and a place for temporary files, all of which are watched.

    Decoded images and compiled programs go where those of all tests go: they are no request's.
    """
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


# Room for a field's name, its value, and all there could have been instead.
LONGEST_LINE = 6000


@pytest.fixture
def refused(sandbox, capfd) -> Callable[..., str]:
    """Runs a door (a function that returns an exit code) and checks how it refuses; returns its line on stderr."""

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
    """A request that should have been refused must not train for minutes instead."""
    from flax_resnets.training.loop import Run

    def accepted(*_):
        pytest.fail("accepted: the training begins")

    monkeypatch.setattr(Run, "_epochs", accepted)


@pytest.fixture
def train_refuses(refused) -> Callable[..., str]:
    """`train.py` with these arguments is refused, in a line that holds what is `mentioned`."""

    def check(arguments: list[str], *mentioned: str) -> str:
        line = refused(lambda: train.main(arguments), *mentioned)
        assert line.startswith("train.py: ")
        return line

    return check


@pytest.fixture
def command_refuses(refused) -> Callable[..., str]:
    """`python -m flax_resnets` with these arguments is refused, in a line that holds what is `mentioned`."""

    def check(arguments: list[str], *mentioned: str) -> str:
        line = refused(lambda: cli.main(arguments), *mentioned)
        assert line.startswith("flax_resnets: ")
        return line

    return check
