"""Opens the splits that a configuration names, with images decoded beforehand or while they are read."""

from pathlib import Path
from typing import Literal

from flax_resnets.augment.normalise import statistics_of
from flax_resnets.data import source
from flax_resnets.data.batches import Split, steps_per_epoch
from flax_resnets.data.cache import CachedImages, cached_images, first_broken, in_lines
from flax_resnets.data.source import Metadata, Source, check_data_dir, metadata_of
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.fields import shown
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display
from flax_resnets.training.multilabel import OF_EACH_CLASS


def load_split(config: Config, split: Literal["train", "validation"], display: Display) -> tuple[Split, int]:
    """Opens a split and loads its images; returns them and the number of classes.

    Args:
        config: the run's configuration.
        split: `train` or `validation`.
        display: shows the progress of decoding, and which broken images are left out.

    Raises:
        UserError: see `open_split` and `load_images`.
    """
    opened = open_split(config, split)
    for note in opened.notes:
        display.say(note)
    return load_images(config, opened, display), opened.num_classes


def open_split(config: Config, split: Literal["train", "validation"]) -> Source:
    """Opens a split without decoding images.

    Args:
        config: the run's configuration.
        split: `train` or `validation`.

    Raises:
        UserError: there is no such data; the split is missing or empty; `mean` and `std` do not fit its channels;
            `class_weights` does not fit its classes; there is only one class; the loss does not fit images of several
            classes; or there are fewer training images than a batch.
    """
    check_data_dir(config)
    metadata = metadata_of(config)  # before anything is downloaded
    check_channels(config, metadata.channels)
    check_classes(config, metadata)
    opened = source.open_split(config, split)
    if split == "train":
        steps_per_epoch(len(opened), config.batch_size)
    return opened


def load_images(config: Config, source: Source, display: Display, listed: Path | None = None) -> Split:
    """Opens a split's images in the cache, or for streaming, as `config.images` says. Decodes them for a new cache.

    Args:
        config: the run's configuration.
        source: the split.
        display: shows the progress of decoding, and which broken images are left out.
        listed: the file in which `list_broken` will list the broken images, for the message; None if there is none.

    Raises:
        UserError: images are broken and the configuration does not leave them out, or all images are broken.
    """
    size = config.store_size or config.image_size
    if config.images == "streamed":
        return StreamedImages(source, size, config.resize)
    what = f"{source.dataset} {source.split}"
    with display.bar(f"decoding {what}", len(source), "images/s") as bar:
        images = cached_images(
            source,
            size,
            config.resize,
            progress=lambda done, _: bar.to(done),
            broken=config.broken_images,
        )
    if images.broken:
        count = f"{what}: {len(images.broken)} of {len(source)} images are broken and left out"
        if not len(images):
            raise UserError(f"{count}; the first: {first_broken(source, images.broken)}")
        where = f"; all in {listed}" if listed else ""
        display.say(f"{count}; the first: {first_broken(source, images.broken, 450 - len(where))}{where}")
    return images


def list_broken(path: Path, *splits: Split) -> None:
    """Writes the file that lists the images left out of these splits; writes none if no images are left out."""
    if broken := [each for split in splits if isinstance(split, CachedImages) for each in split.broken]:
        write_whole(path, in_lines(broken).encode())


def check_channels(config: Config, channels: int) -> None:
    """Raises UserError unless `mean` fits images with this number of channels. `std` has as many values as `mean`."""
    if config.mean is not None and (values := len(statistics_of(config)[0])) not in (1, channels):
        raise UserError(f"mean: has {values} values; {config.dataset} has {channels} channels")


def check_classes(config: Config, metadata: Metadata) -> None:
    """Raises UserError unless there are classes to tell apart, and loss and `class_weights` fit them."""
    if metadata.num_classes < 2:
        raise UserError(
            f"dataset={config.dataset}: has {metadata.num_classes} class; training needs at least 2 to tell apart"
        )
    weights = config.class_weights
    if metadata.multilabel:
        what = f"{config.dataset} has any number of labels an image"
        if config.loss not in OF_EACH_CLASS:
            raise UserError(f"loss={config.loss}: {what}, so training needs loss={' or '.join(OF_EACH_CLASS)}")
        if weights is not None:
            raise UserError(
                f"class_weights={shown(weights)}: {what}, so no class has images of its own to weight; leave it out; "
                "sampler=balanced evens out the classes"
            )
    if isinstance(weights, tuple) and len(weights) != metadata.num_classes:
        raise UserError(
            f"class_weights: has {len(weights)} values; {config.dataset} has {metadata.num_classes} classes"
        )
