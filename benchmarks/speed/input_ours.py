"""This package's side of `input_pipeline.py`: batches from the cache or a stream, by the functions of the loop."""

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
    way: str,
    use_cores: int,
) -> tuple[Any, dict[str, Any]]:
    """Prepares a contender; see `flax_resnets/cli/bench/child.py`.

    Args:
        dataset: as in the configuration.
        data_dir: as in the configuration.
        store_size: side of the cached images, in pixels.
        images: how many images to use, from the first; None for all.
        batch: images in a batch.
        size: side of the crop, in pixels.
        way: `cached`; `cropped`, the same with crop, flip and normalisation as in the step; `streamed`; or `decoded`,
            one image after the other, without making batches.
        use_cores: how many cores of the machine to use.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:use_cores])
    import jax  # it counts the cores when it starts

    from flax_resnets import augment
    from flax_resnets.data.batches import train_batch, train_indices
    from flax_resnets.data.cache import cached_images, resized
    from flax_resnets.data.source import open_source
    from flax_resnets.data.stream import StreamedImages
    from flax_resnets.training.placement import make_mesh, to_devices

    mesh = make_mesh()
    steps = itertools.count()
    source = open_source(dataset, "train", data_dir)
    facts = {"cores": use_cores, "versions": {name: version(name) for name in ("jax", "numpy", "grain", "simplejpeg")}}

    class First(StreamedImages):
        def __len__(self) -> int:
            return min(len(source), images or len(source))

    def stream(n: int) -> None:
        start = next(steps)
        # A run of n steps. In a longer one, threads would prepare further batches during other contenders' turns.
        for batch_ in First(source, store_size).train_batches(batch, 0, range(start, start + n)):
            jax.block_until_ready(to_devices(batch_, mesh))

    def decode(n: int) -> None:
        start = next(steps)
        for step in range(start, start + n):
            for index in train_indices(len(First(source, store_size)), batch, 0, step):
                resized(source.image(int(index)), store_size, "squash")

    if way in ("streamed", "decoded"):
        return (stream if way == "streamed" else decode), facts

    data = cached_images(source, store_size)
    pixels, labels = data.images[:images], data.labels[:images]
    pixels.sum()  # reads every page once, as a first epoch does

    @jax.jit
    def for_step(step: jax.Array, pixels: jax.Array) -> jax.Array:
        return augment.for_training(
            jax.random.fold_in(jax.random.key(0), step),
            pixels,
            augment.AugmentConfig(crop_scale=(0.08, 1.0), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
            size,
        )

    def repeat(n: int) -> None:
        for step in itertools.islice(steps, n):
            delivered = to_devices(train_batch(pixels, labels, batch, 0, step), mesh)
            jax.block_until_ready(delivered)
            if way == "cropped":
                jax.block_until_ready(for_step(step, delivered.images))

    return repeat, facts
