"""RandAugment and TrivialAugment: operations drawn at random from a list."""

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
"""Names of the operations. The drawn numbers are places in this tuple, so its order must not change."""


class Ranges(NamedTuple):
    """The strongest form of each operation.

    Attributes:
        shear: slope: pixels of shift for each pixel of distance from the edge.
        translate: pixels, down and to the right.
        rotate: degrees.
        factor: largest difference from 1 of the factors of brightness, saturation, contrast and sharpness.
        bits: how many of the eight bits posterize drops.
    """

    shear: float
    translate: tuple[float, float]
    rotate: float
    factor: float
    bits: int


def randaugment(key: jax.Array, images: jax.Array, ops: int, magnitude: float) -> jax.Array:
    """RandAugment: `ops` operations one after the other, drawn for each image separately, with the same magnitude.

    Cubuk et al. 2019, arXiv:1909.13719, section 3. The operations and their ranges are those of torchvision's
    `RandAugment`. Magnitudes are on timm's scale from 0 to 10; torchvision's go from 0 to 30, so its default of 9 is 3
    here. The sign of each operation is drawn. As in torchvision, pixels that a warp leaves empty are black.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype, one channel or three.
        ops: operations for each image.
        magnitude: 0 to 10.

    Returns:
        Shape and dtype of `images`.

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
    """TrivialAugment: one operation for each image, with a random magnitude.

    Müller and Hutter 2021, arXiv:2103.10158, section 3, with its "wide" ranges, as in torchvision's
    `TrivialAugmentWide`: the magnitude is drawn from 31 equally spaced values, from no change to the strongest. Shifts
    go up to 32 pixels whatever the size of the image. Pixels that a warp leaves empty are black.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype, one channel or three.

    Returns:
        Shape and dtype of `images`.

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
    """Applies one operation to each image.

    Args:
        images: `(N, H, W, C)`, pixels 0 to 255, any float dtype, one channel or three.
        operations: int `(N,)`, places in `OPERATIONS`.
        amounts: float32 `(N,)`, from -1 to 1: share of the operation's range, with a sign. Posterize and solarize
            ignore the sign.
        ranges: see `Ranges`.

    Returns:
        Shape and dtype of `images`.
    """
    _, height, width, _ = images.shape
    changes = _changes(ranges, height, width)
    branches = [changes[name] for name in OPERATIONS]

    def change(each: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        image, operation, amount = each
        return jax.lax.switch(operation, branches, image[None], amount[None])[0]

    # On CPUs: loop over the images, so that each image costs one operation. Elsewhere: compute all fourteen operations
    # for all images at once. A loop would leave most of an accelerator idle, and would gather a batch that is split
    # over several devices.
    return jax.lax.platform_dependent(
        images,
        operations,
        amounts,
        cpu=lambda *batch: jax.lax.map(change, batch),
        default=lambda *batch: jax.vmap(change)(batch),
    )


def _changes(ranges: Ranges, height: int, width: int) -> dict[str, Callable[[jax.Array, jax.Array], jax.Array]]:
    """Each operation as a function of images and their amounts; amounts are `(N,)`."""
    down, right = ranges.translate

    def moved(
        images: jax.Array,
        x_of_y: jax.Array | float = 0.0,
        y_of_x: jax.Array | float = 0.0,
        x: jax.Array | float = 0.0,
        y: jax.Array | float = 0.0,
    ) -> jax.Array:
        """Warps by the identity plus these terms, about the upper left corner as torchvision's shears do."""
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
    """Random operations from a list.

    Attributes:
        auto_augment: `randaugment` or `trivialaugment`, see the functions of these names; None for none.
        randaugment: number of operations for each image, and their magnitude from 0 to 10.
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
