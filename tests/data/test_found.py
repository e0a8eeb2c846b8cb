"""What kind of data lies in a directory."""

import os

from flax_resnets.data.found import Found, found_in


def test_of_a_large_directory_only_the_first_entries_are_looked_at(tmp_path, monkeypatch):
    """A directory of a million files would take seconds for a message."""
    scan, seen = os.scandir, []

    class Counted:
        def __init__(self, path):
            self._entries = scan(path)
            seen.append(0)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._entries.close()

        def __iter__(self):
            return self

        def __next__(self):
            seen[-1] += 1
            return next(self._entries)

    for number in range(1500):
        (tmp_path / f"{number}.txt").touch()
    monkeypatch.setattr(os, "scandir", Counted)
    assert found_in(tmp_path) is None
    assert 0 < max(seen) <= 1000


def test_a_file_and_what_is_not_there_have_none(tmp_path):
    (tmp_path / "a.npz").touch()
    assert found_in(tmp_path / "a.npz") is None
    assert found_in(tmp_path / "nowhere") is None
    assert found_in(tmp_path) == Found("npz", "arrays", tmp_path / "a.npz")
