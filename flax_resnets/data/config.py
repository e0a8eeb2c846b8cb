"""The fields that choose a run's images and how they are kept."""

from dataclasses import dataclass
from typing import Literal

from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, Rule

# Besides, an image of more than 89 million pixels is not decoded.
LONGEST_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class DataConfig(Fields):
    """The fields that choose a run's images and how they are kept.

    Attributes:
        dataset: a TFDS name such as `imagenette/160px-v2`, or `fashion_mnist_sample`, which is part of the package.
        data_dir: directory of TFDS's datasets; None for TFDS's default.
        store_size: side of the images that are kept, in pixels; from these the device crops or resizes. None for
            `image_size`.
        resize: how an image becomes square: `squash` ignores its aspect ratio, `crop` takes its centre.
        images: `cached` decodes all images once, before the run begins, and keeps them. `streamed` decodes an image
            each time it is used, ahead of the steps, on all CPU cores: for datasets too large to keep. The numbers are
            the same.
        broken_images: what to do about images that cannot be decoded. `stop` ends the run with a message that names
            them: before the run begins, or, with streamed images, when the first one is read. `skip` leaves them out of
            training and evaluation, names them, and lists them in the workdir's `broken_images.txt`. It is not allowed
            with streamed images.
    """

    dataset: str
    data_dir: str | None = None
    store_size: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    images: Literal["cached", "streamed"] = "cached"
    broken_images: Literal["stop", "skip"] = "stop"

    RULES = (
        Rule("data_dir", lambda v: v != "", "a directory, or none for TFDS's own"),
        Rule("store_size", lambda v: v >= 1, "at least 1"),
        Rule("store_size", lambda v: v <= LONGEST_SIDE, f"at most {LONGEST_SIDE} pixels"),
    )

    def check(self) -> None:
        """See `Fields.check`."""
        super().check()
        if self.images == "streamed" and self.broken_images == "skip":
            raise UserError("broken_images=skip: not with images=streamed, which finds them only during the run")
