"""A file has the old content or the new, whatever happens in between."""

import os

import pytest

from flax_resnets.training.atomic import write_whole


def test_it_replaces(tmp_path):
    path = tmp_path / "config.json"
    for content in (b"first", b"second"):
        write_whole(path, content)
        assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_broken_off_it_leaves_the_old_one_alone(tmp_path, monkeypatch, call):
    path = tmp_path / "config.json"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
