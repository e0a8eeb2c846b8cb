"""The images that a configuration names, decoded beforehand or as they are read."""

from pathlib import Path
from typing import Literal

from flax_resnets.data.batches import Split, steps_per_epoch
from flax_resnets.data.cache import CachedImages, cached_images, first_broken, in_lines
from flax_resnets.data.metadata import dataset_metadata
from flax_resnets.data.source import existing_directory, open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display


def check_splits(config: Config, validation: bool = True) -> None:
    """Finds what is wrong with the data, as far as it is known before any image is decoded.

    Args:
        config: of the run.
        validation: whether that split is needed as well.

    Raises:
        UserError: there is no such data, or a split is missing or empty; `mean` and `std` do not fit its
            channels; there are fewer images than a batch.
    """
    directory = None if config.data_dir is None else existing_directory(config.data_dir)
    check_channels(config, dataset_metadata(config.dataset, directory).channels)  # before it is downloaded
    steps_per_epoch(len(open_source(config.dataset, "train", config.data_dir)), config.batch_size)
    if validation:
        open_source(config.dataset, "validation", config.data_dir)


def load_split(
    config: Config, split: Literal["train", "validation"], display: Display, listed: Path | None = None
) -> tuple[Split, int]:
    """A split, decoded or to be decoded as it is read, and how many classes it tells apart.

    Args:
        config: of the run.
        split: which.
        display: shows how far the decoding is, and which images are broken and left out.
        listed: the file that will list those, if any.

    Raises:
        UserError: there is no such data, or `mean` and `std` do not fit its channels, or images are broken.
    """
    source = open_source(config.dataset, split, config.data_dir)
    check_channels(config, source.channels)
    size = config.store_size or config.image_size
    if config.images == "streamed":
        return StreamedImages(source, size, config.resize), source.num_classes
    with display.bar(f"decoding {config.dataset} {split}", len(source), "images/s") as bar:
        images = cached_images(
            source,
            size,
            config.resize,
            progress=lambda done, _: bar.to(done),
            broken=config.broken_images,
        )
    if images.broken:
        count = f"{config.dataset} {split}: {len(images.broken)} of {len(source)} images are broken and left out"
        if not len(images):
            raise UserError(f"{count}; the first: {first_broken(source, images.broken)}")
        where = f"; all in {listed}" if listed else ""
        display.say(f"{count}; the first: {first_broken(source, images.broken, 450 - len(where))}{where}")
    return images, source.num_classes


def list_broken(path: Path, *splits: Split) -> None:
    """Writes the file that names the images left out of these splits; none where none are."""
    if broken := [each for split in splits if isinstance(split, CachedImages) for each in split.broken]:
        write_whole(path, in_lines(broken).encode())


def check_channels(config: Config, channels: int) -> None:
    """Raises UserError unless `mean`, and with it `std`, fits images of so many channels."""
    if len(config.mean) not in (1, channels):
        raise UserError(f"mean: has {len(config.mean)} values; {config.dataset} has {channels} channels")
