"""A list of checksums: sha256sum can read it, and any changed byte is noticed."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from flax_resnets.training.checksums import check_checksums, write_checksums


@pytest.fixture
def listed(tmp_path) -> Path:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "0a1b").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "_METADATA").write_text("{}")
    write_checksums(tmp_path, [tmp_path / "d" / "0a1b", tmp_path / "_METADATA"])
    return tmp_path


def test_it_is_what_sha256sum_writes(listed):
    theirs = subprocess.run(["sha256sum", "_METADATA", "d/0a1b"], cwd=listed, capture_output=True, check=True).stdout
    assert (listed / "SHA256SUMS").read_bytes() == theirs


def test_what_was_not_changed_passes_and_so_does_what_came_later(listed):
    (listed / "d" / "notes").write_text("mine")
    (listed / "d" / "loop").symlink_to("..")
    check_checksums(listed)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["d/0a1b", "_METADATA"]), data=st.data())
def test_any_change_is_noticed_and_its_file_named(listed, name, data):
    path = listed / name
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)), label="at")
    patch = data.draw(st.binary(max_size=9), label="patch")
    changed = content[:at] + patch + content[at + data.draw(st.integers(0, 9), label="instead of") :]
    assume(changed != content)
    path.write_bytes(changed)
    try:
        with pytest.raises(ValueError, match=rf"^{name} is not what was written$"):
            check_checksums(listed)
    finally:
        path.write_bytes(content)


def test_a_directory_that_cannot_be_listed_is_no_missing_file(listed, monkeypatch):
    scan = os.scandir

    def refused(path="."):
        if Path(path) == listed / "d":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        check_checksums(listed)


def test_a_missing_file_is_named(listed):
    (listed / "d" / "0a1b").unlink()
    with pytest.raises(ValueError, match=r"^d/0a1b is missing$"):
        check_checksums(listed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 64,
        b"\xff\xfe\n",
        b"d/0a1b\n",
        b"0" * 64 + b" d/0a1b\n",
        b"0" * 64 + b"  \x1b[2J\n",
    ],
)
def test_a_list_that_is_none(listed, content):
    (listed / "SHA256SUMS").write_bytes(content)
    with pytest.raises(ValueError, match="SHA256SUMS is no list of checksums"):
        check_checksums(listed)


@pytest.mark.parametrize("junk", [b"\n", b"0" * 64, b"\0\n"])
def test_a_list_with_something_behind_it_is_none(listed, junk):
    (listed / "SHA256SUMS").write_bytes((listed / "SHA256SUMS").read_bytes() + junk)
    with pytest.raises(ValueError, match="SHA256SUMS is no list of checksums"):
        check_checksums(listed)


@pytest.mark.parametrize("name", ["/dev/zero", "../outside", "d", "d/pipe"])
def test_what_is_no_file_below_it_is_not_opened(listed, name):
    (listed.parent / "outside").write_text("outside")
    subprocess.run(["mkfifo", "d/pipe"], cwd=listed, check=True)
    (listed / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(ValueError, match=f"{name} is missing"):
        check_checksums(listed)


def test_without_a_list_it_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="SHA256SUMS"):
        check_checksums(tmp_path)
