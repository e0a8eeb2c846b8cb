"""What commands write: whole files under names that are free, and nothing on a full disk."""

import contextlib
import os
import resource
import sys
from pathlib import Path

import pytest

from flax_resnets.cli.output import check_directory, progress_of_images, write_file, write_new
from flax_resnets.errors import UserError


@pytest.fixture
def full_disk():
    """A disk on which no file has room for more than 100 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_files_that_belong_together_have_the_first_free_name(tmp_path):
    contents = {".png": b"picture", ".json": b"{}"}
    assert [each.name for each in write_new("lr-find", tmp_path, "curve", contents)] == ["curve.png", "curve.json"]
    (tmp_path / "curve-2.json").write_text("another program's")
    assert [each.name for each in write_new("lr-find", tmp_path, "curve", contents)] == ["curve-3.png", "curve-3.json"]
    assert (tmp_path / "curve-2.json").read_text() == "another program's"
    assert sorted(os.listdir(tmp_path)) == ["curve-2.json", "curve-3.json", "curve-3.png", "curve.json", "curve.png"]


def test_on_a_full_disk_new_files_leave_nothing(tmp_path, full_disk):
    with pytest.raises(UserError, match=r"^lr-find: .*/curve\.json: File too large; name a place"):
        write_new("lr-find", tmp_path, "curve", {".png": b"picture", ".json": bytes(200_000)})
    assert os.listdir(tmp_path) == []


def test_on_a_full_disk_the_old_file_stays(tmp_path, full_disk):
    (target := tmp_path / "page.html").write_text("old")
    write_file("report", target, b"new")
    with pytest.raises(UserError, match=r"^report: .*/page\.html: File too large"):
        write_file("report", target, bytes(200_000))
    assert (target.read_text(), os.listdir(tmp_path)) == ("new", ["page.html"])


def test_a_directory_to_be_made_is_checked_before_anything_is_computed(tmp_path):
    check_directory("evaluate", tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    for name, which in (
        ("file", ""),
        ("file/x/y", rf"{tmp_path}/file "),
        ("lost/x", rf"{tmp_path}/lost "),
        ("a\0b", ""),
    ):
        with pytest.raises(
            UserError, match=rf"^evaluate: --output={tmp_path}/.*: {which}is no directory that can be w"
        ):
            check_directory("evaluate", tmp_path / name)
    with pytest.raises(UserError, match=r"^evaluate: --output=/proc/sys/x: /proc/sys is no directory that can"):
        check_directory("evaluate", Path("/proc/sys/x"))


@pytest.mark.parametrize("end", [KeyboardInterrupt, UserError("broken"), None])
def test_the_progress_is_cleared_whatever_happens(monkeypatch, capsys, end):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("flax_resnets.cli.output._EVERY", -1.0)
    monkeypatch.delenv("FLAX_RESNETS_QUIET", raising=False)
    with contextlib.suppress(KeyboardInterrupt, UserError), progress_of_images() as progress:
        assert progress is not None
        progress(1234, 5000)
        if end is not None:
            raise end
    assert capsys.readouterr().err == "\r1,234 of 5,000 images\x1b[K\r\x1b[K"


def test_there_is_no_progress_where_results_are_printed(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with progress_of_images(sys.stdout) as progress:
        assert progress is None
