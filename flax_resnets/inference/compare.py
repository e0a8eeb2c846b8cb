"""Compares runs: what differs in their settings, and whether their accuracies really differ."""

import dataclasses
import itertools
import json
import math
import os
import re
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.load import load_classifier
from flax_resnets.inference.paired import Interval, over_images, over_seeds
from flax_resnets.inference.recorded import Recorded, read_recorded
from flax_resnets.training.best import score
from flax_resnets.training.config import FREE_FIELDS

# Fields in which the runs of a group may differ.
_MAY_DIFFER = ("seed", *FREE_FIELDS)


@dataclass(frozen=True)
class Member:
    """A run of a comparison.

    Attributes:
        label: its path, without what it has in common with the other runs'.
        run: what it recorded.
        evaluation: its network on its validation images; None if a note says why not.
    """

    label: str
    run: Recorded
    evaluation: Evaluation | None

    @property
    def seed(self) -> Any:
        """The run's seed."""
        return self.run.config.get("seed")

    @property
    def figure(self) -> float | None:
        """The accuracy after the last finished epoch, 0 to 1; None if there is none.

        If an image may have any number of classes: the mean average precision.
        """
        return score(self.run.epochs[-1], "accuracy") if self.run.epochs else None

    def as_dict(self) -> dict[str, Any]:
        """The run's results as values that JSON can hold."""
        last, best = self.run.epochs[-1] if self.run.epochs else None, self.run.best
        of_classes = {}
        if last is not None and self.run.multilabel:
            of_classes = {
                "mean_average_precision": last.mean_average_precision,
                "best_mean_average_precision": best and best.mean_average_precision,
                "f1": last.f1,
            }
        return {
            "run": str(self.run.directory),
            "seed": self.seed,
            "epochs": last.epoch if last else 0,
            "done": self.run.done is not None,
            **of_classes,
            "accuracy": last and last.accuracy,
            "best_accuracy": best and best.accuracy,
            "valid_loss": last.valid_loss if last and math.isfinite(last.valid_loss) else None,
            "seconds": self.run.seconds,
        }


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        label: what the labels of its runs have in common.
        members: the runs.
    """

    label: str
    members: tuple[Member, ...]

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of classes; then `figures` are mean average precisions."""
        return any(each.run.multilabel for each in self.members)

    @cached_property
    def figures(self) -> list[float]:
        """The `figure` of each run; runs without one are left out."""
        return [each.figure for each in self.members if each.figure is not None]

    @property
    def mean(self) -> float | None:
        """Mean of the figures; None if there are none."""
        return statistics.mean(self.figures) if self.figures else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the figures over the seeds (n - 1); None for fewer than two."""
        return statistics.stdev(self.figures) if len(self.figures) > 1 else None

    def as_dict(self) -> dict[str, float | None]:
        """Mean and deviation by names that say of what."""
        name = "mean_average_precision" if self.multilabel else "accuracy"
        return {f"{name}_mean": self.mean, f"{name}_deviation": self.deviation}

    @cached_property
    def right(self) -> np.ndarray | None:
        """For each image, whether the run predicts it right, bool; for several runs their share, float.

        None unless all runs were evaluated, on the same images.
        """
        evaluations = [each.evaluation for each in self.members if each.evaluation is not None]
        if len(evaluations) < len(self.members) or not all(_same_images(evaluations[0], each) for each in evaluations):
            return None
        if len(evaluations) == 1:
            return evaluations[0].correct
        return np.stack([each.correct for each in evaluations]).mean(0)


@dataclass(frozen=True)
class Difference:
    """How a group differs from another one.

    Attributes:
        group, base: the two groups.
        over_images: difference of the accuracies on the same images; None if they are not at hand or not the same.
        over_seeds: difference of the figures in the runs' records; None if a group has fewer than two seeds.
        gained, lost: images that only the one run predicts right, and that only the other does; None for groups of
            several runs, or where `over_images` is None.
    """

    group: Group
    base: Group
    over_images: Interval | None
    over_seeds: Interval | None
    gained: int | None
    lost: int | None


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`.

    Attributes:
        groups: in the order in which their first runs were given.
        settings: for each field that differs between groups, its value in each group, as JSON.
        notes: what could not be compared, and what a reader has to know.
    """

    groups: tuple[Group, ...]
    settings: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def members(self) -> list[Member]:
        """All runs."""
        return [member for group in self.groups for member in group.members]

    @cached_property
    def differences(self) -> list[Difference]:
        """Each group against the first one; if there is one group, each of its runs against the first."""
        base, *others = self.groups
        if not others:
            base, *others = (Group(member.label, (member,)) for member in base.members)
        return [_difference(each, base) for each in others]

    def as_dict(self) -> dict[str, Any]:
        """The comparison as values that JSON can hold."""
        groups = [
            {
                "group": each.label,
                **each.as_dict(),
                "settings": {name: json.loads(values[i]) for name, values in self.settings.items()},
                "runs": [member.as_dict() for member in each.members],
            }
            for i, each in enumerate(self.groups)
        ]
        differences = [
            {
                "group": each.group.label,
                "base": each.base.label,
                "over_images": each.over_images and each.over_images._asdict(),
                "over_seeds": each.over_seeds and each.over_seeds._asdict(),
                "gained": each.gained,
                "lost": each.lost,
            }
            for each in self.differences
        ]
        return {"groups": groups, "differences": differences, "notes": list(self.notes)}


def compare(
    sources: Sequence[str | os.PathLike[str]],
    *,
    checkpoint: Literal["best", "last"] | int = "last",
    average: bool | None = None,
    class_names: Sequence[str] | None = None,
    data_dir: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compares runs.

    Runs that differ in nothing but the seed become a group. Accuracies are those after the last finished epoch: the
    best epoch is chosen on the images on which it is measured. Each network is evaluated on its validation images, so
    that groups are also compared image by image. Where that is not possible, a note says why.

    Args:
        sources: workdirs of at least two runs, also `gs://BUCKET/PATH`. They may be under way.
        checkpoint: whose network is compared image by image; see `load_classifier`.
        average: see `load_classifier`.
        class_names: see `load_classifier`.
        data_dir: directory of the dataset; None for each run's own.
        progress: see `Classifier.evaluate`.

    Raises:
        UserError: there are fewer than two runs, one is named twice or is no run, or a file in it is damaged.

    Example:
        >>> comparison = compare(["runs/lenet", "runs/lenet_bn"])  # doctest: +SKIP
        >>> comparison.differences[0].over_images  # doctest: +SKIP
        Interval(difference=0.061, lower=0.054, upper=0.068, p_value=1.2e-61)
    """
    if isinstance(sources, str) or len(sources) < 2:
        raise UserError(f"compare: {sources!s:.200}: needs at least two runs; `flax-resnets report` describes one")
    runs: list[Recorded] = []
    for source in sources:
        run = read_recorded(source)
        if run is None:
            raise UserError(f"{source}: is a saved folder, which has no curves and no configuration; name a run")
        if any(_same_directory(run.directory, other.directory) for other in runs):
            raise UserError(f"{source}: is named twice; name another run")
        runs.append(run)
    notes: list[str] = []
    options = {"checkpoint": checkpoint, "average": average, "class_names": class_names}
    members = [
        Member(label, run, _evaluation(label, run, options, data_dir, progress, notes))
        for label, run in zip(labels([run.directory for run in runs]), runs, strict=True)
    ]
    groups = _groups(members)
    comparison = Comparison(groups, _settings(groups), ())
    return dataclasses.replace(comparison, notes=(*notes, *_remarks(comparison)))


def labels(paths: Sequence[Path]) -> list[str]:
    """The paths without the directories that all have in common.

    Example:
        >>> labels([Path("/runs/lenet/seed0"), Path("/runs/lenet_bn/seed0")])
        ['lenet/seed0', 'lenet_bn/seed0']
    """
    whole = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, common) for path in whole]


def _same_directory(one: Path, other: Path) -> bool:
    return os.path.samefile(one, other)


def _evaluation(
    label: str,
    run: Recorded,
    options: dict[str, Any],
    data_dir: str | None,
    progress: Callable[[int, int], None] | None,
    notes: list[str],
) -> Evaluation | None:
    """The evaluation of a run; where there is none, a note is added that says why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default", RuntimeWarning)
        try:
            found = load_classifier(run.directory, **options).evaluate(
                split="validation", data_dir=data_dir, progress=progress
            )
            if not isinstance(found, Evaluation):
                raise UserError(
                    "its images may have any number of classes; flax-resnets evaluate has the figures of each class, "
                    "and the mistakes"
                )
            return found
        except UserError as error:
            notes.append(f"{label}: not compared image by image: {error}")
            return None
        finally:
            notes += [str(each.message) for each in caught]


def _groups(members: Sequence[Member]) -> tuple[Group, ...]:
    by_key: dict[str, list[Member]] = {}
    for member in members:
        by_key.setdefault(_key(member.run), []).append(member)
    together = list(by_key.values())
    names = [_common_label([member.label for member in each]) for each in together]
    return tuple(
        # Two groups may have a name in common, such as `run` of run-1 and run-2, and of run-3 and run-4.
        Group(name if names.count(name) == 1 else each[0].label, tuple(each))
        for name, each in zip(names, together, strict=True)
    )


def _key(run: Recorded) -> str:
    """Is equal for runs that differ in nothing but the seed."""
    return json.dumps(
        [_data(run), {name: run.config[name] for name in run.config if name not in _MAY_DIFFER}], sort_keys=True
    )


def _data(run: Recorded) -> str:
    """Which images the run has; empty if that is not recorded. Which of them validate may follow from the seed."""
    if run.identity is None:
        return ""
    counts = run.identity.counts
    numbers = f"{run.identity.name}, {counts['train']:,} and {counts['validation']:,} images"
    if run.identity.split_seed is not None:
        return numbers
    return f"{numbers}, fingerprint {run.identity.fingerprint[:8]}"


def _common_label(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    without = {re.sub("[-_./]?seed=?[0-9]+", "", name) for name in names}
    if len(without) == 1 and (name := without.pop()):
        return name
    letters = itertools.takewhile(lambda each: len(set(each)) == 1, zip(*names, strict=False))
    common = "".join(each[0] for each in letters).rstrip("0123456789").removesuffix("seed")
    return common.rstrip("/-_.= ") or names[0]


def _settings(groups: Sequence[Group]) -> dict[str, tuple[str, ...]]:
    """The fields that differ between groups, with their values as JSON; null where a run has no such field.

    An option of the network has a row of its own, such as `model_options.activation`.
    """
    runs = [group.members[0].run for group in groups]
    fields = [_flat(run.config) for run in runs]
    names = dict.fromkeys(name for each in fields for name in each if name not in _MAY_DIFFER)
    values = {name: tuple(json.dumps(each.get(name)) for each in fields) for name in names}
    values["data"] = tuple(json.dumps(_data(run)) for run in runs)
    return {name: each for name, each in values.items() if len(set(each)) > 1}


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    options = config.get("model_options")
    if not isinstance(options, dict):
        return dict(config)
    rest = {name: value for name, value in config.items() if name != "model_options"}
    return rest | {f"model_options.{name}": value for name, value in options.items()}


def _same_images(one: Evaluation, other: Evaluation) -> bool:
    if (one.fingerprint, one.dataset, one.images) != (other.fingerprint, other.dataset, other.images):
        return False
    ours, theirs = (np.array(each.class_names)[each.labels] for each in (one, other))
    return bool(one.fingerprint) and np.array_equal(ours, theirs)


def _difference(group: Group, base: Group) -> Difference:
    seeds = over_seeds(group.figures, base.figures)
    ours, theirs = group.right, base.right
    first, second = group.members[0].evaluation, base.members[0].evaluation
    if ours is None or theirs is None or first is None or second is None or not _same_images(first, second):
        return Difference(group, base, None, seeds, None, None)
    single = ours.dtype == bool and theirs.dtype == bool
    gained, lost = (int((ours > theirs).sum()), int((ours < theirs).sum())) if single else (None, None)
    return Difference(group, base, over_images(ours, theirs), seeds, gained, lost)


def _remarks(comparison: Comparison) -> list[str]:
    """What a reader has to know of the runs, a sentence each."""
    remarks = []
    if len(comparison.groups) == 1:
        remarks.append("The runs differ in nothing but the seed.")
    for group in comparison.groups:
        seeds = [member.seed for member in group.members]
        for seed in dict.fromkeys(seeds):
            if seeds.count(seed) > 1:
                remarks.append(
                    f"{group.label}: {seeds.count(seed)} runs have seed {seed}; they say nothing about seeds."
                )
    for member in comparison.members:
        epochs = member.run.epochs[-1].epoch if member.run.epochs else 0
        remarks += [f"{member.label}: was amended {each}." for each in member.run.amended]
        if member.run.done is None:
            remarks.append(
                f"{member.label}: is not done; {epochs} of {member.run.config.get('epochs')} epochs are finished."
            )
        elif member.run.ended_by:
            remarks.append(
                f"{member.label}: ended by {member.run.ended_by} after {epochs} of {member.run.config.get('epochs')} "
                "epochs."
            )
    datasets = {member.evaluation.dataset for member in comparison.members if member.evaluation is not None}
    others = [
        each.group.label
        for each in comparison.differences
        if each.over_images is None and all(one.evaluation for one in (*each.group.members, *each.base.members))
    ]
    if others:
        which = f"their datasets are {' and '.join(sorted(datasets))}" if len(datasets) > 1 else "their images differ"
        base = comparison.differences[0].base.label
        remarks.append(f"Not compared image by image with {base}: {', '.join(others)}; {which}.")
    return remarks
