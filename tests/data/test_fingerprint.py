"""Fingerprints depend on the content of files, not on their location."""

import os
import shutil

import pytest

from flax_resnets.data import fingerprint
from flax_resnets.data.fingerprint import fingerprints


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "records"
    path.write_bytes(os.urandom(2**20))
    return path


def changed(path, position: int) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


def test_it_is_of_the_content_and_of_what_stands_beside_it(path, tmp_path):
    before = fingerprints([path], b"features")
    os.utime(path, (1, 1))
    copy = shutil.copy(path, tmp_path / "elsewhere")
    assert fingerprints([path], b"features") == fingerprints([copy], b"features") == before
    assert fingerprints([path], b"others")[0] != before[0]
    assert fingerprints([path, copy], b"features")[0] != before[0]
    changed(path, 12345)
    assert fingerprints([path], b"features")[0] != before[0]


def test_of_a_large_set_samples_are_hashed(path, monkeypatch):
    monkeypatch.setattr(fingerprint, "_WHOLE", 2**18)
    before, cache_key = fingerprints([path], b"")
    os.utime(path, (1, 1))
    same, other_key = fingerprints([path], b"")
    assert same == before
    assert other_key != cache_key  # decoded again, because the hashed samples may have missed a change

    last = 2**20 - 2**16  # where the last block begins
    for position, noticed in ((0, True), (last, True), (2**20 - 1, True), (last - 1, False)):
        changed(path, position)
        assert (fingerprints([path], b"")[0] != before) is noticed
        changed(path, position)
    path.write_bytes(path.read_bytes() + b"x")
    assert fingerprints([path], b"")[0] != before


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        fingerprints([tmp_path / "records"], b"")
