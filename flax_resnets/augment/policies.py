"""Policies: operations drawn from a list, by RandAugment and TrivialAugment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp

from flax_resnets.augment import color, levels
from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.augment.geometry import rotation, warp
from flax_resnets.fields import OneOf, Rule

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""Names of the operations; their order is that of the numbers drawn."""


class Ranges(NamedTuple):
    """How far each operation goes at its strongest.

    Attributes:
        shear: pixels to the side for each pixel across.
        translate: pixels, down and to the right.
        rotate: degrees.
        factor: by which the factors of brightness, saturation, contrast and sharpness differ from 1.
        bits: of eight that posterize drops.
    """

    shear: float
    translate: tuple[float, float]
    rotate: float
    factor: float
    bits: int


def randaugment(key: jax.Array, images: jax.Array, ops: int, magnitude: float) -> jax.Array:
    """RandAugment: one operation after the other, each drawn anew for each image, all of one magnitude.

    Cubuk et al. 2019, arXiv:1909.13719, section 3. Operations and their ranges are those of torchvision's
    `RandAugment`, whose magnitudes go from 0 to 30: its default of 9 is 3 here, where they go from 0 to 10 as timm's
    do. Signs are drawn; what a warp leaves empty is black, as there.

    Args:
        key: of the draw.
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype, one channel or three.
        ops: operations for each image.
        magnitude: 0 to 10.

    Returns:
        As `images`.

    Example:
        >>> randaugment(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), ops=2, magnitude=9.0).shape
        (2, 8, 8, 3)
    """
    n, height, width, _ = images.shape
    ranges = Ranges(0.3, (150 / 331 * height, 150 / 331 * width), 30.0, 0.9, 4)
    for each in jax.random.split(key, ops):
        operation_key, sign_key = jax.random.split(each)
        operations = jax.random.randint(operation_key, (n,), 0, len(OPERATIONS))
        images = apply_operations(images, operations, magnitude / 10 * jax.random.rademacher(sign_key, (n,)), ranges)
    return images


def trivialaugment(key: jax.Array, images: jax.Array) -> jax.Array:
    """TrivialAugment: one operation for each image, of a magnitude drawn as well.

    Müller and Hutter 2021, arXiv:2103.10158, section 3, with its "wide" ranges, as in torchvision's
    `TrivialAugmentWide`: magnitudes are the 31 equal steps from nothing to the strongest. Translation goes to 32 pixels
    in an image of any size; what a warp leaves empty is black.

    Args:
        key: of the draw.
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype, one channel or three.

    Returns:
        As `images`.

    Example:
        >>> trivialaugment(jax.random.key(0), jnp.zeros((2, 8, 8, 3))).shape
        (2, 8, 8, 3)
    """
    n = images.shape[0]
    operation_key, magnitude_key, sign_key = jax.random.split(key, 3)
    operations = jax.random.randint(operation_key, (n,), 0, len(OPERATIONS))
    amounts = jax.random.randint(magnitude_key, (n,), 0, 31) / 30 * jax.random.rademacher(sign_key, (n,))
    return apply_operations(images, operations, amounts, Ranges(0.99, (32.0, 32.0), 135.0, 0.99, 6))


def apply_operations(images: jax.Array, operations: jax.Array, amounts: jax.Array, ranges: Ranges) -> jax.Array:
    """Applies to each image the operation that is its own.

    Args:
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype, one channel or three.
        operations: int `(N,)`, places in `OPERATIONS`.
        amounts: float32 `(N,)`, from -1 to 1: the share of the range, and its sign. Where signs mean nothing
            (posterize, solarize), they are left out.
        ranges: see `Ranges`.

    Returns:
        As `images`.
    """
    _, height, width, _ = images.shape
    changes = _changes(ranges, height, width)
    branches = [changes[name] for name in OPERATIONS]

    def change(each: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        image, operation, amount = each
        return jax.lax.switch(operation, branches, image[None], amount[None])[0]

    # On processors a loop, in which an image costs its own operation alone. Elsewhere all images at once, though each
    # then costs all fourteen: a loop would leave most of an accelerator idle, and gather a batch split over several.
    return jax.lax.platform_dependent(
        images,
        operations,
        amounts,
        cpu=lambda *batch: jax.lax.map(change, batch),
        default=lambda *batch: jax.vmap(change)(batch),
    )


def _changes(ranges: Ranges, height: int, width: int) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """Each operation as a function of images and their amounts, `(N,)`."""
    down, right = ranges.translate

    def moved(
        images: jax.Array,
        x_of_y: jax.Array | float = 0.0,
        y_of_x: jax.Array | float = 0.0,
        x: jax.Array | float = 0.0,
        y: jax.Array | float = 0.0,
    ) -> jax.Array:
        """Warps by what is added to the identity: about the upper left corner, as torchvision's shears are."""
        rows = jnp.broadcast_arrays(1.0, x_of_y, x, y_of_x, 1.0, y, jnp.zeros(images.shape[0]))[:6]
        return warp(images, jnp.stack(rows, axis=1).reshape(-1, 2, 3), "black")

    def turned(images: jax.Array, amounts: jax.Array) -> jax.Array:
        angles = jnp.radians(amounts * ranges.rotate)
        return warp(images, rotation(angles, jnp.zeros_like(angles), height, width), "black")

    def factors(amounts: jax.Array) -> jax.Array:
        return 1 + amounts * ranges.factor

    def bits(amounts: jax.Array) -> jax.Array:
        return 8 - jnp.round(jnp.abs(amounts) * ranges.bits).astype(jnp.int32)

    return {
        "identity": lambda images, amounts: images,
        "shear_x": lambda images, amounts: moved(images, x_of_y=amounts * ranges.shear),
        "shear_y": lambda images, amounts: moved(images, y_of_x=amounts * ranges.shear),
        "translate_x": lambda images, amounts: moved(images, x=-jnp.trunc(amounts * right)),
        "translate_y": lambda images, amounts: moved(images, y=-jnp.trunc(amounts * down)),
        "rotate": turned,
        "brightness": lambda images, amounts: color.brightness(images, factors(amounts)),
        "saturation": lambda images, amounts: color.saturation(images, factors(amounts)),
        "contrast": lambda images, amounts: color.contrast(images, factors(amounts)),
        "sharpness": lambda images, amounts: color.sharpness(images, factors(amounts)),
        "posterize": lambda images, amounts: levels.posterize(images, bits(amounts)),
        "solarize": lambda images, amounts: levels.solarize(images, 255 * (1 - jnp.abs(amounts))),
        "autocontrast": lambda images, amounts: levels.autocontrast(images),
        "equalize": lambda images, amounts: levels.equalize(images),
    }


POLICIES: dict[str, Callable[[jax.Array, jax.Array, "AutoAugment"], jax.Array]] = {
    "randaugment": lambda key, images, config: randaugment(key, images, *config.randaugment),
    "trivialaugment": lambda key, images, config: trivialaugment(key, images),
}


@dataclass(frozen=True, kw_only=True)
class AutoAugment(Augmentation):
    """Operations drawn from a list.

    Attributes:
        auto_augment: `randaugment` or `trivialaugment`: operations drawn from a list; None for none.
        randaugment: operations an image, and their magnitude from 0 to 10.
    """

    auto_augment: Annotated[str, OneOf(POLICIES)] | None = None
    randaugment: tuple[int, float] = (2, 9.0)

    DRAWS = 5
    RULES = (
        Rule(
            "randaugment",
            lambda v: v[0] >= 1 and 0 <= v[1] <= 10,
            "operations, at least 1, and a magnitude from 0 to 10",
        ),
        Rule("randaugment", lambda v: v[0] <= 100, "at most 100 operations"),
    )

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        return images if self.auto_augment is None else POLICIES[self.auto_augment](key, images, self)
