"""Weights from the Hugging Face hub, by its own library `huggingface_hub`."""

import importlib
import os
import re
from pathlib import Path

from flax_resnets.errors import UserError
from flax_resnets.models.pretrained import find_pretrained, pretrained_weights

PREFIX = "hf-hub:"


def by_name(source: str) -> str:
    """Where trained weights are that are named as `list_models(pretrained=True)` does; any other source as it is.

    A file or directory of that name comes first.

    Raises:
        UserError: the name has the form of such weights, and there are none.

    Example:
        >>> by_name("resnet50.a1_in1k"), by_name("runs/quickstart")
        ('hf-hub:timm/resnet50.a1_in1k', 'runs/quickstart')
    """
    is_name = source in pretrained_weights() or re.fullmatch(r"\w+\.\w+_in1k", source)
    if not is_name or os.path.lexists(source):
        return source
    return f"{PREFIX}{find_pretrained(source).repository}"


def download(source: str, name: str = "model.safetensors") -> Path:
    """Downloads a file of `hf-hub:owner/name` or `hf-hub:owner/name@revision` into the hub's local cache.

    Returns:
        Path of the file in that cache.

    Raises:
        UserError: huggingface_hub is not installed, the hub cannot be reached, or it has no such file.
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
        return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision or None))
    # LocalEntryNotFoundError is also an EntryNotFoundError, but means that the hub was not asked: it comes first.
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise UserError(
            f"{source}: the hub is out of reach and the file is not in its cache; go online, "
            "or give the path of a downloaded model.safetensors"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{source}: has no {name}, or no such revision") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{source}: the hub has no such repository, or you have no access to it") from error
    except Exception as error:  # its type depends on the HTTP client that the library uses
        raise UserError(f"{source}: not downloaded ({type(error).__name__}: {str(error)[:200]})") from error
