"""Mixing: mixup and CutMix, which join two images and their targets.

Image i is joined with image N - 1 - i, and there is one share for the batch, as in timm: the batch is in random order
already.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from flax_resnets.augment.erasing import rectangles
from flax_resnets.fields import MOST, Fields, Rule


@dataclass(frozen=True, kw_only=True)
class MixConfig(Fields):
    """How pairs of images are joined.

    Attributes:
        mixup: α of mixup's Beta distribution; 0 for none.
        cutmix: α of CutMix's; with mixup as well, each batch takes one of the two by a coin's throw.
        mix_off_epoch: neither of the two from this epoch on, counted from 0; None for all epochs.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mix_off_epoch: int | None = None

    RULES = (
        Rule("mix_off_epoch", lambda v: v <= MOST, f"at most {MOST}"),
        Rule("mixup cutmix mix_off_epoch", lambda v: v >= 0, "at least 0"),
    )


def mixup(key: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Averages pairs of images, and their targets, by a share λ from Beta(α, α).

    Zhang et al. 2017, arXiv:1710.09412, section 2.

    Args:
        key: of the draw.
        images: `(N, H, W, C)`, any float dtype.
        targets: float `(N, classes)`, each row's sum being 1.
        alpha: α, above 0.

    Returns:
        Images and targets as they came in.

    Example:
        >>> images, targets = jnp.zeros((2, 8, 8, 3)), jnp.eye(2)
        >>> mixed, mixed_targets = mixup(jax.random.key(0), images, targets, 0.2)
        >>> mixed_targets.sum(1).tolist()
        [1.0, 1.0]
    """
    share = jax.random.beta(key, alpha, alpha)
    return _average(images, share), _average(targets, share)


def cutmix(key: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Pastes a rectangle of one image of each pair into the other, and averages targets by the pixels of each.

    Yun et al. 2019, arXiv:1905.04899, section 3.1: the rectangle has the image's shape and 1 - λ of its area, λ from
    Beta(α, α), and its centre anywhere in the image. What sticks out is cut off; λ for the targets is the share of
    pixels that were not pasted in the end.

    Args:
        key: of the draw.
        images: `(N, H, W, C)`, any dtype.
        targets: float `(N, classes)`, each row's sum being 1.
        alpha: α, above 0; the paper's is 1.

    Returns:
        Images and targets as they came in.

    Example:
        >>> images, targets = jnp.zeros((2, 8, 8, 3)), jnp.eye(2)
        >>> mixed, mixed_targets = cutmix(jax.random.key(0), images, targets, 1.0)
        >>> mixed_targets.sum(1).tolist()
        [1.0, 1.0]
    """
    _, height, width, _ = images.shape
    share_key, centre_key = jax.random.split(key)
    limits = jnp.array([height, width])
    halves = (jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha)) * limits).astype(jnp.int32) // 2
    centre = jax.random.randint(centre_key, (2,), 0, limits)
    start, end = jnp.clip(centre - halves, 0, limits), jnp.clip(centre + halves, 0, limits)
    pasted = rectangles(start[None], (end - start)[None], height, width)[..., None]
    share = 1 - jnp.prod(end - start) / (height * width)
    return jnp.where(pasted, images[::-1], images), _average(targets, share)


def mix(
    key: jax.Array,
    images: jax.Array,
    targets: jax.Array,
    config: MixConfig,
    enabled: jax.Array | bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Mixup, CutMix, or for each batch one of the two by the throw of a fair coin.

    Args:
        key: of the draw.
        images: see `mixup`.
        targets: see `mixup`.
        config: which of the two, and their α.
        enabled: bool, which may be traced: False returns images and targets untouched.

    Returns:
        Images and targets as they came in.
    """
    coin_key, key = jax.random.split(key)

    def by_mixup(images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return mixup(key, images, targets, config.mixup)

    def by_cutmix(images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        return cutmix(key, images, targets, config.cutmix)

    ways = [way for way, alpha in ((by_mixup, config.mixup), (by_cutmix, config.cutmix)) if alpha > 0]
    if not ways:
        return images, targets
    drawn = jax.random.randint(coin_key, (), 0, len(ways))
    return jax.lax.switch(jnp.where(enabled, 1 + drawn, 0), [_untouched, *ways], images, targets)


def _untouched(images: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    return images, targets


def _average(values: jax.Array, share: jax.Array) -> jax.Array:
    return (share * values + (1 - share) * values[::-1]).astype(values.dtype)
