"""A dataset's archive with members whose paths lead out of the directory into which they are extracted."""

import importlib.util
import io
import shutil
import tarfile

import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import TEXT
from watching import listing

from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="with TensorFlow the extraction is TensorFlow's"
)
JPEG = simplejpeg.encode_jpeg(np.zeros((20, 30, 3), np.uint8))


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o6777
    info.size = len(JPEG) if kind == tarfile.REGTYPE else 0
    return info


IMAGE = "imagenette2-160/train/n01440764/0.JPEG"

# Members added to an archive's images.
MEMBERS: dict[str, list[tarfile.TarInfo]] = {
    "above": [member("../../evil")],
    "far above": [member("../" * 40 + "tmp/hostile-evil")],
    "above from within": [member("imagenette2-160/../../../evil")],
    "absolute": [member("/tmp/hostile-evil")],
    "absolute twice": [member("//tmp/hostile-evil")],
    "hidden": [member(".bashrc")],
    "a link out": [member("out", tarfile.SYMTYPE, "../../../../home")],
    "a link out and a file through it": [member("out", tarfile.SYMTYPE, "../../../../home"), member("out/evil")],
    "an absolute link": [member("out", tarfile.SYMTYPE, "/etc/passwd")],
    "a link to itself": [member("out", tarfile.SYMTYPE, "out")],
    "a hard link out": [member("out", tarfile.LNKTYPE, "../../../../home/secret")],
    "an absolute hard link": [member("out", tarfile.LNKTYPE, "/etc/passwd")],
    "a character device": [member("zero", tarfile.CHRTYPE)],
    "a block device": [member("disk", tarfile.BLKTYPE)],
    "a pipe": [member("pipe", tarfile.FIFOTYPE)],
    "an unknown kind": [member("what", b"Z")],
    "a directory of no permissions": [member("imagenette2-160/train/locked", tarfile.DIRTYPE)],
    "a line's end in a name": [member("imagenette2-160/a\nb\x1b[2J")],
    "a name too long": [member("imagenette2-160/" + "x" * 300)],
    "a file where a directory is": [member("imagenette2-160/train")],
    "a file twice": [member(IMAGE)],
}


# Preparing takes a second for each, so these are slow. The next test has most members in one archive.
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) for name in MEMBERS])
def test_a_member_that_would_leave_its_directory(sandbox, website, monkeypatch, name):
    prepared_or_refused(sandbox, website, monkeypatch, MEMBERS[name])


def test_members_that_would_leave_their_directory(sandbox, website, monkeypatch):
    fatal = ("a name too long", "a file where a directory is", "a link out and a file through it")
    together = [each for name, members in MEMBERS.items() if name not in fatal for each in members]
    prepared_or_refused(sandbox, website, monkeypatch, together)


PIECES = st.one_of(st.sampled_from(["", ".", "..", "imagenette2-160", "train", "val", "n01440764", "out"]), TEXT)
PATHS = st.lists(PIECES, min_size=1, max_size=5).map("/".join).filter(lambda path: "\0" not in path)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(members=st.lists(st.builds(member, PATHS, KINDS, PATHS), min_size=1, max_size=4))
def test_any_members(sandbox, website, monkeypatch, members):
    shutil.rmtree(sandbox / "work" / "data", ignore_errors=True)
    prepared_or_refused(sandbox, website, monkeypatch, members)


def prepared_or_refused(sandbox, website, monkeypatch, members) -> None:
    """Either the dataset is prepared, or one line refuses the archive; nothing is written outside `data_dir`."""
    from tensorflow_datasets.datasets.imagenette import imagenette_dataset_builder

    directory, address = website
    images = [f"imagenette2-160/{part}/n01440764/{number}.JPEG" for part in ("train", "val") for number in range(3)]
    with tarfile.open(directory / "imagenette2-160.tgz", "w:gz") as archive:
        for info in (*map(member, images), *members):
            archive.addfile(info, io.BytesIO(JPEG) if info.isreg() else None)
    monkeypatch.setattr(imagenette_dataset_builder, "_URL_PREFIX", address)
    data_dir = sandbox / "work" / "data"
    data_dir.mkdir()
    before = listing(sandbox)
    line = "imagenette"
    try:
        open_source("imagenette/160px-v2", "train", data_dir)
    except UserError as error:
        line = str(error)
    assert "imagenette" in line
    assert line.isprintable()
    after = {path: entry for path, entry in listing(sandbox).items() if not path.startswith("work/data/")}
    assert after == before
