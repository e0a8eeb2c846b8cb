"""The classifier of a run: which checkpoint, and its weights."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from flax import linen as nn

from flax_resnets.augment.normalise import IMAGENET
from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.errors import UserError
from flax_resnets.fields import field_types
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.preprocess import Settings
from flax_resnets.models.shapes import variable_shapes
from flax_resnets.training.best import BestBy, best_by_of, best_first, in_words
from flax_resnets.training.lineage import FILE, read_lineage
from flax_resnets.training.metrics import read_rows
from flax_resnets.training.network import make_model
from flax_resnets.training.saved_steps import saved_steps
from flax_resnets.training.saved_weights import (
    abandoned_reads_are_silent,
    first_line,
    is_of_the_system,
    read_weights,
)


def classifier_of_run(
    workdir: Path,
    config: dict[str, Any],
    checkpoint: str | int = "best",
    average: bool | None = None,
    class_names: Sequence[str] | None = None,
) -> Classifier:
    """See `load_classifier`.

    Args:
        workdir: the run's.
        config: the content of its `config.json`.
        checkpoint: see `load_classifier`.
        average: see `load_classifier`.
        class_names: see `load_classifier`.

    Raises:
        UserError: the workdir holds no run, or no such checkpoint.
    """
    if checkpoint not in ("best", "last") and (isinstance(checkpoint, bool) or not isinstance(checkpoint, int)):
        raise UserError(f"checkpoint={str(checkpoint)[:100]}: must be best, last or the number of a step")
    for name in ("data.json", "metrics.jsonl", FILE):
        if os.path.lexists(workdir / name) and not os.path.isfile(workdir / name):  # reading a device would never end
            raise UserError(f"{workdir / name}: must be a file")
    identity = read_identity(workdir / "data.json")
    if identity and class_names and len(class_names) != len(identity.class_names):
        raise UserError(f"class_names: has {len(class_names)} names, {workdir} has {len(identity.class_names)} classes")
    names = class_names or (identity.class_names if identity else None)
    if names is None:
        raise UserError(
            f"{workdir}: has no data.json, because an early version made it; name the classes: class_names=[...], "
            "or --class-names"
        )
    try:
        best_by = best_by_of(config)
    except UserError as error:
        raise UserError(f"{workdir / 'config.json'}: {error}") from None
    step, weights = _weights(workdir, checkpoint, bool(average), best_by)
    misfits: list[list[str]] = []
    for channels in _channels(config, identity):
        settings = _settings(workdir, config, channels, identity)
        try:
            model = make_model(settings, len(names))
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(f"{workdir / 'config.json'}: {str(error)[:400]}") from None
        misfits.append(differences(model, settings, weights))
        if not misfits[-1]:
            source = f"{workdir}, step {step}"
            return Classifier(model, weights, settings, names, source=source, identity=identity, step=step)
    closest = min(misfits, key=len)
    raise UserError(f"{workdir}: checkpoint {step} is not of the network in config.json: {in_short(closest)}")


def _channels(config: dict[str, Any], identity: Identity | None) -> tuple[int, ...]:
    """The numbers of channels that the images may have had: early versions did not record it."""
    if identity is not None:
        return (identity.channels,)
    mean = config.get("mean")
    return (3,) if isinstance(mean, list) and len(mean) == 3 else (1, 3)  # one value may be for all channels


def _settings(workdir: Path, config: dict[str, Any], channels: int, identity: Identity | None) -> Settings:
    known = {name: value for name, value in config.items() if name in field_types(Settings)}
    lineage = read_lineage(workdir) if config.get("weights") is not None else None
    known["eval_batch_size"] = known.get("eval_batch_size") or config.get("batch_size")
    for name in ("mean", "std"):
        if known.get(name) == "imagenet":
            known[name] = IMAGENET[name]
        elif name in known and known[name] is None:  # it came with the weights, or is the training images' own
            known[name] = getattr(lineage, name, None) or getattr(identity, name, None)
            if known[name] is None:
                raise UserError(f"{workdir / 'data.json'}: has no {name}, and config.json leaves it to the data")
    try:
        return Settings(**{**known, "channels": channels})
    except UserError as error:
        raise UserError(f"{workdir / 'config.json'}: {error}") from None
    except TypeError as error:  # a field that has no default is missing
        raise UserError(f"{workdir / 'config.json'}: is no run's configuration ({str(error)[:200]})") from None


def differences(model: nn.Module, settings: Settings, variables: Any) -> list[str]:
    """In what variables differ from those of a network, a text for each tensor; nothing is computed."""
    shape = (settings.image_size, settings.image_size, settings.channels)
    try:
        expected = variable_shapes(model, shape)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        return [f"it takes no images of {shape}: {first_line(error)}"]
    ours = _shapes({"params": expected["params"], "batch_stats": expected.get("batch_stats", {})})
    theirs = _shapes(variables)
    return [
        f"{name} is {theirs.get(name, 'missing')}, not {ours.get(name, 'in the network')}"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


def in_short(misfits: Sequence[str]) -> str:
    """The first difference, and how many there are."""
    return misfits[0] + (f"; and {len(misfits) - 1} more" if len(misfits) > 1 else "")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape) for path, leaf in paths}


def _weights(workdir: Path, checkpoint: str | int, average: bool, best_by: BestBy) -> tuple[int, dict[str, Any]]:
    """The step that is taken, and its weights."""
    vanished = False
    while True:
        steps = saved_steps(workdir / "checkpoints")
        if not steps:
            raise UserError(f"{workdir}: has no checkpoint yet; a run saves one at the end of each epoch")
        damaged: list[str] = []
        for step in _candidates(workdir, checkpoint, steps, best_by):
            directory = workdir / "checkpoints" / str(step)
            with abandoned_reads_are_silent() as failed:
                try:
                    weights = read_weights(directory, average)
                except Exception as error:  # a damaged file can raise anything
                    failed.append(first_line(error))
                    if not os.path.isdir(directory):
                        break  # a run that is under way has removed it
                    if is_of_the_system(error):
                        raise UserError(
                            f"{directory}: cannot be read ({failed[0]}), but nothing says that it is damaged"
                        ) from error
                    damaged.append(f"{step} is damaged ({failed[0]})")
                    continue
            if weights is None:
                raise UserError(f"average={average}: {workdir} keeps no average of the weights (ema_decay=None)")
            if damaged:
                _warn(f"{workdir}: checkpoint {' and '.join(damaged)}; taking {step} instead")
            return step, weights
        else:
            raise UserError(f"{workdir}: checkpoint {' and '.join(damaged)}; none is left to take")
        if vanished:
            raise UserError(f"{workdir}: its run removes checkpoints while they are read; try again")
        vanished = True


def _candidates(workdir: Path, checkpoint: str | int, steps: list[int], best_by: BestBy) -> list[int]:
    """The steps to try, in order."""
    if isinstance(checkpoint, int):
        if checkpoint not in steps:
            raise UserError(f"checkpoint={checkpoint}: {workdir} has {_listed(steps)}, best and last")
        return [checkpoint]
    newest_first = steps[::-1]
    if checkpoint == "last":
        return newest_first
    rows = best_first(read_rows(workdir / "metrics.jsonl")[0], best_by)
    if not rows:
        _warn(f"{workdir}: has no row of an epoch; taking the newest checkpoint, {newest_first[0]}")
        return newest_first
    ranked = [row.step for row in rows if row.step in steps]
    ranked += [step for step in newest_first if step not in ranked]
    if rows[0].step not in steps:
        best = rows[0]
        _warn(
            f"{workdir}: the best checkpoint, {best.step} ({in_words(best, best_by)}), is not there, or not yet; "
            f"taking {ranked[0]}"
        )
    return ranked


def _listed(steps: Sequence[int]) -> str:
    return f"checkpoints {', '.join(map(str, steps[-10:]))}"


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)
