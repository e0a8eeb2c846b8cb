"""A picture of the images of one training step: as they are stored, and after augmentation."""

import contextlib
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from flax_resnets.augment.normalise import statistics_of
from flax_resnets.data import labels
from flax_resnets.data.batches import Batch, Split, steps_per_epoch
from flax_resnets.errors import UserError, printable
from flax_resnets.figures import new_figure, png
from flax_resnets.training.build import check_devices
from flax_resnets.training.compilation import quick_to_compile
from flax_resnets.training.completion import completed
from flax_resnets.training.config import Config
from flax_resnets.training.out_of_memory import out_of_memory
from flax_resnets.training.placement import make_mesh, to_devices
from flax_resnets.training.step import network_inputs, step_key

_COLUMNS = 8
_LINES = 3  # of classes above a picture


class ShownBatch(NamedTuple):
    """The batch of one step, before and after augmentation.

    Attributes:
        step: counted from 0.
        steps: of the whole run.
        epoch: counted from 1.
        stored: uint8 `(N, S, S, C)`.
        labels: int32 `(N,)` or int8 `(N, classes)`.
        images: float32 `(N, size, size, C)`, normalised.
        targets: float32 `(N, classes)`, 0 to 1; before label smoothing.
    """

    step: int
    steps: int
    epoch: int
    stored: np.ndarray
    labels: np.ndarray
    images: np.ndarray
    targets: np.ndarray


def show_batch(config: Config, train: Split, num_classes: int, step: int = 0) -> ShownBatch:
    """The images that the network sees in one step of a run, at that step's image size.

    Args:
        config: the run.
        train: training split.
        num_classes: number of classes.
        step: counted from 0.

    Raises:
        UserError: there are fewer images than a batch has, the devices cannot share it evenly, the run has no such
            step, or the device's memory is too small.
    """
    an_epochs = steps_per_epoch(len(train), config.batch_size)
    steps = config.epochs * an_epochs
    if step >= steps:
        raise UserError(f"show-batch: --step={step}: must be below the run's {steps} steps")
    config = completed(config, train, num_classes)
    order = config.batch_size, config.seed, range(step, step + 1), None, config.sampler
    with contextlib.closing(train.train_batches(*order)) as batches:
        stored, classes = next(batches)
    epoch = step // an_epochs
    of_step = partial(
        network_inputs,
        config=config,
        num_classes=num_classes,
        image_size=config.size_in_epoch(epoch),
        mixing=config.mix_off_epoch is None or epoch < config.mix_off_epoch,
    )
    check_devices(config, jax.device_count())
    mesh = make_mesh(config.weight_shards)
    compiled = jax.jit(of_step, compiler_options=quick_to_compile(mesh))
    batch = to_devices(Batch(stored, classes), mesh)  # as in training: on one device it may not fit
    with out_of_memory(f"batch_size={config.batch_size}", "a smaller one needs less"):
        # Wait here: fetching an array that could not be computed for lack of memory aborts the process.
        result = jax.block_until_ready(compiled(step_key(config, jnp.int32(step)), batch))
    images, targets = jax.device_get(result)
    return ShownBatch(step, steps, epoch + 1, stored, classes, images.astype(np.float32), targets)


def draw(batch: ShownBatch, config: Config, class_names: Sequence[str], title: str, images: int = 16) -> bytes:
    """Draws the first images of a batch, each above its augmented version; returns a PNG.

    Args:
        batch: as `show_batch` returns it.
        config: the run, as `completed` returns it; its `mean` and `std` are used to undo the normalisation.
        class_names: in the order of the labels.
        title: of the picture.
        images: how many images to draw; all if the batch has fewer.
    """
    class_names = [printable(name) for name in class_names]
    images = min(images, len(batch.labels))
    columns = min(images, _COLUMNS)
    rows = 2 * -(-images // columns)
    figure = new_figure(1.7 * max(columns, 4), 1.9 * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    pixels = _as_stored(batch.images[:images], config)
    for i in range(images):
        row, column = divmod(i, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        above.set_title(_in_lines(labels.in_words(batch.labels[i], class_names)), fontsize=8, parse_math=False)
        below.set_title(in_words(batch.targets[i], class_names), fontsize=8, parse_math=False)
        for axes, picture in ((above, batch.stored[i]), (below, pixels[i])):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255 if axes is above else 1)
    sizes = f"stored at {batch.stored.shape[1]} px, shown at {batch.images.shape[1]}"
    figure.suptitle(f"{title}, step {batch.step} of {batch.steps} (epoch {batch.epoch}): {sizes}", fontsize=10)
    return png(figure)


def sheet(batch: ShownBatch, config: Config, images: int = 32) -> np.ndarray:
    """The first images of a batch as the network sees them, side by side on white; uint8 `(H, W, C)`.

    Small images are enlarged to about 64 pixels. Unlike `draw` it names no classes, and takes no time.

    Args:
        batch: as `show_batch` returns it.
        config: the run, as `completed` returns it; its `mean` and `std` are used to undo the normalisation.
        images: how many images to show; all if the batch has fewer.
    """
    pixels = (255 * _as_stored(batch.images[:images], config)).round().astype(np.uint8)
    factor = max(1, 64 // pixels.shape[1])
    pixels = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
    columns = min(len(pixels), _COLUMNS)
    missing = -len(pixels) % columns
    pixels = np.pad(pixels, ((0, missing), (2, 2), (2, 2), (0, 0)), constant_values=255)
    return einops.rearrange(pixels, "(row column) h w c -> (row h) (column w) c", column=columns)


def _as_stored(images: np.ndarray, config: Config) -> np.ndarray:
    """Undoes the normalisation; 0 to 1."""
    mean, std = statistics_of(config)
    return (images * np.array(std, np.float32) + np.array(mean, np.float32)).clip(0, 1)


def in_words(target: np.ndarray, class_names: Sequence[str]) -> str:
    r"""The classes of a target, the larger share first. If one is a share, each is on a line with its share.

    Args:
        target: `(classes,)`, 0 to 1.
        class_names: in the order of the labels.

    Example:
        >>> in_words(np.array([0.25, 0.0, 0.75]), ["cat", "dog", "owl"])
        '.75 owl\n.25 cat'
        >>> in_words(np.array([0.0, 1.0, 0.0]), ["cat", "dog", "owl"])
        'dog'
    """
    classes = [int(each) for each in np.argsort(-target, kind="stable") if target[each] >= 0.005]
    if all(target[each] >= 0.995 for each in classes):
        return _in_lines(labels.in_words(target >= 0.995, class_names))
    more = f"\nand {len(classes) - _LINES} more" if classes[_LINES:] else ""
    lines = (f"{target[each]:.2f} {class_names[each]}".removeprefix("0") for each in classes[:_LINES])
    return "\n".join(lines) + more


def _in_lines(names: str) -> str:
    """The names of classes in lines that fit above a picture."""
    return textwrap.fill(names, 26, max_lines=_LINES, placeholder=" ...") if ", " in names else names
