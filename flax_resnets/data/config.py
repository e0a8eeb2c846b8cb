"""Which images a run sees, and how they are kept."""

from dataclasses import dataclass
from typing import Literal

from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, Rule

# Decoding refuses images of more than 89 million pixels, too.
LONGEST_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class DataConfig(Fields):
    """Which images a run sees, and how they are kept.

    Attributes:
        dataset: a TFDS name such as `imagenette/160px-v2`, or `fashion_mnist_sample`, which ships with the package.
        data_dir: TFDS's data_dir; None for TFDS's own default.
        store_size: side at which images are decoded and kept, in pixels, to be cropped from or resized on the device;
            None for `image_size`.
        resize: how an image comes to be square: `squash` to it, or `crop` its centre.
        images: `cached`: decoded once, before the run begins, and kept; or `streamed`: decoded each time they are seen,
            ahead of the steps, on all cores, for sets too large to keep. The numbers are the same.
        broken_images: what an image that cannot be decoded does: `stop` the run, named, before it begins (or, if
            streamed, when its turn comes), or `skip`, not if streamed: it is left out of training and evaluation,
            counted, named, and listed in the workdir's `broken_images.txt`.
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
        """As `Fields.check`."""
        super().check()
        if self.images == "streamed" and self.broken_images == "skip":
            raise UserError("broken_images=skip: not with images=streamed, which does not know them beforehand")
