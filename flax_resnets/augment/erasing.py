"""Random erasing: replaces rectangles by noise."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flax_resnets.augment.augmentation import Augmentation
from flax_resnets.fields import Rule

_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 1 / 0.3)


@dataclass(frozen=True, kw_only=True)
class RandomErasing(Augmentation):
    """Random erasing, applied after `Normalise`; see `random_erasing`.

    Attributes:
        random_erasing: share of the training images that lose a rectangle; 0 for none.
    """

    random_erasing: float = 0.0

    DRAWS = 7
    RULES = (Rule("random_erasing", lambda v: 0 <= v <= 1, "from 0 to 1"),)

    def augment(self, key: jax.Array, images: jax.Array, size: int) -> jax.Array:
        """See `Augmentation`."""
        return random_erasing(key, images, self.random_erasing) if self.random_erasing else images


def random_erasing(key: jax.Array, images: jax.Array, probability: float) -> jax.Array:
    """Replaces a random rectangle in some of the images by noise, drawn for each value from the standard normal.

    Zhong et al. 2017, arXiv:1708.04896, section 3.2. The area is uniform between 2 % and a third of the image, as in
    timm (up to 40 % in the paper). The logarithm of the aspect ratio is uniform between those of 0.3 and 1 / 0.3. A
    side longer than the image is cut to the image's side, where the paper draws again. The noise is that of timm's
    `pixel` mode, in place of the paper's uniform colour.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, normalised, any float dtype.
        probability: that an image loses a rectangle.

    Returns:
        Shape and dtype of `images`.

    Example:
        >>> random_erasing(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), 0.25).shape
        (2, 8, 8, 3)
    """
    n, height, width, _ = images.shape
    chosen_key, area_key, ratio_key, place_key, noise_key = jax.random.split(key, 5)
    area = height * width * jax.random.uniform(area_key, (n,), minval=_AREA[0], maxval=_AREA[1])
    aspect = jnp.exp(jax.random.uniform(ratio_key, (n,), minval=math.log(_RATIO[0]), maxval=math.log(_RATIO[1])))
    limits = jnp.array([height, width])
    sides = jnp.round(jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=1)).astype(jnp.int32)
    sides = jnp.clip(sides, 1, limits)
    corners = jax.random.randint(place_key, (n, 2), 0, limits - sides + 1)
    chosen = jax.random.bernoulli(chosen_key, probability, (n,))
    erased = rectangles(corners, sides, height, width) & chosen[:, None, None]
    # The same numbers as drawn in four axes, for which a CPU compiles longer and computes longer.
    noise = jax.random.normal(noise_key, (n, math.prod(images.shape[1:])), images.dtype).reshape(images.shape)
    return jnp.where(erased[..., None], noise, images)


def rectangles(corners: jax.Array, sides: jax.Array, height: int, width: int) -> jax.Array:
    """Boolean masks that are True inside one rectangle an image.

    Args:
        corners: int `(N, 2)`, row and column of the upper left pixel.
        sides: int `(N, 2)`, height and width in pixels.
        height: of the masks, in pixels.
        width: of the masks, in pixels.

    Returns:
        bool `(N, height, width)`.

    Example:
        >>> rectangles(jnp.array([[0, 1]]), jnp.array([[1, 2]]), 2, 4).astype(int).tolist()
        [[[0, 1, 1, 0], [0, 0, 0, 0]]]
    """
    rows = jnp.arange(height) - corners[:, :1]
    columns = jnp.arange(width) - corners[:, 1:]
    in_rows = (rows >= 0) & (rows < sides[:, :1])
    in_columns = (columns >= 0) & (columns < sides[:, 1:])
    return in_rows[:, :, None] & in_columns[:, None, :]
