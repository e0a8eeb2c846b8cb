"""The images that a configuration names, decoded beforehand or as they are read."""

from typing import Literal

from flax_resnets.data.batches import Split
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import Source, open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display


def load_split(config: Config, split: Literal["train", "validation"], display: Display) -> tuple[Split, int]:
    """A split, decoded or to be decoded as it is read, and how many classes it tells apart.

    Raises:
        UserError: there is no such data, or `mean` and `std` do not fit its channels.
    """
    source = open_split(config, split)
    return load_images(config, source, display), source.num_classes


def open_split(config: Config, split: Literal["train", "validation"], dataset: str | None = None) -> Source:
    """A split, with nothing decoded yet; errors as `load_split`'s.

    Args:
        config: the run.
        split: of its dataset.
        dataset: the name to open it by; None for the configuration's.
    """
    source = open_source(dataset or config.dataset, split, config.data_dir)
    check_channels(config, source.channels)
    return source


def load_images(config: Config, source: Source, display: Display) -> Split:
    """A split's images, decoded or to be decoded as they are read; errors as `load_split`'s."""
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
        count = f"{len(images.broken)} of {len(source)} images are broken and left out"
        if not len(images):
            raise UserError(f"{what}: {count}; the first: {images.broken[0]}")
        display.say(f"{what}: {count}; the first: {images.broken[0]}")
    return images


def check_channels(config: Config, channels: int) -> None:
    """Raises UserError unless `mean`, and with it `std`, fits images of so many channels."""
    if len(config.mean) not in (1, channels):
        raise UserError(f"mean: has {len(config.mean)} values; {config.dataset} has {channels} channels")
