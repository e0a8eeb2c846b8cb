"""What commands write: whole files under names that are free, and nothing on a full disk."""

import os
import resource

import pytest

from flax_resnets.cli.output import write_file, write_new
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
