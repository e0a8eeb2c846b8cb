"""Weights from the Hugging Face hub, by its own library `huggingface_hub`."""

import hashlib
import importlib
import os
import re
from pathlib import Path

from flax_resnets.errors import UserError
from flax_resnets.models.pretrained import find_pretrained, pretrained_weights
from flax_resnets.weights.safetensors_format import shards_of

PREFIX = "hf-hub:"

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""The files in which a repository or a folder may have its weights, in the order in which they are looked for."""


def by_name(source: str) -> str:
    """Where trained weights are that are named as `list_models(pretrained=True)` does; any other source as it is.

    A file or directory of that name comes first.

    Raises:
        UserError: the name has the form of such weights, and there are none, or it is that of a network alone.

    Example:
        >>> by_name("resnet50.a1_in1k"), by_name("runs/quickstart")
        ('hf-hub:timm/resnet50.a1_in1k', 'runs/quickstart')
    """
    networks = {weights.model for weights in pretrained_weights().values()}
    is_name = source in networks or re.fullmatch(r"\w+\.\w+_in\d+k(_\w+)?", source)
    if not is_name or os.path.lexists(source):
        return source
    return f"{PREFIX}{find_pretrained(source).repository}"


def weights(source: str) -> Path:
    """Downloads the weights of `hf-hub:owner/name` or `hf-hub:owner/name@revision` into the hub's local cache.

    Returns:
        Path of the first of `WEIGHTS` that the repository has. The files that an index names are then beside it.

    Raises:
        UserError: see `download`; or it has none of them.
    """
    absent: list[_Absent] = []
    for name in WEIGHTS:
        try:
            path = download(source, name)
        except _Absent as error:
            absent.append(error)
            continue
        if name.endswith(".index.json"):
            repository = source.partition("@")[0]
            for shard in shards_of(path):
                download(f"{repository}@{path.parent.name}", shard)  # of the index's commit
        return path
    if any(error.asked for error in absent):
        raise UserError(f"{source}: has none of the files {', '.join(WEIGHTS)}")
    raise absent[0]


class _Absent(UserError):
    """A file is not there: on the hub, which was `asked`, or in its cache."""

    def __init__(self, message: str, asked: bool):
        super().__init__(message)
        self.asked = asked


def download(source: str, name: str) -> Path:
    """Downloads a file of `hf-hub:owner/name` or `hf-hub:owner/name@revision` into the hub's local cache.

    Returns:
        Path of the file in that cache.

    Raises:
        UserError: huggingface_hub is not installed, the hub cannot be reached, it has no such file or does not give it,
            or what came is not what it has.
    """
    try:
        huggingface_hub = importlib.import_module("huggingface_hub")
        errors = importlib.import_module("huggingface_hub.errors")
    except ImportError:
        raise UserError(
            f"{source}: needs huggingface_hub, which is not installed: pip install 'flax_resnets[hub]', "
            "or give the path of a downloaded model.safetensors"
        ) from None
    repository, _, revision = source.removeprefix(PREFIX).partition("@")
    try:
        path = Path(huggingface_hub.hf_hub_download(repository, name, revision=revision or None))
    # LocalEntryNotFoundError is also an EntryNotFoundError, but means that the hub was not asked: it comes first.
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise _Absent(
            f"{source}: the hub is out of reach and the file is not in its cache; go online, "
            "or give the path of a downloaded model.safetensors",
            asked=False,
        ) from error
    except errors.EntryNotFoundError as error:
        raise _Absent(f"{source}: has no {name}", asked=True) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{source}: has no branch, tag or commit {revision!r}") from error
    except errors.GatedRepoError as error:  # also a RepositoryNotFoundError
        raise UserError(
            f"{source}: its owner asks for consent; give it on the repository's page, and log in: hf auth login"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{source}: the hub has no such repository, or you have no access to it") from error
    except Exception as error:  # its type depends on the HTTP client that the library uses
        raise UserError(f"{source}: not downloaded ({type(error).__name__}: {str(error)[:200]})") from error
    _check_sum(source, path)
    return path


def _check_sum(source: str, path: Path) -> None:
    """Raises UserError if a file in the cache is not the hub's. The library only compares their sizes."""
    stored = Path(os.path.realpath(path))  # a large file is stored under its SHA-256, and linked from its commit
    if re.fullmatch(r"[0-9a-f]{64}", stored.name):
        with stored.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != stored.name:
                raise UserError(f"{source}: {stored} is damaged, its SHA-256 is another; remove it and try again")
