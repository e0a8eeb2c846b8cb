"""Which images step n sees: computed from the seed and n alone, independent of processes and earlier starts."""

from collections.abc import Callable, Generator, Sequence
from functools import lru_cache, partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import jax
import numpy as np

from flax_resnets.data.config import Sampler
from flax_resnets.data.labels import images_by_class
from flax_resnets.errors import UserError

Array = TypeVar("Array", np.ndarray, jax.Array)


class Batch(NamedTuple, Generic[Array]):
    """Images as they are stored, and their classes. `Batch[np.ndarray]` on the host, `Batch[jax.Array]` on devices.

    Attributes:
        images: uint8 `(N, H, W, C)`.
        labels: int32 `(N,)`, or int8 `(N, classes)` if an image may have any number of classes, see
            `flax_resnets.data.labels`; −1 for an image that only pads the last batch of an evaluation.
    """

    images: Array
    labels: Array


class Split(Protocol):
    """A split that is read in batches: `CachedImages` or `StreamedImages`."""

    def __len__(self) -> int:
        """The number of images."""
        ...

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """The labels of all images, int32 `(N,)` or int8 `(N, classes)`."""
        ...

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of classes."""
        ...

    @property
    def labels_at_hand(self) -> bool:
        """Whether `labels` costs nothing; otherwise every record of the dataset is read for it."""
        ...

    def read(self, indices: np.ndarray) -> Generator[Batch[np.ndarray]]:
        """The images with these indices, in order, in batches of any size.

        Close the iterator if it is not read to the end.
        """
        ...

    def train_batches(
        self, batch_size: int, seed: int, steps: range, rows: np.ndarray | None = None, sampler: Sampler = "shuffle"
    ) -> Generator[Batch[np.ndarray]]:
        """The batches of training steps. Close the iterator if it is not read to the end.

        Args:
            batch_size: global batch size, over all hosts.
            seed: of the order.
            steps: counted from 0 over the whole run.
            rows: the rows of each batch to read, the share of one process; None for all.
            sampler: see `DataConfig`.
        """
        ...

    def eval_batches(self, batch_size: int, rows: np.ndarray | None = None) -> Generator[Batch[np.ndarray]]:
        """Every image once; for the arguments see `eval_batches`. Close the iterator if it is not read to the end."""
        ...


@lru_cache(maxsize=2)
def _shuffled(images: int, seed: int, epoch: int) -> np.ndarray:
    # Philox is counter-based and its key is (seed, epoch), so the order of an epoch needs no draws of earlier epochs.
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(images)


def steps_per_epoch(images: int, batch_size: int) -> int:
    """The number of whole batches in an epoch. The images left over are not used in that epoch.

    Raises:
        UserError: there are fewer images than a batch has.

    Example:
        >>> steps_per_epoch(9469, 64)
        147
    """
    if images < batch_size:
        raise UserError(f"batch_size={batch_size}: must be at most the {images} training images")
    return images // batch_size


def train_indices(images: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The images of training step `step`, counted from 0 over the whole run.

    Args:
        images: number of images in the split; at least `batch_size`.
        batch_size: global batch size, over all hosts.
        seed: seed of the shuffles. Each epoch has its own shuffle.
        step: at least 0.

    Returns:
        int64 `(batch_size,)`, each below `images`, no image twice within an epoch.

    Example:
        >>> bool((train_indices(100, 10, 0, 7) == train_indices(100, 10, 0, 7)).all())
        True
    """
    epoch, position = divmod(step, steps_per_epoch(images, batch_size))
    return _shuffled(images, seed, epoch)[position * batch_size : (position + 1) * batch_size]


def balanced_indices(by_class: Sequence[np.ndarray], batch_size: int, seed: int, step: int) -> np.ndarray:
    """The images of training step `step` if all classes are drawn equally often.

    The draws of all steps form one sequence. Of k classes, each one occurs once among the first k draws, once among the
    next k, and so on, in an order that is drawn anew each time. A class's images come in random order, and again in
    another order once all have been drawn. So a rare class's images are seen more often than others. An image of
    several classes can be drawn for each of them, and one without any is never drawn.

    Args:
        by_class: the images of each class, see `images_by_class`.
        batch_size: global batch size, over all hosts.
        seed: for all orders.
        step: counted from 0 over the whole run.

    Returns:
        int64 `(batch_size,)`.

    Example:
        >>> by_class = [np.array([0]), np.array([1, 2, 3])]
        >>> np.bincount(balanced_indices(by_class, 12, seed=0, step=5)).tolist()
        [6, 2, 2, 2]
    """
    classes = len(by_class)
    turns, places = np.divmod(step * batch_size + np.arange(batch_size), classes)
    turns_in_round = max(_DRAWS_IN_ROUND // classes, 1)
    orders = {number: _turns(classes, turns_in_round, seed, number) for number in np.unique(turns // turns_in_round)}
    drawn = np.empty(batch_size, np.int64)
    for row, (turn, place) in enumerate(zip(turns, places, strict=True)):
        number, turn_in_round = divmod(turn, turns_in_round)
        label = int(orders[number][turn_in_round, place])
        images = by_class[label]
        passed, position = divmod(int(turn), len(images))
        drawn[row] = images[_shuffled_class(len(images), seed, label, passed)[position]]
    return drawn


_DRAWS_IN_ROUND = 4096  # orders of the classes that are drawn together


@lru_cache(maxsize=4)
def _turns(classes: int, turns: int, seed: int, number: int) -> np.ndarray:
    """The order of the classes in each turn: `(turns, classes)`."""
    random = np.random.Generator(np.random.Philox(key=[seed, number]))
    return random.permuted(np.tile(np.arange(classes), (turns, 1)), axis=1)


@lru_cache(maxsize=4096)
def _shuffled_class(images: int, seed: int, label: int, passed: int) -> np.ndarray:
    # A seed has 32 bits, so these keys differ from those of the epochs and of the turns.
    key = [seed + ((label + 1) << 32), passed]
    return np.random.Generator(np.random.Philox(key=key)).permutation(images)


def drawn_by(sampler: Sampler, split: Split, batch_size: int, seed: int) -> Callable[[int], np.ndarray]:
    """A function from the number of a training step to the indices of its images; for the arguments see `Split`."""
    if sampler == "balanced":
        # A streamed batch is asked for once by each task of the threads.
        return lru_cache(maxsize=8)(partial(balanced_indices, images_by_class(split.labels), batch_size, seed))
    return partial(train_indices, len(split), batch_size, seed)


def train_batch(
    images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, step: int, rows: np.ndarray | None = None
) -> Batch[np.ndarray]:
    """The batch of training step `step` from a split that is held in memory; for the arguments see `train_indices`.

    `rows` are the rows of the batch that this process reads; None for all rows.
    """
    indices = train_indices(len(images), batch_size, seed, step)
    if rows is not None:
        indices = indices[rows]
    return Batch(images[indices], labels[indices])


def eval_indices(images: int, batch_size: int, number: int, rows: np.ndarray | None = None) -> np.ndarray:
    """The images of one evaluation batch, in order; −1 where there are no more images.

    Args:
        images: number of images in the split.
        batch_size: images in each batch.
        number: number of the batch, counted from 0.
        rows: the rows of the batch to return, the share of one process; None for all.

    Example:
        >>> eval_indices(5, 3, number=1).tolist()
        [3, 4, -1]
    """
    indices = number * batch_size + (np.arange(batch_size) if rows is None else rows)
    return np.where(indices < images, indices, -1)


def eval_batches(
    images: np.ndarray, labels: np.ndarray, batch_size: int, rows: np.ndarray | None = None
) -> Generator[Batch[np.ndarray]]:
    """Every image once, in order, in batches of one shape; the last one is padded with images of label −1.

    Args:
        images: uint8 `(N, H, W, C)`.
        labels: int32 `(N,)` or int8 `(N, classes)`.
        batch_size: images in each batch.
        rows: the rows of each batch to read, the share of one process; None for all.

    Example:
        >>> images, labels = np.zeros((5, 2, 2, 1), np.uint8), np.arange(5, dtype=np.int32)
        >>> [batch.labels.tolist() for batch in eval_batches(images, labels, 3)]
        [[0, 1, 2], [3, 4, -1]]
    """
    for number in range(-(-len(images) // batch_size)):
        indices = eval_indices(len(images), batch_size, number, rows)
        batch = Batch(images[indices], labels[indices])
        batch.images[indices < 0] = 0
        batch.labels[indices < 0] = -1
        yield batch
