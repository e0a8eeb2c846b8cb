"""Weights that a run begins with: opens their source, and fits them to the run's network, classes and images."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from flax_resnets.data.identity import Identity, read_identity
from flax_resnets.data.statistics import PixelStatistics
from flax_resnets.errors import UserError
from flax_resnets.fields import shown
from flax_resnets.models.parts import HEAD, parts_of
from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import ResNet
from flax_resnets.paths import expanded
from flax_resnets.training.lineage import Head, Lineage, read_lineage
from flax_resnets.training.metrics import read_rows
from flax_resnets.training.network import make_model, taking
from flax_resnets.training.state import tree_digest
from flax_resnets.training.workdir import has_checkpoints, nothing_to_keep
from flax_resnets.weights import hub
from flax_resnets.weights.fit import find_fit
from flax_resnets.weights.load import expected_shapes, fitted_weights, load_exactly
from flax_resnets.weights.mismatch import Misfit, cut
from flax_resnets.weights.sources import is_weights_file, open_source
from flax_resnets.weights.stored import Stored

if TYPE_CHECKING:
    from flax_resnets.inference.classifier import Classifier
    from flax_resnets.training.config import Config


class OpenWeights(NamedTuple):
    """Weights whose source is open, but which are not fitted to a network yet.

    Attributes:
        source: as the configuration names it.
        tensors: as `load_weights` takes them; those of other networks than `ResNet` have our names.
        classifier: what is known besides; None if the source is only a file of weights.
        state_digest: see `Lineage`.
    """

    source: str
    tensors: Mapping[str, Any]
    classifier: "Classifier | None" = None
    state_digest: str | None = None

    def statistics(self, channels: int) -> PixelStatistics | None:
        """Mean and standard deviation by which the source normalises; None if it does not say.

        Args:
            channels: of the images. Where the source has another number of channels, each gets the mean of its values.
        """
        if self.classifier is None:
            return None
        known = self.classifier.settings

        def for_each(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels

        return PixelStatistics(for_each(known.mean), for_each(known.std))


class Start(NamedTuple):
    """Weights that are fitted to a run.

    Attributes:
        lineage: what the workdir keeps of them.
        variables: gives `{"params": ..., "batch_stats": ...}`, without a head if the run begins with a new one. It
            reads the source if that has not happened yet.
        notes: what the user should know, a line each.
    """

    lineage: Lineage
    variables: Callable[[], Mapping[str, Any]]
    notes: Sequence[str] = ()

    @property
    def statistics(self) -> PixelStatistics | None:
        """Mean and standard deviation that come with the weights; None if the configuration or the data give them."""
        mean, std = self.lineage.mean, self.lineage.std
        return PixelStatistics(mean, std) if mean and std else None


def start_of(config: "Config", workdir: Path | None = None) -> Callable[[int, Sequence[str]], Start] | None:
    """Opens the weights that a run begins with, before its data are opened. A run that resumes needs only their record.

    Args:
        config: the run.
        workdir: the run's directory, which need not exist; None if there is no run.

    Returns:
        A function of the images' channels and the class names; None if the run begins with random weights.

    Raises:
        UserError: see `open_weights`; from the function, see `fitted`; the source has changed since the run began; or
            `weights_head` is given without weights.
    """
    if config.weights is None:
        if config.weights_head != "auto":
            raise UserError(f"weights_head={config.weights_head}: needs weights, whose head it is; or leave it out")
        return None
    source = config.weights
    recorded = None if workdir is None or nothing_to_keep(workdir) else read_lineage(workdir)

    def fit(pretrained: OpenWeights, channels: int, class_names: Sequence[str]) -> Start:
        start = fitted(pretrained, make_model(config, len(class_names)), config, channels, class_names)
        if recorded is not None and recorded.digest != start.lineage.digest:
            raise UserError(
                f"weights={source}: has changed since the run in {workdir} began (digest {start.lineage.digest[:8]}, "
                f"not {recorded.digest[:8]}); pick another workdir"
            )
        return start

    if workdir is None or recorded is None or not has_checkpoints(workdir):
        return partial(fit, open_weights(source))
    # The source is needed only if no checkpoint turns out to be complete.
    return lambda *data: Start(recorded, lambda: fit(open_weights(source), *data).variables())


def open_weights(source: str) -> OpenWeights:
    """Opens a source of weights.

    Args:
        source: see `WeightsConfig.weights`.

    Raises:
        UserError: there is no such source, or it is not what it should be.
    """
    try:
        if is_weights_file(source):
            return OpenWeights(source, open_source(os.path.expanduser(source))[1])
        from flax_resnets.inference.folder import tensors_of
        from flax_resnets.inference.load import load_classifier

        try:
            classifier = load_classifier(source)
        except UserError:
            if not source.startswith(hub.PREFIX):
                raise
            return OpenWeights(source, open_source(source)[1])  # a repository of weights alone
        done = None
        if classifier.step is not None:
            _, done = read_rows(expanded(source, "weights", buckets=True) / "metrics.jsonl")
        return OpenWeights(source, tensors_of(classifier), classifier, done["state_digest"] if done else None)
    except UserError as error:
        raise _named(source, error) from None


def fitted(
    pretrained: OpenWeights, model: nn.Module, config: "Config", channels: int, class_names: Sequence[str]
) -> Start:
    """Fits weights to a run. They are read here.

    Args:
        pretrained: the open source.
        model: the run's network, with as many outputs as there are classes.
        config: the run.
        channels: of the images.
        class_names: of the data, in the order of the labels.

    Raises:
        UserError: the weights are of another network, or of images with other channels.
    """
    image_shape = (config.image_size, config.image_size, channels)
    with taking(config, image_shape):
        last = parts_of(model, image_shape)[HEAD][-1]
    names = pretrained.classifier.class_names if pretrained.classifier else None
    tensors = open_source(pretrained.tensors)[1]
    outputs = _outputs(tensors, model, last, image_shape)
    head, order, why = _head(outputs, names, class_names, config.weights_head)
    try:
        variables, found = _loaded(tensors, model if head != "new" else _without_head(model), image_shape)
    except UserError as error:
        flags = _flags_of_network(pretrained.classifier, config)
        if isinstance(error, Misfit) and flags:
            error.mismatch.cause = "theirs is another network", flags
        network = f"model={config.model} on {'grey' if channels == 1 else 'colour'} images"
        raise _named(pretrained.source, error, network, remedy=bool(flags)) from None
    if order is not None:
        ours = variables["params"][last]
        variables["params"][last] = {name: leaf[..., jnp.array(order)] for name, leaf in ours.items()}
    statistics = pretrained.statistics(channels) if config.mean is None else None
    lineage = Lineage(
        weights=pretrained.source,
        digest=tree_digest(variables),
        head=head,
        step=pretrained.classifier.step if pretrained.classifier else None,
        state_digest=pretrained.state_digest,
        **(statistics._asdict() if statistics else {}),
    )
    count = len(jax.tree.leaves(variables))
    where = "" if lineage.step is None else f" of step {lineage.step}"
    notes = [f"weights={pretrained.source}: {count} tensors{where}; {why}"]
    notes += [f"weights={pretrained.source}: {note}" for note in found]
    if statistics:
        notes.append(f"mean={_short(statistics.mean)} and std={_short(statistics.std)} come with the weights")
    return Start(lineage, lambda: variables, (*notes, *_differences(pretrained.classifier, config)))


def _head(
    outputs: int | None, names: Sequence[str] | None, class_names: Sequence[str], wanted: str
) -> tuple[Head, list[int] | None, str]:
    """What becomes of the source's head, the order of its outputs if that changes, and both in words."""
    here = len(class_names)
    if wanted == "keep" and outputs != here:
        theirs = "no head" if outputs is None else f"a head for {outputs} classes"
        raise UserError(f"weights_head=keep: the weights have {theirs}, the data {here} classes; auto takes a new one")
    if wanted == "keep":
        kind = "in another order than" if names and set(names) == set(class_names) else "others than"
        unlike = f", whose classes are {kind} the data's" if names and tuple(names) != tuple(class_names) else ""
        return "kept", None, f"with their head (weights_head=keep){unlike}"
    if outputs is None:
        return "new", None, f"they have no head: a new one for {here} classes"
    if wanted == "new":
        return "new", None, f"a new head for {here} classes (weights_head=new)"
    if outputs != here:
        return "new", None, f"a new head for {here} classes, instead of theirs for {outputs}"
    if names is None or (_are_numbers(names) and _are_numbers(class_names)):
        unnamed = "they do not name theirs" if names is None else "both are only numbers"
        question = f"it has {here} classes too, but {unnamed}; are they the same, in order?"
        return "kept", None, f"with their head: {question} If not, give --config.weights_head=new"
    if tuple(names) == tuple(class_names):
        return "kept", None, "with their head, which is for these classes"
    if (other := next((name for name in names if name not in class_names), None)) is not None:
        instead = (
            " (--config.weights_head=keep takes theirs)" if _are_numbers(names) or _are_numbers(class_names) else ""
        )
        return "new", None, f"a new head: theirs is for other classes, such as {other[:50]!r}{instead}"
    if len(set(names)) < here:
        return "new", None, "a new head: several of its classes have the same name, so they cannot be told apart"
    order = [names.index(name) for name in class_names]
    return "reordered", order, "with their head, whose classes are brought into the order of the data's"


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether the names are only the numbers of the classes, which stand for names that are not known."""
    return list(names) == [str(number) for number in range(len(names))]


def _outputs(
    tensors: Mapping[str, Stored], model: nn.Module, last: str, image_shape: tuple[int, int, int]
) -> int | None:
    """The number of classes of the source's head; None if it has no head."""
    if isinstance(model, ResNet):
        bias = tensors.get(find_fit(model, expected_shapes(model, image_shape), tensors).head[1])
    else:
        bias = tensors.get(f"params.{last}.bias")
    return bias.shape[0] if bias and len(bias.shape) == 1 else None


def _without_head(model: nn.Module) -> nn.Module:
    return model.clone(num_classes=0)


def _loaded(
    tensors: Mapping[str, Stored], model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[dict[str, Any], list[str]]:
    """The variables, and what was chosen and left out."""
    if isinstance(model, ResNet):
        variables, notes, _ = fitted_weights(model, "source", tensors, image_shape)
        return variables, notes
    if not cast(Any, model).num_classes:
        tensors = {name: value for name, value in tensors.items() if not _in_head(name)}
    return load_exactly(model, tensors, image_shape), []


def _in_head(name: str) -> bool:
    """Whether a tensor with one of our names is in the head, and not in the norm before it."""
    module = name.split(".")[1] if name.startswith("params.") else ""
    return module.partition("_")[0] == HEAD and "norm" not in module


def seen_before(weights: str | None, data: Identity) -> list[str]:
    """A line if the weights are those of a run that trained on other parts of the same images; else empty.

    Args:
        weights: see `WeightsConfig.weights`.
        data: of the run that begins with them.
    """
    if weights is None or weights.startswith(hub.PREFIX) or is_weights_file(weights):
        return []
    theirs = read_identity(expanded(weights, "weights", buckets=True) / "data.json")
    what = ("dataset", "version", "class_names")
    if theirs is None or any(getattr(theirs, name) != getattr(data, name) for name in what):
        return []
    if sum(theirs.counts.values()) != sum(data.counts.values()) or theirs.splits == data.splits:
        return []
    share = theirs.counts["train"] / sum(theirs.counts.values())
    drawn = theirs.split_seed is not None and data.split_seed is not None
    remedy = f"; --config.seed={theirs.split_seed} keeps its split" if drawn else ""
    return [
        f"weights={weights}: its run has other splits of these images (validation: {theirs.splits['validation']}), so "
        f"about {share:.0%} of the validation images were training images there; the accuracy says little about new "
        f"images{remedy}"
    ]


# Fields of which a network knows nothing, but which change what it sees.
_SEEN = ("resize", "crop_pct", "interpolation")


def _differences(classifier: "Classifier | None", config: "Config") -> list[str]:
    """In what the network and its images differ from those that the weights were trained with."""
    if classifier is None:
        return []
    from flax_resnets.inference.folder import options_that_count

    theirs, ours = classifier.settings, config
    here = {**{name: getattr(ours, name, "lanczos") for name in _SEEN}, **options_that_count(ours.model_options)}
    there = {**{name: getattr(theirs, name) for name in _SEEN}, **options_that_count(theirs.model_options)}
    differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]

    def value(options: Mapping[str, Any], name: str) -> str:
        return shown(options.get(name, "its default"))[:100]

    texts = [f"{name}={value(there, name)} (here {value(here, name)})" for name in differing]
    return [f"the weights were trained with {', '.join(texts)}"] if texts else []


def _flags_of_network(classifier: "Classifier | None", config: "Config") -> str:
    """The flags that give the run the source's network; empty if it has it, or the network is not known."""
    if classifier is None or classifier.settings.model not in MODELS:
        return ""
    from flax_resnets.inference.folder import options_that_count

    theirs, ours = (options_that_count(each.model_options) for each in (classifier.settings, config))
    if (classifier.settings.model, theirs) == (config.model, ours):
        return ""
    back = ["--config.model_options=none"] if ours.keys() - theirs.keys() else []
    options = [f"--config.model_options.{name}={shown(value)}" for name, value in theirs.items()]
    return " ".join([f"--config.model={classifier.settings.model}", *back, *options])


def _named(source: str, error: UserError, network: str = "the model", remedy: bool = False) -> UserError:
    """The error with the field's name before the source, in at most 600 characters."""
    if isinstance(error, Misfit):
        return UserError(error.mismatch.in_words(f"weights={source}", network, remedy))
    text = str(error)
    for label in ("source: ", f"{source}: "):
        text = text.removeprefix(label)
    return UserError(cut(f"weights={source}: {text}"))


def _short(values: Sequence[float]) -> str:
    return ",".join(f"{value:.3f}" for value in values)
