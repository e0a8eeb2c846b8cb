"""A split that is read when it is needed: images are decoded on all cores shortly before their step, and not kept."""

import itertools
from collections.abc import Callable, Generator

import numpy as np

from flax_resnets.data.batches import Batch, drawn_by, eval_indices
from flax_resnets.data.cache import resized_example
from flax_resnets.data.config import Sampler
from flax_resnets.data.labels import new_labels
from flax_resnets.data.source import Source
from flax_resnets.machine import cores

_AHEAD = 2  # batches to decode ahead
_TASK = 8  # images that a thread takes at a time: few, so that many threads share a batch
_READ = 256  # images in a batch of `read`


class StreamedImages:
    """A split whose images are decoded each time they are used: for sets too large for `cached_images`.

    The batches equal those of `cached_images` bit for bit. Grain's threads decode, one for each core that the process
    may use. They live as long as the generator of batches; closing the generator ends them within a few images.

    Args:
        source: the split.
        size: height and width of the images; see `cached_images`.
        resize: see `cached_images`.

    Example:
        >>> from flax_resnets.data.source import open_source
        >>> split = StreamedImages(open_source("fashion_mnist_sample", "validation"), size=28)
        >>> [batch.images.shape for batch in split.eval_batches(500)]
        [(500, 28, 28, 1), (500, 28, 28, 1)]
    """

    def __init__(self, source: Source, size: int, resize: str = "squash"):
        self._source = source
        self._size = size
        self._resize = resize
        self._labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._source)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self._source.channels

    @property
    def labels(self) -> np.ndarray:
        """See `Split`. They are read once."""
        if self._labels is None:
            self._labels = self._source.labels()
        return self._labels

    @property
    def multilabel(self) -> bool:
        """See `Split`."""
        return self._source.multilabel

    @property
    def labels_at_hand(self) -> bool:
        """See `Split`."""
        return self._labels is not None or self._source.labels_at_hand

    def read(self, indices: np.ndarray) -> Generator[Batch[np.ndarray]]:
        """See `Split`; raises as `train_batches` does."""
        numbers = range(-(-len(indices) // _READ))
        return self._batches(lambda number: indices[number * _READ : (number + 1) * _READ], numbers)

    def train_batches(
        self, batch_size: int, seed: int, steps: range, rows: np.ndarray | None = None, sampler: Sampler = "shuffle"
    ) -> Generator[Batch[np.ndarray]]:
        """See `Split`.

        Raises:
            UserError: an image cannot be decoded; raised in place of the batch that contains it.
        """
        drawn = drawn_by(sampler, self, batch_size, seed)

        def indices(step: int) -> np.ndarray:
            return drawn(step) if rows is None else drawn(step)[rows]

        return self._batches(indices, steps)

    def eval_batches(self, batch_size: int, rows: np.ndarray | None = None) -> Generator[Batch[np.ndarray]]:
        """See `Split`; raises as `train_batches` does."""
        numbers = range(-(-len(self) // batch_size))
        return self._batches(lambda number: eval_indices(len(self), batch_size, number, rows), numbers)

    def _batches(self, indices: Callable[[int], np.ndarray], numbers: range) -> Generator[Batch[np.ndarray]]:
        """Yields a batch for each number in `numbers`. `indices` returns the images of the batch with this number."""
        import grain  # takes half a second, so runs with cached images do not import it

        if not numbers:
            return
        tasks = -(-len(indices(numbers[0])) // _TASK)
        threads = cores()
        ahead = max(_AHEAD * tasks, 2 * threads)
        parts = grain.MapDataset.source(_Tasks(self._decoded, indices, numbers, tasks))
        iterator = iter(parts.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)))
        try:
            for _ in numbers:
                yield Batch(*map(np.concatenate, zip(*itertools.islice(iterator, tasks), strict=True)))
        finally:
            iterator.close()

    def _decoded(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels by index; for an index of −1, no image and label −1."""
        images = np.zeros((len(indices), self._size, self._size, self.channels), np.uint8)
        labels = new_labels(self._source, len(indices))
        for row, index in enumerate(indices):
            if index >= 0:
                images[row], labels[row] = resized_example(self._source, int(index), self._size, self._resize)
        return images, labels


class _Tasks:
    """The parts of all batches, by number; Grain's threads read from it."""

    def __init__(
        self,
        decoded: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        indices: Callable[[int], np.ndarray],
        numbers: range,
        tasks: int,
    ):
        self._decoded = decoded
        self._indices = indices
        self._numbers = numbers
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._numbers) * self._tasks

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        batch, part = divmod(index, self._tasks)
        return self._decoded(self._indices(self._numbers[batch])[part * _TASK : (part + 1) * _TASK])
