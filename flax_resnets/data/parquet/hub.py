"""Datasets of the Hugging Face hub: `dataset=hf:owner/name`, as a `flax_resnets.data.source.Kind`.

The name is `hf:owner/name[/SUBSET][@BRANCH][:COMMIT]`. The dataset's parquet files are downloaded into the hub's own
cache by its own library. Its version is the commit.
"""

import functools
import glob
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from flax_resnets.data.config import DataConfig, Part
from flax_resnets.data.parquet.files import Shards, shards_of
from flax_resnets.data.parquet.require import require
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from flax_resnets.data.source import Source

__all__ = ["EXPECTED", "is_prepared", "metadata", "newest_version", "open_split"]

EXPECTED: str = "none, because the hub's library has a cache of its own"
_NAME = re.compile(
    r"hf:(?P<repository>[\w.-]+/[\w.-]+)(/(?P<subset>[\w./-]+))?(@(?P<branch>[\w./-]+))?(:(?P<commit>[0-9a-f]{40}))?"
)


class _Name(NamedTuple):
    repository: str
    subset: str | None
    branch: str
    commit: str | None


def open_split(config: DataConfig, split: Part) -> "Source":
    """See `flax_resnets.data.source.open_source`."""
    require("pyarrow", "parquet", config.dataset)
    from flax_resnets.data.parquet.opening import open_shards

    return open_shards(config, split, _downloaded(config))


def metadata(config: DataConfig) -> tuple[int, int, bool]:
    """As of parquet files. Only the files tell them, so these are downloaded."""
    require("pyarrow", "parquet", config.dataset)
    from flax_resnets.data.parquet.opening import metadata_of_shards

    return metadata_of_shards(config, _downloaded(config))


def newest_version(config: DataConfig) -> str:
    """The newest commit; that in the hub's cache if the hub is out of reach."""
    name = _parsed(config)
    return _commit_and_files(config.dataset, name.repository, name.branch)[0]


def is_prepared(config: DataConfig) -> bool:
    """The hub keeps all commits."""
    return True


def _parsed(config: DataConfig) -> _Name:
    match = _NAME.fullmatch(config.dataset)
    if not match:
        raise UserError(
            f"dataset={config.dataset!r}: must be hf:owner/name, and if need be /SUBSET, @BRANCH and :COMMIT (40 "
            "digits) behind it, in this order"
        )
    if config.data_dir is not None:
        raise UserError(
            f"data_dir={config.data_dir!r}: datasets of the hub are in its own cache (HF_HOME); leave it out"
        )
    return _Name(match["repository"], match["subset"], match["branch"] or "main", match["commit"])


def _downloaded(config: DataConfig) -> Shards:
    """The two splits' files, downloaded."""
    dataset, name = config.dataset, _parsed(config)
    commit, files = _commit_and_files(dataset, name.repository, name.commit or name.branch)
    prefix = f"{name.subset}/" if name.subset else ""
    files = [file for file in files if file.startswith((prefix, f"data/{prefix}"))]
    if not any(file.endswith(".parquet") for file in files):
        instead = "" if name.branch != "main" else f"; perhaps hf:{name.repository}@refs/convert/parquet has some"
        raise UserError(f"dataset={dataset!r}: has no parquet files{instead}")
    shards = shards_of(
        files, Path(), config, f"dataset={dataset!r}", lambda subset: f"dataset=hf:{name.repository}/{subset}"
    )
    root = _snapshot(dataset, name, commit, (*shards.train, *shards.validation))
    return shards._replace(root=root, version=commit)


# Cached, so that the two splits of a run are of one commit, even if there is a newer one between their openings.
@functools.cache
def _commit_and_files(dataset: str, repository: str, revision: str) -> tuple[str, list[str]]:
    """The commit that a branch, tag or commit means now, and its files."""
    hub = require("huggingface_hub", "hub", dataset)
    errors = require("huggingface_hub.errors", "hub", dataset)
    try:
        info = hub.HfApi().dataset_info(repository, revision=revision)
        return info.sha, [file.rfilename for file in info.siblings or ()]
    except errors.RevisionNotFoundError as error:
        raise UserError(f"dataset={dataset!r}: has no branch or commit {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"dataset={dataset!r}: the hub has no such dataset, or it is not open to you") from error
    except Exception as error:  # of whichever HTTP client the library uses
        refusal = error
    try:
        # Without patterns the library would want all files to be in its cache.
        options = {"repo_type": "dataset", "local_files_only": True, "allow_patterns": []}
        root = Path(hub.snapshot_download(repository, revision=revision, **options))
    except Exception:  # it is not there, or the name is none that the hub allows
        raise UserError(
            f"dataset={dataset!r}: the hub is out of reach, and the dataset not in its cache ({_in_short(refusal)})"
        ) from refusal
    return root.name, [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.parquet"))]


def _snapshot(dataset: str, name: _Name, commit: str, files: Sequence[str]) -> Path:
    """Downloads files of a commit, unless they are in the hub's cache; returns their directory."""
    options = {"repo_type": "dataset", "allow_patterns": [*map(glob.escape, files)]}
    hub = require("huggingface_hub", "hub", dataset)
    download = functools.partial(hub.snapshot_download, name.repository, **options)
    try:
        root = Path(download(revision=commit, local_files_only=True))
        if all((root / file).exists() for file in files):
            return root
    except Exception:  # nothing of this commit is in the cache
        pass
    try:
        # With the name of the branch the cache notes which commit that is, for a start without a network.
        root = Path(download(revision=name.commit or name.branch))
        return root if root.name == commit else Path(download(revision=commit))
    except Exception as error:
        raise UserError(f"dataset={dataset!r}: not downloaded ({_in_short(error)})") from error


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"
