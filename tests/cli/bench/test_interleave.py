"""Contenders that do almost nothing: the order of turns, the results, and what happens when one fails."""

import sys
from pathlib import Path

import pytest

from flax_resnets.cli.bench.interleave import Contender, Process, interleave

FAKE = """
import os, sys, time

now = 0.0  # a clock that shows what repetitions take, whatever else the machine does
time.perf_counter = lambda: now

def prepare(log="", name="", seconds=1.0, fails_at=None, dies_at=None, says=""):
    if fails_at == 0:
        raise RuntimeError("no such\\nmachine")
    calls = 0

    def repeat(n):
        global now
        nonlocal calls
        calls += 1
        print("a library prints this")
        if calls == fails_at:
            raise MemoryError("too big")
        if calls == dies_at:
            print(says, file=sys.stderr, flush=True)
            os._exit(3)
        if log:
            with open(log, "a") as file:
                file.write(f"{name}{n} ")
        now += seconds * n

    return repeat, {"pid": os.getpid()}
"""
WARM_UP = 3  # calls before the first turn


@pytest.fixture
def fake(tmp_path):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    return lambda name, **options: Contender(name, path, {"name": name, **options})


def run(*contenders, rounds=3, turn=1e-9, **options):
    return interleave([Process([each]) for each in contenders], rounds, turn=turn, pause=0, **options)


def test_each_has_a_turn_in_each_round_and_none_is_always_first(fake, tmp_path):
    log = str(tmp_path / "log")
    result = run(*(fake(name, log=log) for name in "abc"), rounds=4)
    warm_ups, turns = ["a1"] * WARM_UP + ["b1"] * WARM_UP + ["c1"] * WARM_UP, "abc bca cab abc"
    assert Path(log).read_text().split() == warm_ups + [f"{name}1" for name in turns.replace(" ", "") for _ in range(2)]
    assert {name: len(seconds) for name, seconds in result.seconds.items()} == {"a": 4, "b": 4, "c": 4}
    assert len({facts["pid"] for facts in result.facts.values()}) == 3
    assert not result.left_out


def test_seconds_are_those_of_one_repetition_and_a_turn_has_as_many_as_fit(fake):
    result = run(fake("fast", seconds=0.01), fake("slow", seconds=0.2), rounds=2, turn=0.1)
    assert {name: facts["steps"] for name, facts in result.facts.items()} == {"fast": 10, "slow": 1}
    assert result.seconds["fast"] == pytest.approx([0.01, 0.01])
    assert result.seconds["slow"] == pytest.approx([0.2, 0.2])


def test_a_turns_first_repetition_is_not_timed(tmp_path):
    path = tmp_path / "fresh.py"
    path.write_text(f"""
import itertools, time

now = 0.0
time.perf_counter = lambda: now

def prepare():
    calls = itertools.count()

    def repeat(n):
        global now
        now += 0.2 if (next(calls) - {WARM_UP}) % 2 == 0 else 0.01

    return repeat, {{}}
""")
    result = interleave([Process([Contender("slow to begin", path)])], 3, turn=1e-9, pause=0)
    assert result.seconds["slow to begin"] == pytest.approx([0.01] * 3)


def test_contenders_can_share_a_process(fake):
    result = interleave([Process([fake("a"), fake("b", fails_at=0), fake("c")])], 2, turn=1e-9, pause=0)
    assert result.facts["a"]["pid"] == result.facts["c"]["pid"]
    assert list(result.seconds) == ["a", "c"]
    assert result.left_out == {"b": "RuntimeError: no such machine"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fails_at": 0}, "RuntimeError: no such machine"),
        ({"fails_at": 2}, "MemoryError: too big"),
        ({"fails_at": WARM_UP + 3}, "round 2: MemoryError: too big"),
        ({"dies_at": 1, "says": "no space\n\n"}, "ended with exit code 3: no space"),
        ({"dies_at": WARM_UP + 1}, "round 1: ended with exit code 3: a library prints this"),
        ({"nonsense": 1}, "TypeError: prepare() got an unexpected keyword argument 'nonsense'"),
    ],
)
def test_one_that_fails_is_left_out_with_its_reason_and_the_others_go_on(fake, options, reason):
    said = []
    result = run(fake("bad", **options), fake("good"), say=said.append)
    assert result.left_out == {"bad": reason}
    assert list(result.seconds) == list(result.facts) == ["good"]
    assert len(result.seconds["good"]) == 3
    assert f"bad: left out: {reason}" in said


def test_a_python_that_is_none_is_left_out(fake, tmp_path):
    processes = [
        Process([fake("missing")], python=tmp_path / "python"),
        Process([fake("silent")], python="true"),
        Process([fake("good")], python=sys.executable),
    ]
    result = interleave(processes, 1, turn=1e-9, pause=0)
    assert result.left_out == {
        "missing": f"{tmp_path / 'python'}: No such file or directory",
        "silent": "ended with exit code 0",
    }
    assert list(result.seconds) == ["good"]


def test_a_contender_imports_from_its_paths_and_has_its_environment(tmp_path):
    (tmp_path / "here_alone.py").write_text("WORD = 'found'")
    path = tmp_path / "contender.py"
    path.write_text(
        "import os, here_alone\nprepare = lambda: (lambda n: None, {'word': here_alone.WORD, **os.environ})"
    )
    process = Process([Contender("it", path)], paths=[str(tmp_path)], environment={"ONLY": "this"})
    facts = interleave([process], 1, turn=1e-9, pause=0).facts["it"]
    assert (facts["word"], facts["ONLY"]) == ("found", "this")
    assert "HOME" not in facts
