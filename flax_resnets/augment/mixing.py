"""Mixup and CutMix: two images and their targets are joined.

Image i is joined with image N - 1 - i, and the whole batch shares one λ, as in timm. That is random enough, because
batches are in random order.
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
        mixup: α of the Beta distribution for mixup; 0 for no mixup.
        cutmix: α of the Beta distribution for CutMix; 0 for no CutMix. With both, each batch is joined by one of the
            two, with equal probability.
        mix_off_epoch: no mixup or CutMix from this epoch on, counted from 0; None for all epochs.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mix_off_epoch: int | None = None

    RULES = (
        Rule("mix_off_epoch", lambda v: v <= MOST, f"at most {MOST}"),
        Rule("mixup cutmix mix_off_epoch", lambda v: v >= 0, "at least 0"),
    )


def mixup(key: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Averages pairs of images and their targets with weights λ and 1 - λ, where λ is drawn from Beta(α, α).

    Zhang et al. 2017, arXiv:1710.09412, section 2.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, any float dtype.
        targets: float `(N, classes)`; each row sums to 1.
        alpha: α, above 0.

    Returns:
        Mixed images and targets, shapes and dtypes kept.

    Example:
        >>> images, targets = jnp.zeros((2, 8, 8, 3)), jnp.eye(2)
        >>> mixed, mixed_targets = mixup(jax.random.key(0), images, targets, 0.2)
        >>> mixed_targets.sum(1).tolist()
        [1.0, 1.0]
    """
    share = jax.random.beta(key, alpha, alpha)
    return _average(images, share), _average(targets, share)


def cutmix(key: jax.Array, images: jax.Array, targets: jax.Array, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Pastes a rectangle of one image of each pair into the other, and averages the targets by the number of pixels.

    Yun et al. 2019, arXiv:1905.04899, section 3.1. The rectangle has the aspect ratio of the image and 1 - λ of its
    area, with λ from Beta(α, α), and its centre is anywhere in the image. The part outside the image is cut off, so the
    λ for the targets is computed afterwards: the share of pixels that were not pasted.

    Args:
        key: PRNG key.
        images: `(N, H, W, C)`, any dtype.
        targets: float `(N, classes)`; each row sums to 1.
        alpha: α, above 0; 1 in the paper.

    Returns:
        Mixed images and targets, shapes and dtypes kept.

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
    """Mixup, CutMix, or one of the two with equal probability for each batch.

    Args:
        key: PRNG key.
        images: see `mixup`.
        targets: see `mixup`.
        config: α of both.
        enabled: bool, may be traced; False returns images and targets untouched.

    Returns:
        Mixed images and targets, shapes and dtypes kept.
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
