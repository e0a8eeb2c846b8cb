"""The content of a folder is recognised; files that did not change are not read again."""

import os
import shutil
import time
from pathlib import Path

import pytest

from flax_resnets.data.folder import hashes
from flax_resnets.data.source import Source, open_source


def identity(root: Path, split: str = "train") -> tuple[str, str]:
    source = open_source("folder", split, root)
    return source.fingerprint, source.cache_key


def make_old(root: Path, monkeypatch) -> None:
    """Lets the files count as changed long ago."""
    later = time.time_ns() + 10**10
    monkeypatch.setattr(time, "time_ns", lambda: later)


@pytest.fixture
def read_files(monkeypatch) -> list[str]:
    """The names of the files that are read to be hashed."""
    names, hashed = [], hashes._hashed

    def count(path: bytes, size: int, sampled: bool) -> bytes:
        names.append(os.path.basename(path).decode())
        return hashed(path, size, sampled)

    monkeypatch.setattr(hashes, "_hashed", count)
    return names


def index_of(cache_dir: Path) -> Path:
    (path,) = cache_dir.glob("folder-index/*/index.npz")
    return path


def test_the_place_and_the_times_do_not_matter(photos, tmp_path):
    before = identity(photos)
    shutil.copytree(photos, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.png"):
        os.utime(path, (1, 1))
    assert identity(tmp_path / "copy") == before
    (tmp_path / "copy").rename(tmp_path / "moved")
    assert identity(tmp_path / "moved") == before
    assert identity(photos, "validation") != before


def add(root: Path) -> None:
    shutil.copy(root / "train/cat/1.png", root / "train/cat/4.png")


def change_a_byte(root: Path) -> None:
    """Changes neither the size nor the time of the last change."""
    path = root / "train/cat/1.png"
    content, times = bytearray(path.read_bytes()), path.stat()
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES = {
    "added": add,
    "removed": lambda root: (root / "train/cat/1.png").unlink(),
    "moved to another class": lambda root: (root / "train/cat/1.png").rename(root / "train/dog/0.png"),
    "renamed": lambda root: (root / "train/cat/1.png").rename(root / "train/cat/9.png"),
    "a byte changed": change_a_byte,
    "a class renamed": lambda root: (root / "train/dog").rename(root / "train/hound"),
    "exchanged": lambda root: shutil.copy(root / "train/dog/1.png", root / "train/cat/1.png"),
}


@pytest.mark.parametrize("old", [False, True], ids=["just made", "made long ago"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_noticed(photos, change, old, monkeypatch):
    before = identity(photos)
    if old:
        make_old(photos, monkeypatch)
        assert identity(photos) == before
    change(photos)
    after = identity(photos)
    assert after[0] != before[0]
    assert after[1] != before[1]
    assert identity(photos) == after


def test_only_changed_files_are_read_again(photos, monkeypatch, read_files, cache_dir):
    make_old(photos, monkeypatch)
    before = identity(photos)
    assert sorted(read_files) == ["1.png", "1.png", "2.png", "2.png", "3.png"]
    read_files.clear()
    assert identity(photos) == before
    assert read_files == []
    add(photos)
    change_a_byte(photos)
    (photos / "train/dog/2.png").unlink()
    identity(photos)
    assert sorted(read_files) == ["1.png", "4.png"]
    assert [path.name for path in index_of(cache_dir).parent.iterdir()] == ["index.npz"]


def test_files_that_changed_just_now_are_read_again(photos, read_files):
    identity(photos)
    read_files.clear()
    identity(photos)
    assert len(read_files) == 5


@pytest.mark.parametrize("damage", [b"", b"PK\3\4 and so on", None], ids=["empty", "foreign", "cut short"])
def test_a_damaged_index_is_written_anew(photos, monkeypatch, read_files, cache_dir, damage):
    make_old(photos, monkeypatch)
    before = identity(photos)
    index = index_of(cache_dir)
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    (index.parent / "tmp-of-a-killed-process").write_bytes(b"half")
    read_files.clear()
    assert identity(photos) == before
    assert len(read_files) == 5
    read_files.clear()
    assert identity(photos) == before
    assert read_files == []
    assert os.listdir(index.parent) == ["index.npz"]


def test_every_changed_byte_of_the_index_is_harmless(photos, monkeypatch, cache_dir):
    make_old(photos, monkeypatch)
    before = identity(photos)
    index = index_of(cache_dir)
    whole = index.read_bytes()
    for position in range(0, len(whole), 97):
        index.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        assert identity(photos) == before


def test_an_index_that_cannot_be_kept_is_said(photos, monkeypatch, tmp_path):
    before = identity(photos)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "file"))
    source = open_source("folder", "train", photos)
    assert (source.fingerprint, source.cache_key) == before
    (note,) = source.notes
    assert "is not kept, so each start reads all files: [Errno 20] Not a directory" in note


def test_of_very_much_only_parts_are_read(photos, monkeypatch):
    monkeypatch.setattr(hashes, "_WHOLE", 100)
    path = photos / "train/cat/1.png"
    path.write_bytes(bytes(100_000))
    before = identity(photos)
    assert before[0] != before[1]
    assert identity(photos) == before
    os.utime(path, (1, 1))
    touched = identity(photos)
    assert touched[0] == before[0]
    assert touched[1] != before[1]
    path.write_bytes(bytes(99_999) + b"x")
    assert identity(photos)[0] != before[0]


@pytest.mark.slow
def test_a_hundred_thousand_files(tmp_path, monkeypatch):
    """Opening takes less than ten seconds, later less than one, in CPU time; and a few hundred bytes for each file."""
    import resource

    for number in range(100_000):
        if number % 1000 == 0:
            (tmp_path / f"train/class{number // 1000 % 10}").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"train/class{number // 1000 % 10}/{number:06}.png").write_bytes(b"%06d" % number * 50)
    make_old(tmp_path, monkeypatch)
    (tmp_path / "train").rename(tmp_path / "val")
    os.symlink(tmp_path / "val", tmp_path / "train")

    def opened() -> tuple[Source, float, int]:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        source = open_source("folder", "train", tmp_path)
        seconds = time.process_time() - began
        return source, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory

    first, first_seconds, first_kib = opened()
    again, seconds, _ = opened()
    print(f"first {first_seconds:.2f} s, {first_kib / 1024:.0f} MiB more; then {seconds:.2f} s")
    assert len(first) == 100_000
    assert first.fingerprint == again.fingerprint
    assert first_seconds < 10
    assert seconds < 1.5
    assert first_kib < 100 * 1024
