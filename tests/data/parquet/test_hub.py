"""Datasets of the Hugging Face hub. No test goes further than this machine."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flax_resnets.data.config import DataConfig
from flax_resnets.data.identity import identity_of, newest_version
from flax_resnets.data.parquet import hub
from flax_resnets.data.source import dataset_metadata, open_source
from flax_resnets.errors import UserError
from tests.data.parquet.tables import table
from tests.data.pictures import picture

pytest.importorskip("pyarrow")

PICTURES = [picture(number) for number in range(6)]
NAMES = ["cat", "dog"]
OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    hub._commit_and_files.cache_clear()
    yield
    hub._commit_and_files.cache_clear()


@pytest.fixture
def commits(write) -> dict[str, Path]:
    """Two commits of a dataset: the same pictures with other labels."""
    names = ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "data/extra.parquet")
    made = {}
    for commit, labels in ((OLD, [0, 0, 1, 1]), (NEW, [1, 0, 1, 0])):
        train, test = table(PICTURES[:4], labels, NAMES), table(PICTURES[4:], labels[1:3], NAMES)
        made[commit] = write(dict(zip(names, (train, test, test), strict=True)), root=commit)
        (made[commit] / "README.md").write_text("Photos.")
    return made


class NotFound(Exception):
    pass


class FakeHub:
    """huggingface_hub as far as it is used here.

    Attributes:
        branches: the commit of each branch of `me/photos`.
        asked: the calls, and what they asked for.
        online: whether it answers.
        cached: commits in the local cache.
    """

    def __init__(self, commits: dict[str, Path]):
        self.commits = commits
        self.branches = {"main": NEW, "refs/pr/1": OLD, **{commit: commit for commit in commits}}
        self.asked: list[Any] = []
        self.online = True
        self.cached: set[str] = set()

    def dataset_info(self, repository, revision):
        self.asked.append(("info", revision))
        if not self.online:
            raise ConnectionError("many\nlines")
        if repository != "me/photos":
            raise self.errors.RepositoryNotFoundError("gone")
        if revision not in self.branches:
            raise self.errors.RevisionNotFoundError("gone")
        commit = self.branches[revision]
        files = [path.relative_to(self.commits[commit]).as_posix() for path in self.commits[commit].rglob("*.*")]
        return types.SimpleNamespace(sha=commit, siblings=[types.SimpleNamespace(rfilename=file) for file in files])

    def snapshot_download(self, repository, repo_type, revision, local_files_only=False, allow_patterns=None):
        assert (repository, repo_type) == ("me/photos", "dataset")
        commit = self.branches.get(revision)
        if local_files_only:
            if commit not in self.cached:
                raise self.errors.LocalEntryNotFoundError("not here")
            return str(self.commits[commit])
        self.asked.append(("download", revision, sorted(allow_patterns or [])))
        if not self.online:
            raise ConnectionError("many\nlines")
        self.cached.add(commit)
        return str(self.commits[commit])


@pytest.fixture
def fake(commits, monkeypatch) -> FakeHub:
    made = FakeHub(commits)
    made.errors = types.ModuleType("huggingface_hub.errors")
    for name in ("RepositoryNotFoundError", "RevisionNotFoundError", "LocalEntryNotFoundError"):
        setattr(made.errors, name, type(name, (Exception,), {}))
    module = types.ModuleType("huggingface_hub")
    module.HfApi, module.snapshot_download = lambda: made, made.snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", made.errors)
    return made


def labels(dataset: str, split: str = "train", **fields) -> list[int]:
    source = open_source(dataset, split, **fields)
    return [source.label(index) for index in range(len(source))]


def refusal(dataset: str, **fields) -> str:
    with pytest.raises(UserError) as caught:
        open_source(dataset, "train", **fields)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_its_parquet_files_are_opened(fake):
    source = open_source("hf:me/photos", "train")
    assert (source.dataset, source.version, source.class_names) == ("hf:me/photos", NEW, ("cat", "dog"))
    assert [source.encoded(index) for index in range(4)] == PICTURES[:4]
    assert labels("hf:me/photos", "validation") == [0, 1]
    assert dataset_metadata("hf:me/photos") == (2, 3, False)
    files = ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert fake.asked == [("info", "main"), ("download", "main", files)]


def test_a_commit_and_a_branch_may_be_named(fake):
    assert labels("hf:me/photos") == [1, 0, 1, 0]
    assert labels(f"hf:me/photos:{OLD}") == [0, 0, 1, 1]
    assert labels("hf:me/photos@refs/pr/1") == [0, 0, 1, 1]
    assert open_source("hf:me/photos@refs/pr/1", "train").version == OLD


def test_the_commit_is_the_version_of_the_data(fake):
    train, valid = (open_source("hf:me/photos", split) for split in ("train", "validation"))
    identity = identity_of(train, valid)
    assert (identity.dataset, identity.version) == ("hf:me/photos", NEW)
    assert identity.pinned == f"hf:me/photos:{NEW}"
    assert newest_version(DataConfig(dataset="hf:me/photos")) == NEW
    pinned = [open_source(identity.pinned, split) for split in ("train", "validation")]
    assert identity_of(*pinned) == identity


def test_without_a_network_the_cache_is_enough(fake):
    assert labels("hf:me/photos") == [1, 0, 1, 0]
    hub._commit_and_files.cache_clear()
    fake.online = False
    assert labels("hf:me/photos") == [1, 0, 1, 0]
    hub._commit_and_files.cache_clear()
    fake.cached.clear()
    assert "the hub is out of reach, and the dataset not in its cache (ConnectionError: many lines)" in refusal(
        "hf:me/photos"
    )


def test_a_download_that_fails(fake):
    newest_version(DataConfig(dataset="hf:me/photos"))
    fake.online = False
    assert refusal("hf:me/photos") == "dataset='hf:me/photos': not downloaded (ConnectionError: many lines)"


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        ("hf:me/other", "the hub has no such dataset, or it is not open to you"),
        ("hf:me/photos@dev", "has no branch or commit 'dev'"),
        (f"hf:me/photos:{'3' * 40}", "has no branch or commit '333"),
        ("hf:me/photos/sub", "has no parquet files; perhaps hf:me/photos@refs/convert/parquet has some"),
        ("hf:photos", "must be hf:owner/name, and if need be /SUBSET"),
        ("hf:me/photos:v1", "must be hf:owner/name"),
        ("hf:", "must be hf:owner/name"),
    ],
)
def test_other_names_are_refused(fake, dataset, line):
    assert line in refusal(dataset)


def test_a_dataset_among_several_is_named(fake, write, monkeypatch):
    files = {
        f"{name}/{split}.parquet": table(PICTURES[:2], [0, 1], NAMES) for name in "ab" for split in ("train", "test")
    }
    fake.commits[NEW] = write(files, root="several")
    assert "of several datasets ('a', 'b'); dataset=hf:me/photos/b names one" in refusal("hf:me/photos")
    assert labels("hf:me/photos/b") == [0, 1]
    assert open_source("hf:me/photos/b", "train").directory == fake.commits[NEW]


def test_a_data_dir_is_refused(fake, tmp_path):
    assert "datasets of the hub are in its own cache (HF_HOME); leave it out" in refusal(
        "hf:me/photos", data_dir=tmp_path
    )


def test_without_the_hubs_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert refusal("hf:me/photos") == (
        "dataset='hf:me/photos': needs huggingface_hub, which is not installed: pip install 'flax_resnets[hub]'"
    )


class Answers(http.server.BaseHTTPRequestHandler):
    """The hub's answers that a download needs: the files of a revision, in two forms, and a file."""

    hub: FakeHub

    def do_GET(self):
        if match := re.fullmatch(r"/api/datasets/(me/\w+)(?:/revision/([^?]+))?(?:\?.*)?", self.path):
            revision = (match[2] or "main").replace("%2F", "/")
            if match[1] != "me/photos" or revision not in self.hub.branches:
                code = "RevisionNotFound" if match[1] == "me/photos" else "RepoNotFound"
                return self.answer(404, b"{}", {"X-Error-Code": code})
            info = self.hub.dataset_info("me/photos", revision)
            siblings = [vars(file) for file in info.siblings]
            content = {"id": "me/photos", "sha": info.sha, "siblings": siblings, "private": False, "tags": []}
            return self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})
        if match := re.fullmatch(r"/api/datasets/me/photos/tree/(\w+)(?:\?.*)?", self.path):
            files = [path for path in sorted(self.hub.commits[match[1]].rglob("*.*")) if path.is_file()]
            tree = [
                {
                    "type": "file",
                    "path": path.relative_to(self.hub.commits[match[1]]).as_posix(),
                    "size": path.stat().st_size,
                    "oid": hashlib.sha1(path.read_bytes()).hexdigest(),
                }
                for path in files
            ]
            return self.answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        if match := re.fullmatch(r"/datasets/me/photos/resolve/(\w+)/(.+)", self.path):
            content = (self.hub.commits[match[1]] / match[2]).read_bytes()
            self.hub.asked.append((self.command, match[2]))
            etag = hashlib.sha256(content).hexdigest()
            return self.answer(200, content, {"X-Repo-Commit": match[1], "ETag": f'"{etag}"'})
        return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format, *args):
        pass


PROGRAM = """
import sys
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
for dataset in sys.argv[1:]:
    try:
        train, valid = (open_source(dataset, split) for split in ("train", "validation"))
        print(train.version[0], [train.label(i) for i in range(4)], [valid[i][0].shape for i in range(2)])
    except UserError as error:
        print(error)
"""


@pytest.fixture
def ask(commits, tmp_path) -> Iterator[Callable[..., tuple[list[str], list[Any]]]]:
    """Opens datasets in a new process with the real library; returns what that prints, and the downloads."""
    pytest.importorskip("huggingface_hub")
    fake = FakeHub(commits)
    handler = type("Handler", (Answers,), {"hub": fake})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(*datasets: str, **variables: str) -> tuple[list[str], list[Any]]:
            fake.asked.clear()
            address = f"http://127.0.0.1:{server.server_port}"
            settings = {
                "HF_ENDPOINT": address,
                "HF_HOME": str(tmp_path / "hub"),
                "HF_HUB_DISABLE_XET": "1",
                **variables,
            }
            command = [sys.executable, "-c", PROGRAM, *datasets]
            done = subprocess.run(
                command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120, check=True
            )
            return done.stdout.splitlines(), [each for each in fake.asked if each[0] == "GET"]

        yield ask
        server.shutdown()
        thread.join()


@pytest.mark.hub
def test_with_the_real_library(ask):
    new, old = "2 [1, 0, 1, 0] [(8, 8, 3), (8, 8, 3)]", "1 [0, 0, 1, 1] [(8, 8, 3), (8, 8, 3)]"
    printed, downloads = ask("hf:me/photos", "hf:me/photos@refs/pr/1", "hf:me/photos@dev", "hf:me/other")
    assert printed[:2] == [new, old]
    assert "has no branch or commit 'dev'" in printed[2]
    assert "the hub has no such dataset" in printed[3]
    assert sorted({name for _, name in downloads}) == [
        "data/test-00000-of-00001.parquet",
        "data/train-00000-of-00001.parquet",
    ]
    assert len(downloads) == 3  # the test split is the same file in both commits
    assert ask("hf:me/photos", f"hf:me/photos:{OLD}") == ([new, old], [])  # nothing is downloaded again
    assert ask("hf:me/photos", HF_HUB_OFFLINE="1") == ([new], [])
    assert ask("hf:me/photos", HF_ENDPOINT="http://127.0.0.1:9") == ([new], [])
    (line,), _ = ask("hf:me/other", HF_HUB_OFFLINE="1")
    assert "the hub is out of reach, and the dataset not in its cache" in line
