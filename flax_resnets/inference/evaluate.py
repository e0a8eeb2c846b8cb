"""Evaluates a classifier on a labelled set, as its run was evaluated, or with a test-time augmentation."""

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnets.augment import evaluated
from flax_resnets.data import labels
from flax_resnets.data.cache import cached_images
from flax_resnets.data.config import DataConfig, Part, name_and_version
from flax_resnets.data.identity import identity_of
from flax_resnets.data.source import Source, open_split
from flax_resnets.errors import UserError
from flax_resnets.inference.class_names import ambiguous, by_name, in_words, normalised
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.evaluation import Evaluation
from flax_resnets.inference.images import Item
from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation
from flax_resnets.inference.preprocess import Settings
from flax_resnets.inference.whole_number import MOST_IN_A_STEP, whole_number
from flax_resnets.training.compilation import for_speed
from flax_resnets.training.eval_sums import eval_sums
from flax_resnets.training.multilabel import OF_EACH_CLASS

Tta = Literal["none", "flip", "five_crop"]

_FIVE_CROP = 0.875  # share of a side that each crop keeps if the network is evaluated on whole images


def evaluate(
    classifier: Classifier,
    dataset: str | Source | None = None,
    split: str | None = None,
    *,
    data_dir: str | None = None,
    batch_size: int | None = None,
    tta: Tta | None = None,
    broken_images: Literal["stop", "skip"] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **fields: Any,
) -> Evaluation | MultilabelEvaluation:
    """See `Classifier.evaluate`."""
    settings = _with_tta(classifier.settings, tta)
    if broken_images not in (None, "stop", "skip"):
        raise UserError(f"broken_images={str(broken_images)[:100]!r}: must be stop or skip, or None for the run's own")
    size = settings.eval_batch_size or 64
    if batch_size is not None:
        size = whole_number("batch_size", batch_size, MOST_IN_A_STEP)
    if not isinstance(dataset, str | Source | None):
        raise UserError(
            f"evaluate: dataset is a {type(dataset).__name__}; must be a name. Arrays x and y are evaluated by "
            'np.savez("arrays/test.npz", images=x, labels=y) and evaluate("npz", data_dir="arrays")'
        )
    source = dataset if isinstance(dataset, Source) else _opened(classifier, settings, dataset, split, data_dir, fields)
    if not classifier.class_names:
        raise UserError("evaluate: the network has no classes, because num_classes=0")
    if source.multilabel and settings.loss not in OF_EACH_CLASS:
        raise UserError(
            f"dataset={source.dataset}: has any number of labels an image; the classifier was trained with "
            f"loss={settings.loss} for one class an image, and needs loss={' or '.join(OF_EACH_CLASS)}"
        )
    ours = _our_labels(source, classifier)
    program = _program(classifier, settings, tta)
    all_logits, all_labels, indices, losses = [], [], [], []
    under_way: list[tuple[_Batch, Any]] = []

    def finish() -> None:
        batch, (outputs, loss) = under_way.pop(0)
        real = labels.is_real(batch.labels)
        all_logits.append(np.asarray(outputs)[real])
        all_labels.append(batch.labels[real])
        indices.append(batch.indices[real])
        losses.append(float(loss))
        if progress is not None:
            progress(sum(map(len, all_labels)), len(source))

    for batch in _batches(classifier, source, size, broken_images or settings.broken_images, progress):
        batch = batch._replace(labels=labels.renumbered(batch.labels, ours, len(classifier.class_names)))
        under_way.append((batch, program(classifier.variables, batch.images, batch.labels)))
        if len(under_way) > 1:  # the device computes one batch while this one's results are fetched
            finish()
    while under_way:
        finish()
    if not all_labels:
        raise UserError(f"dataset={source.dataset}: has no images to evaluate")
    index = np.concatenate(indices)
    name = f"{source.dataset} {source.version}".rstrip()
    kind = MultilabelEvaluation if source.multilabel else Evaluation
    return kind(
        dataset=f"{name}, {source.split}",
        class_names=classifier.words,
        logits=np.concatenate(all_logits),
        labels=np.concatenate(all_labels),
        mean_loss=sum(losses) / len(index),
        image_name=lambda row: source.image_name(int(index[row])),
        image=lambda row: source.image(int(index[row])),
        tta=None if tta == "none" else tta or ("flip" if settings.eval_flip else None),
        image_size=settings.image_size,
        crop_pct=settings.share_seen,
        fingerprint=source.fingerprint,
    )


def _opened(
    classifier: Classifier,
    settings: Settings,
    dataset: str | None,
    split: str | None,
    data_dir: str | None,
    fields: dict[str, Any],
) -> Source:
    """The images to evaluate."""
    if split is not None and split not in get_args(Part):  # of the dataset's own splits
        named = {"validation_split": split, "validation_share": None}
        try:
            return open_split(_data(settings, dataset, data_dir, fields | named), "validation")
        except UserError as error:
            raise UserError(str(error).replace("validation_split=", "split=", 1)) from None
    data = _data(settings, dataset, data_dir, fields)
    part = cast(Part, split or "validation")
    source = open_split(data, part)
    is_own, difference = _own(classifier, data, source, part)
    # A network without a record, such as a saved one, may have been trained on a folder under the name of its own kind.
    is_other = dataset not in (None, settings.dataset) or (data_dir is not None and difference is not None)
    whole = split is None and is_other and source.is_share and "validation_share" not in fields
    if whole:
        source = open_split(data, "all")
    if difference:
        # What differs from a share that nobody asked for says nothing.
        of_whole = f"has other images than the run was trained on; all {len(source):,} are evaluated"
        of_parts = f"is not what the run was trained on: it has {difference}"
        warnings.warn(
            f"dataset={data.dataset}: {of_whole if whole else of_parts}. The run may have been trained on some of "
            "these images, and the figures are not those in its metrics.jsonl",
            RuntimeWarning,
            stacklevel=4,
        )
    elif is_own and part == "all":
        warnings.warn(
            f"dataset={data.dataset}: the run was trained on most of these images, so that its figures are too good",
            RuntimeWarning,
            stacklevel=4,
        )
    return source


def _with_tta(settings: Settings, tta: Tta | None) -> Settings:
    if tta is None:
        return settings
    if tta not in get_args(Tta):
        raise UserError(f"tta={str(tta)[:100]!r}: must be one of {', '.join(get_args(Tta))}, or None for the run's own")
    return dataclasses.replace(settings, eval_flip=tta == "flip")


def _data(settings: Settings, dataset: str | None, data_dir: str | None, fields: dict[str, Any]) -> DataConfig:
    unknown = set(fields) - {each.name for each in dataclasses.fields(DataConfig)}
    if unknown:
        raise UserError(f"{sorted(unknown)[0]}: is no field of a dataset, nor an argument of evaluate")
    if dataset is None or dataset == settings.dataset:
        if not settings.dataset:
            raise UserError("evaluate: the classifier does not know its dataset; name one")
        changes = {**fields, **({} if data_dir is None else {"data_dir": str(data_dir)})}
        return dataclasses.replace(settings, **changes)
    return DataConfig(dataset=dataset, data_dir=None if data_dir is None else str(data_dir), **fields)


def _own(classifier: Classifier, data: DataConfig, source: Source, part: Part) -> tuple[bool, str | None]:
    """Whether this is the set on which the run was trained; and the difference, if it has the same name alone.

    Such as a folder to which pictures were added: if validation images are drawn from it, this changes the draw.
    """
    recorded = classifier.identity
    if recorded is None or name_and_version(data.dataset)[0] != recorded.dataset:
        return False, None
    try:
        train, validation = (source if each == part else open_split(data, each) for each in ("train", "validation"))
    except UserError as error:
        return False, f"no such splits ({str(error)[:150]})"
    difference = recorded.difference(identity_of(train, validation))
    return difference is None, difference


def _our_labels(source: Source, classifier: Classifier) -> np.ndarray:
    """For each class of a set, the number of the class of the same name of the classifier."""
    # Two classes may have the same words, as ImageNet's cranes, and then only their order tells which is which.
    if source.class_names == classifier.class_names or tuple(map(in_words, source.class_names)) == classifier.words:
        return np.arange(len(source.class_names))
    names, words = by_name(classifier.class_names), by_name(classifier.words)
    ours = []
    for each in source.class_names:
        found = names.get(normalised(each)) or words.get(normalised(in_words(each)), [])
        if not found:
            there = ", ".join(name[:30] for name in classifier.words[:5])
            raise UserError(
                f"dataset={source.dataset}: has the class {each[:50]!r}, which is none of the classifier's "
                f"{len(classifier.class_names)}: {there}{', ...' if classifier.words[5:] else ''}"
            )
        if len(found) > 1:
            raise UserError(
                f"dataset={source.dataset}: has the class {each[:50]!r}; {ambiguous(found, classifier.class_names)}"
            )
        ours += found
    return np.array(ours)


class _Batch(NamedTuple):
    images: np.ndarray  # uint8 (N, stored_size, stored_size, channels)
    labels: np.ndarray  # int32 (N,) or int8 (N, classes), −1 for padding
    indices: np.ndarray  # of the images in the source


class _OfSource(Item):
    """An image of a set; its `label` is known when its pixels are read."""

    label: labels.Label = -1

    def __init__(self, source: Source, index: int, size: int):
        super().__init__(f"image {index}", None)
        self._source, self.index, self._size = source, index, size

    def pixels(self, channels: int, **how: Any) -> np.ndarray:
        image, self.label = self._source.shrunk(self.index, self._size)  # the set knows how its images are decoded
        return Item(self.name, image).pixels(channels)


def _batches(
    classifier: Classifier,
    source: Source,
    size: int,
    broken_images: str,
    progress: Callable[[int, int], None] | None,
) -> Iterator[_Batch]:
    """The images of a set as training keeps them, in order, in batches of one shape."""
    settings, stored_size = classifier.settings, classifier.preprocess.stored_size
    resized_as_in_training = settings.interpolation == "lanczos" and settings.shorter_side is None
    as_trained = source.channels == settings.channels and resized_as_in_training
    if as_trained and settings.images == "cached" and broken_images == "stop":
        images = cached_images(source, stored_size, settings.resize, progress)
        for number, batch in enumerate(images.eval_batches(size)):
            indices = np.arange(number * size, (number + 1) * size)
            yield _Batch(np.asarray(batch.images), np.asarray(batch.labels), indices)
        return
    resized_to = settings.shorter_side or stored_size
    items = (_OfSource(source, index, resized_to) for index in range(len(source)))
    found = classifier.decoded(items, 2 * size)
    while some := list(itertools.islice(found, size)):
        batch = _Batch(
            np.zeros((size, stored_size, stored_size, settings.channels), np.uint8),
            labels.new_labels(source, size),
            np.full(size, -1),
        )
        for row, (item, image) in enumerate(some):
            if isinstance(image, UserError):
                if broken_images == "stop":
                    raise image
                continue
            item = cast(_OfSource, item)
            batch.images[row], batch.labels[row], batch.indices[row] = image, item.label, item.index
        yield batch


def _program(
    classifier: Classifier, settings: Settings, tta: Tta | None
) -> Callable[[Any, np.ndarray, np.ndarray], tuple[jax.Array, jax.Array]]:
    """The network with its preprocessing: from variables, stored images and labels to logits and summed losses."""

    def compute(variables: Any, stored: jax.Array, classes: jax.Array) -> tuple[jax.Array, jax.Array]:
        def network(images: jax.Array) -> jax.Array:
            return cast(jax.Array, classifier.model.apply(variables, images, train=False))

        if tta == "five_crop":
            share = settings.crop_pct if settings.crop_pct < 1 else _FIVE_CROP
            whole = dataclasses.replace(settings, crop_pct=1.0)
            of_crops = [evaluated(network, crop, whole, settings.image_size) for crop in five_crops(stored, share)]
            logits = jnp.stack(of_crops).mean(0)
        else:
            logits = evaluated(network, stored, settings, settings.image_size)
        logits = logits.astype(jnp.float32)
        return logits, eval_sums(logits, classes).loss

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    return jax.jit(compute, compiler_options=for_speed(mesh))


def five_crops(images: jax.Array, share: float) -> Sequence[jax.Array]:
    """The centre and the four corners of each image, as in Krizhevsky et al. 2012, section 4.1.

    Args:
        images: `(N, H, W, C)`.
        share: of a side that a crop keeps, rounded to whole pixels.

    Example:
        >>> [crop.shape for crop in five_crops(jnp.zeros((1, 40, 40, 3)), 0.875)][:2]
        [(1, 35, 35, 3), (1, 35, 35, 3)]
    """
    _, height, width, _ = images.shape
    tall, wide = (max(1, round(share * side)) for side in (height, width))
    bottom, right = height - tall, width - wide
    corners = [(bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)]
    return [images[:, top : top + tall, left : left + wide] for top, left in corners]
