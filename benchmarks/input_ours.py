"""Our side of `input_pipeline.py`: out of the decoded cache, through the loop's own functions."""

import itertools
import os
from importlib.metadata import version
from typing import Any


def prepare(
    dataset: str,
    data_dir: str | None,
    store_size: int,
    images: int | None,
    batch: int,
    size: int,
    cropped: bool,
    use_cores: int,
) -> tuple[Any, dict[str, Any]]:
    """Sets up a contender; see `flax_resnets/bench/child.py`.

    Args:
        dataset: as the config's.
        data_dir: as the config's.
        store_size: of the cached images' side, in pixels.
        images: the first so many alone; None for all.
        batch: images.
        size: of the crop's side, in pixels.
        cropped: whether the crop, the flip and the normalisation are done here, as the step would.
        use_cores: how many of the machine's.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:use_cores])
    import jax  # counts the cores when it starts

    from flax_resnets.data import augment
    from flax_resnets.data.batches import train_batch
    from flax_resnets.data.cache import cached_images
    from flax_resnets.data.source import open_source
    from flax_resnets.training.placement import make_mesh, to_devices

    data = cached_images(open_source(dataset, "train", data_dir), store_size)
    pixels, labels = data.images[:images], data.labels[:images]
    pixels.sum()  # every page was read once: this is no first epoch
    mesh = make_mesh()
    steps = itertools.count()

    @jax.jit
    def for_step(step: jax.Array, pixels: jax.Array) -> jax.Array:
        return augment.for_training(
            jax.random.fold_in(jax.random.key(0), step),
            pixels,
            size=size,
            crop_scale=(0.08, 1.0),
            crop_ratio=(3 / 4, 4 / 3),
            flip=True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )

    def repeat(n: int) -> None:
        for step in itertools.islice(steps, n):
            delivered = to_devices(train_batch(pixels, labels, batch, 0, step), mesh)
            jax.block_until_ready(delivered)
            if cropped:
                jax.block_until_ready(for_step(step, delivered.images))

    return repeat, {"cores": use_cores, "versions": {name: version(name) for name in ("jax", "numpy")}}
