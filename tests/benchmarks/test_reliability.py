"""benchmarks/drills/reliability.py: some of its drills, and the page with the results of all drills."""

import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.drills import reliability
from benchmarks.drills.reliability import Entry, Ground, Start

# A fifth of the drills' images, in as many steps.
FEW = "--config.train_split=train[:1200]", "--config.validation_split=test[:200]", "--config.batch_size=100"


@pytest.fixture(scope="module")
def _ground(tmp_path_factory) -> Ground:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliability, "SMALL", (*reliability.SMALL, *FEW))
        return reliability.ground(tmp_path_factory.mktemp("drills"))


@pytest.fixture
def on(_ground, monkeypatch) -> Ground:
    """Where the test's starts have few images."""
    monkeypatch.setattr(reliability, "SMALL", (*reliability.SMALL, *FEW))
    return _ground


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_in_the_same_bits(on, tmp_path, kills):
    """Two runs at the same time."""
    entries = [Entry("kill -9"), Entry("kill -9")]

    def kill(number: int) -> None:
        scratch = tmp_path / str(number)
        scratch.mkdir()
        there = replace(on, scratch=scratch, seed=number)
        for _ in reliability.interrupted(there, entries[number], signal.SIGKILL, kills):
            pass

    with ThreadPoolExecutor() as pool:
        list(pool.map(kill, range(2)))
    for entry in entries:
        assert entry.failed == []
        assert (entry.tried, entry.different_bits) == (kills, 0)
        assert entry.runs > 0
        assert max(entry.lost, default=0) < 2 * 2 + 1  # save_every=2, and one step whose end was not shown


@pytest.mark.slow
@pytest.mark.parametrize("drill", [reliability.killed_in_phases, reliability.killed_while_amended])
def test_killed_in_two_phases_or_while_amended_it_ends_in_the_same_bits(on, tmp_path, drill):
    entry = Entry("kill -9")
    for _ in drill(replace(on, scratch=tmp_path), entry, 6, tmp_path / "cache"):
        pass
    assert entry.failed == []
    assert (entry.tried, entry.different_bits) == (6, 0)
    assert entry.runs > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_before_its_first_step_it_stops_at_once(on, tmp_path, number):
    """The signal comes during the imports: no workdir is made, and nothing is written to stderr."""
    entry = Entry("a stop")
    early = replace(on, scratch=tmp_path, life=0.4)
    assert list(reliability.interrupted(early, entry, number, 1)) == []
    assert entry.failed == []
    assert entry.more["phases"] == {"before the first step": 1}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="a system without prlimit")
def test_a_disk_that_takes_nothing_more_is_one_line_and_the_run_goes_on_later(on, tmp_path):
    def no_file_may_grow(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    workdir = tmp_path / "run"
    done = reliability.start(workdir, at="epoch 2/", do=no_file_may_grow)
    assert done.code == 2
    assert done.err.startswith(f"train.py: {workdir}")
    assert done.err.endswith("File too large; once that is put right, the same command goes on\n")
    assert done.err.count("\n") == 1
    half = [path for path in workdir.rglob("*") if path.match("*tmp*") or (path.is_file() and not path.stat().st_size)]
    assert half == []
    last = reliability.start(workdir)
    assert (last.code, last.err) == (0, "")
    assert reliability.rows(workdir) == reliability.rows(on.unbroken)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(reliability.FAULTS.keys() - {"kills", "soak"}))
def test_a_drill_finds_nothing(tmp_path, name):
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(reliability.ROOT / "docs" / "reliability.md", tmp_path / "docs")
    assert reliability.main(["--drill", name, "--stops", "5", "--bucket", "4"], root=tmp_path) == 0
    entry = reliability.read_json(tmp_path / "results" / "reliability.json")[name]
    assert entry["failed"] == []
    assert entry["tried"] > 0 or entry["skipped"]
    assert reliability.main(["--check"], root=tmp_path) == 0


def test_what_a_terminal_showed_is_understood():
    out = "runs/x: going on from step 4 of 36\r\nepoch train_loss valid_loss\r\n"
    assert (Start(0, out, "", 1.0, None).step, Start(0, out, "", 1.0, None).phase) == (4, "before the first step")
    out += "epoch 1/3 ━━━━ 6/12 900 images/s 0:00:01\r\n    1     1.7182\r\nepoch 2/3 ━━━━ 3/12 900 images/s -:--:--"
    assert (Start(0, out, "", 1.0, None).step, Start(0, out, "", 1.0, None).phase) == (15, "training")
    out += "\r\nevaluating ━━━━━ 1/2  0:00:00"
    assert (Start(0, out, "", 1.0, None).began_at, Start(0, out, "", 1.0, None).phase) == (4, "evaluating, closing")


def test_the_page_in_this_tree_is_what_its_results_say():
    assert reliability.main(["--check"]) == 0


def test_a_promise_is_changed_in_the_page_and_stays_when_the_figures_are_written(tmp_path):
    for name in ("docs/reliability.md", "results/reliability.json"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(reliability.ROOT / name, tmp_path / name)
    page = tmp_path / "docs" / "reliability.md"
    page.write_text(page.read_text().replace("## What is promised", "## What is promised\n\nMore."))
    assert reliability.main(["--check"], root=tmp_path) == 0
    page.write_text(page.read_text().replace("| 200 | 200 |", "| 300 | 300 |"))
    assert reliability.main(["--check"], root=tmp_path) == 1
    assert reliability.main(["--page"], root=tmp_path) == 0
    assert "## What is promised\n\nMore.\n" in page.read_text()
    assert "| 200 | 200 |" in page.read_text()


def test_a_file_of_results_that_is_missing_is_named(tmp_path, capsys):
    assert reliability.main(["--page"], root=tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"reliability.py: {Path(tmp_path, 'results', 'reliability.json')}: ")
