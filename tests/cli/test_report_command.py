"""The command `report`: where the page goes, and what it refuses."""

from pathlib import Path

import pytest

from flax_resnets import cli
from flax_resnets.inference import report as reports


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    monkeypatch.setattr(
        reports, "report", lambda source, **options: f"<!doctype html> {source} {options['checkpoint']}"
    )


def test_the_page_lies_in_the_workdir_and_is_not_overwritten(capsys):
    assert cli.main(["report", "run", "--checkpoint", "last"]) == 0
    assert Path("run/report.html").read_text() == "<!doctype html> run last"
    assert capsys.readouterr().out == "run/report.html: 0.0 kB\n"
    assert cli.main(["report", "run"]) == 2
    assert capsys.readouterr().err == (
        "flax_resnets: report: --output=run/report.html: exists; name another file, or replace it with --force\n"
    )
    assert cli.main(["report", "run", "--force", "--checkpoint", "12"]) == 0
    assert Path("run/report.html").read_text() == "<!doctype html> run 12"


def test_another_file(capsys):
    assert cli.main(["report", "run", "--output", "mine.html"]) == 0
    assert not Path("run/report.html").exists()
    assert Path("mine.html").exists()
    for output in ("run", "no/such/page.html"):
        assert cli.main(["report", "run", "--output", output]) == 2
        assert f"--output={output}" in capsys.readouterr().err


def test_what_is_not_here_gets_its_page_in_the_working_directory():
    assert cli.main(["report", "hf-hub:owner/name"]) == 0
    assert Path("report.html").exists()


def test_no_such_run(monkeypatch, capsys):
    monkeypatch.undo()
    assert cli.main(["report", "no/such/run"]) == 2
    assert "no/such/run: no such directory" in capsys.readouterr().err
