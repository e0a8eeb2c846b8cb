"""Loads a classifier from wherever it is: a run's workdir, a saved folder, or the Hugging Face hub."""

import difflib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from flax_resnets import storage
from flax_resnets.copies import copied_directory
from flax_resnets.errors import UserError
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.transformers_folder import PREPROCESSOR, in_timms_words, is_of_transformers
from flax_resnets.paths import expanded
from flax_resnets.training.compilation import keep_compiled_programs
from flax_resnets.weights import hub

_LONGEST_CONFIG = 20_000_000  # bytes; the names of 21,000 classes with descriptions take 2 million


def load_classifier(
    source: str | os.PathLike[str],
    *,
    checkpoint: Literal["best", "last"] | int = "best",
    average: bool | None = None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    """A trained network, ready to classify images.

    Nothing is written to the source, and no lock is taken: the run may be under way. The dataset need not be there.
    A checkpoint that is damaged is left out with a warning, and the next best, or for `last` the one before, is taken.
    Compiled programs are kept in `$FLAX_RESNETS_CACHE/compiled`, by default `~/.cache/flax_resnets/compiled`, unless
    JAX has been told of another place.

    Args:
        source: the workdir of a run; a folder that `Classifier.save`, timm or transformers made; one of these in a
            bucket, `gs://BUCKET/PATH`, which is copied to the directory of caches; `hf-hub:owner/name`, such a folder
            on the Hugging Face hub, such as `hf-hub:microsoft/resnet-18`; or a name of `list_models(pretrained=True)`,
            such as `resnet50.a1_in1k`, which is there.
        checkpoint: of a run: `best`, that of the epoch with the highest accuracy (if an image may have any number of
            classes, mean average precision), or with the lowest validation loss if the run has `best_by=loss`, the
            highest metric of its recipe if `best_by=metric`; `last`, the newest; or the number of a step that is kept.
            Of other sources only `best`.
        average: of a run: whether to take the average of the weights (EMA), if the run keeps it. None, like False,
            takes the weights themselves: the run's `best_accuracy` is theirs.
        class_names: in the order of the labels; None for those that the source has. Runs of early versions have none.

    Raises:
        UserError: there is no such source, or it is not what it should be.

    Warns:
        RuntimeWarning: another checkpoint is taken than `checkpoint` says.

    Example:
        >>> load_classifier("runs/quickstart").predict("shoe.png")  # doctest: +SKIP
        [[Prediction('Sneaker', 7, 0.97), Prediction('Sandal', 5, 0.02), ...]]
    """
    names = None if class_names is None else _checked_names(class_names)
    keep_compiled_programs()
    source = hub.by_name(source) if isinstance(source, str) else source
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        config = hub.download(source, "config.json")
        content = _in_timms_words(read_json(config, source), partial(hub.download, source), config)
        return _saved(source, config, hub.weights(source), content, checkpoint, average, names)
    directory = local_directory(source)
    config = directory / "config.json"
    content = _in_timms_words(read_json(config, str(config)), directory.joinpath, config)
    if "architecture" in content:
        there = (directory / name for name in hub.WEIGHTS if os.path.lexists(directory / name))
        weights = next(there, directory / hub.WEIGHTS[0])
        return _saved(str(directory), config, weights, content, checkpoint, average, names)
    from flax_resnets.inference.run import classifier_of_run  # imports Orbax, which takes half a second

    return classifier_of_run(directory, content, checkpoint, average, names)


def _in_timms_words(content: dict[str, Any], file: Callable[[str], Path], config: Path) -> dict[str, Any]:
    """The content of a `config.json`; that of transformers in timm's words. `file` finds the folder's other files."""
    if not is_of_transformers(content):
        return content
    path = file(PREPROCESSOR)
    try:
        return in_timms_words(content, read_json(path, str(path)))
    except (ValueError, TypeError, OverflowError) as error:  # a UserError is a ValueError
        raise UserError(f"{config}: {str(error)[:400]}") from None


def local_directory(source: str | os.PathLike[str]) -> Path:
    """The directory of a run or a saved folder on this machine; one in a bucket is copied first.

    Raises:
        UserError: there is none.
    """
    if not isinstance(source, str | os.PathLike) or not os.fspath(source):
        raise UserError(f"source={str(source)[:100]!r}: must be a workdir, a saved folder or {hub.PREFIX}owner/name")
    directory = expanded(source, "source", buckets=True)
    if storage.is_bucket(directory):
        directory = _copied(directory)
    if not os.path.isdir(directory):
        right = "name a run's workdir, a saved folder, hf-hub:owner/name or a name such as resnet50.a1_in1k"
        found = "is no" if os.path.exists(directory) else "no such"
        raise UserError(f"{directory}: {found} directory; {right}{_others_beside(directory)}")
    if not os.path.lexists(directory / "config.json") and (inside := _in(directory)):
        raise UserError(f"{directory}: is no run and no saved folder; in it are {', '.join(inside[:5])[:300]}")
    return directory


def _in(directory: Path) -> list[str]:
    """The paths of the runs and saved folders in a directory."""
    try:
        return [str(each) for each in sorted(directory.iterdir()) if (each / "config.json").is_file()]
    except OSError:
        return []


def _others_beside(directory: Path) -> str:
    """Runs and saved folders whose names are like one that is not there. A run's workdir has its changed fields."""
    beside = [os.path.basename(path) for path in _in(directory.parent)]
    longer = [name for name in beside if name.startswith(f"{directory.name}-")]
    close = difflib.get_close_matches(directory.name, [name for name in beside if name not in longer], n=3)
    found = [str(directory.with_name(name)) for name in (longer + close)[:3]]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def _copied(directory: Path) -> Path:
    """A local copy of a run or a saved folder in a bucket; of a run with its complete checkpoints alone."""
    steps = directory / "checkpoints"
    try:
        # Orbax writes this file last.
        complete = {name for name in storage.names(steps) or () if storage.exists(steps / name / "commit_success.txt")}
    except OSError as error:
        raise UserError(f"{directory}: {error.strerror}") from None

    def wanted(name: str) -> bool:
        top, _, rest = name.partition("/")
        return not rest or (top == "checkpoints" and rest.partition("/")[0] in complete)

    return copied_directory(directory, "source", wanted)


def _saved(
    source: str,
    config: Path,
    weights: Path,
    content: dict[str, Any],
    checkpoint: str | int,
    average: bool | None,
    names: tuple[str, ...] | None,
) -> Classifier:
    from flax_resnets.inference.folder import read_folder

    if checkpoint != "best":
        raise UserError(f"checkpoint={str(checkpoint)[:100]}: {source} is no run's workdir, and holds only one")
    if average is not None:
        raise UserError(f"average={str(average)[:100]}: {source} is no run's workdir, and holds one set of weights")
    return read_folder(source, config, weights, content, names)


def _checked_names(names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
        raise UserError(f"class_names={str(names)[:100]}: must be a list of names, such as ['cat', 'dog']")
    return tuple(names)


def read_json(path: Path, named: str) -> dict[str, Any]:
    """The object in a JSON file of a stranger; `named` is what messages call the file.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    try:
        if not os.path.isfile(path):  # reading a device would never end
            raise ValueError("no such file" if not os.path.lexists(path) else "is no file")
        if os.path.getsize(path) > _LONGEST_CONFIG:
            raise ValueError(f"has more than {_LONGEST_CONFIG:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("holds no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)[:200]
        right = "a run's workdir and a saved folder have one"
        raise UserError(f"{named}: {reason or type(error).__name__}; {right}") from None
    return content
