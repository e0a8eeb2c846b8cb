"""The images that a configuration names, decoded beforehand or as they are read."""

from typing import Literal

from flax_resnets.data.batches import Split
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.training.config import Config
from flax_resnets.training.display import Display


def load_split(config: Config, split: Literal["train", "validation"], display: Display) -> tuple[Split, int]:
    """A split, decoded or to be decoded as it is read, and how many classes it tells apart.

    Raises:
        UserError: there is no such data, or `mean` and `std` do not fit its channels.
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
        count = f"{len(images.broken)} of {len(source)} images are broken and left out"
        if not len(images):
            raise UserError(f"{config.dataset} {split}: {count}; the first: {images.broken[0]}")
        display.say(f"{config.dataset} {split}: {count}; the first: {images.broken[0]}")
    return images, source.num_classes


def check_channels(config: Config, channels: int) -> None:
    """Raises UserError unless `mean`, and with it `std`, fits images of so many channels."""
    if len(config.mean) not in (1, channels):
        raise UserError(f"mean: has {len(config.mean)} values; {config.dataset} has {channels} channels")
