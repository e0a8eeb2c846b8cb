"""What happens to an image before the network sees it: exactly what happens to a validation image in training."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from flax_resnets.augment import for_evaluation
from flax_resnets.augment.evaluation import EvaluationConfig
from flax_resnets.augment.normalise import Normalise
from flax_resnets.data.cache import resized
from flax_resnets.data.config import LONGEST_SIDE, DataConfig
from flax_resnets.data.source import KINDS
from flax_resnets.errors import UserError
from flax_resnets.fields import Rule
from flax_resnets.inference.images import Item, Stored, each_image
from flax_resnets.training.network import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class Settings(NetworkConfig, DataConfig, Normalise, EvaluationConfig):
    """The fields of a run's configuration that decide what its trained network computes.

    It has the fields of its base classes, which describe them, and these:

    Attributes:
        image_size: side of the square images that the network sees, in pixels.
        channels: 1 for grey images, 3 for colour.
        eval_batch_size: images in a step of evaluation; None if it is not known.
        loss: name of the loss that the network was trained by.
        mean, std: see `Normalise`; always numbers.
        interpolation: Pillow's filter by which an image is resized to `store_size`; training's is `lanczos`.
        shorter_side: of networks that timm trained: pixels to which an image's shorter side is resized before the
            centre of `store_size` is cropped. None for `resize` as it is.
    """

    image_size: int
    channels: int
    eval_batch_size: int | None = None
    loss: str = "cross_entropy"
    mean: tuple[float, ...] = ()  # which no rule allows: it must be given
    std: tuple[float, ...] = ()
    interpolation: Literal["lanczos", "bicubic", "bilinear"] = "lanczos"
    shorter_side: int | None = None

    RULES = (
        Rule("image_size eval_batch_size", lambda v: v >= 1, "at least 1"),
        Rule("image_size", lambda v: v <= LONGEST_SIDE, f"at most {LONGEST_SIDE} pixels"),
        Rule("channels", lambda v: v in (1, 3), "1 or 3"),
    )

    def check(self) -> None:
        """See `Fields.check`."""
        super().check()
        if self.shorter_side is not None and not (self.store_size or self.image_size) <= self.shorter_side <= 10_000:
            raise UserError(f"shorter_side={self.shorter_side}: must be from store_size up to 10,000 pixels")
        if len(self.mean) not in (1, self.channels):
            raise UserError(f"mean: has {len(self.mean)} values, the images have {self.channels} channels")

    @property
    def share_seen(self) -> float:
        """The share of an image's shorter side that the network sees; with `squash`, of both sides."""
        return self.crop_pct if self.shorter_side is None else self.image_size / self.shorter_side

    def at_size(self, image_size: int | None = None, crop_pct: float | None = None) -> "Settings":
        """These settings with images of another size, or another crop; see `Classifier.at_size`.

        Images are kept as large as they were, or so large that the crop need not be enlarged. A network of timm's has
        timm's pixels: the shorter side is resized to `image_size / crop_pct`, rounded down, and the centre is cropped.

        Raises:
            UserError: a value is not allowed.

        Example:
            >>> settings = Settings(model="resnet18", dataset="", image_size=128, channels=3, mean=(0.5,), std=(0.2,))
            >>> larger = settings.at_size(160, crop_pct=0.8)
            >>> larger.image_size, larger.crop_pct, larger.store_size
            (160, 0.8, 200)
        """
        size = self.image_size if image_size is None else image_size
        share = self.share_seen if crop_pct is None else crop_pct
        # Which checks the values.
        changed = replace(self, image_size=size, crop_pct=share, store_size=None, shorter_side=None)
        if (size, share) == (self.image_size, self.share_seen):
            return self
        whole = size / share + 1e-6  # as 64 / 0.8 is meant
        if whole > LONGEST_SIDE:
            raise UserError(
                f"image_size={size}: with crop_pct={share} it is cropped from {whole:.6g} pixels; at most "
                f"{LONGEST_SIDE} are possible"
            )
        if self.shorter_side is not None:
            return replace(changed, crop_pct=1.0, store_size=size, shorter_side=max(size, math.floor(whole)))
        kept = max(self.store_size or self.image_size, math.ceil(whole - 2e-6))
        return replace(changed, store_size=kept)


class Preprocess:
    """Makes the network's input from images. It has the two halves of evaluation: one on the host, one on the device.

    A call does both:

        x = classifier.preprocess(["shoe.png"])
        logits = classifier.model.apply(classifier.variables, x, train=False)

    Args:
        settings: see `Settings`.

    Attributes:
        settings: as above.
    """

    def __init__(self, settings: Settings):
        self.settings = settings

    def __call__(self, images: Any) -> jax.Array:
        """The network's input: float32 `(N, image_size, image_size, channels)`, normalised.

        Args:
            images: see `Classifier.predict`.

        Raises:
            UserError: an image cannot be read.
        """
        stored = [self.stored(item) for item in each_image(images)]
        none = np.zeros((0, self.stored_size, self.stored_size, self.settings.channels), np.uint8)
        return self.normalised(jnp.asarray(np.stack(stored) if stored else none))

    @property
    def stored_size(self) -> int:
        """Side of the images that the host hands to the device, in pixels."""
        return self.settings.store_size or self.settings.image_size

    def stored(self, item: Item) -> np.ndarray:
        """One image as training keeps it: decoded and resized, uint8 `(stored_size, stored_size, channels)`.

        It is turned as its EXIF data say, also if the network was trained on a TFDS set, whose images never are.

        Raises:
            UserError: the image cannot be read.
        """
        if isinstance(item, Stored):
            return item.array
        settings = self.settings
        pixels = item.pixels(settings.channels, **self.decoding)
        return resized(pixels, self.stored_size, settings.resize, settings.interpolation, settings.shorter_side)

    @property
    def decoding(self) -> dict[str, Any]:
        """The keywords of `flax_resnets.data.decode.decode` for these images."""
        how: dict[str, Any] = {"exif_orientation": True}
        if self.settings.dataset.partition(":")[0] in KINDS:  # its images are decoded so, see `Source`
            how |= {"white_background": True, "shrink_for": self.stored_size}
        return how

    def normalised(self, stored: jax.Array) -> jax.Array:
        """Stored images as the network sees them: cropped, resized, normalised. Can be used inside `jax.jit`.

        Args:
            stored: uint8 `(N, stored_size, stored_size, channels)`.

        Returns:
            float32 `(N, image_size, image_size, channels)`.
        """
        return for_evaluation(stored, self.settings, self.settings.image_size)

    def __repr__(self) -> str:
        settings = self.settings
        shape = f"({settings.image_size}, {settings.image_size}, {settings.channels})"
        return f"Preprocess({settings.resize} to {self.stored_size} px, to {shape})"
