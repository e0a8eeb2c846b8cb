"""A run with streamed images: the same numbers as with cached images."""

import copy
import dataclasses
import itertools
import json
import signal
from pathlib import Path

import pytest

from flax_resnets.data.batches import train_indices
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError
from flax_resnets.training.loop import Stopped, fit
from flax_resnets.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")


class Source:
    """The noise as a dataset; images may be broken."""

    channels = 1
    multilabel = False

    def __init__(self, data, broken=()):
        self.data, self.broken = data, broken

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        if index in self.broken:
            raise UserError(f"image {index}: broken")
        return self.data.images[index], int(self.data.labels[index])


def streamed(trainer: Trainer, data, broken_train=(), broken_valid=()) -> Trainer:
    """The same trainer, compiled steps included, reading from a stream."""
    other = copy.copy(trainer)
    other.train = StreamedImages(Source(data, broken_train), 12)
    other.valid = StreamedImages(Source(data, broken_valid), 12)
    return other


def figures(workdir: Path) -> list[dict]:
    """The rows without measured times."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


@pytest.fixture(scope="module")
def full(config):
    """Statistics are recomputed after an epoch; as in test_loop.py, so that both share the compiled step."""
    return dataclasses.replace(
        config, progressive=((1, 8), (2, 10)), ema_decay=0.9, ema_batch_norm="recalibrate", recalibrate_steps=2
    )


@pytest.fixture(scope="module")
def cached(make_trainer, full, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("cached")
    fit(make_trainer(full), workdir)
    return workdir


def stopping(trainer: Trainer, step: int) -> Trainer:
    """The rows of a run that gets a signal while training step `step` is running."""
    counted = itertools.count()

    def train_step_at(size):
        def stepping(state, batch):
            if next(counted) == step:
                signal.raise_signal(signal.SIGTERM)
            return trainer.steps.train_step_at(size)(state, batch)

        return stepping

    return trainer.with_steps(train_step_at=train_step_at)


@pytest.mark.parametrize("first", ["cached", "streamed"])
def test_begun_one_way_it_goes_on_the_other_to_the_same_bits(make_trainer, full, data, cached, tmp_path, first):
    ways = {"cached": make_trainer(full), "streamed": streamed(make_trainer(full), data)}
    before, after = ways.pop(first), next(iter(ways.values()))
    with pytest.raises(Stopped):
        fit(stopping(before, 8), tmp_path)
    fit(after, tmp_path)
    assert figures(tmp_path) == figures(cached)


@pytest.mark.parametrize(("split", "saved"), [("train", 3), ("valid", 6)])
def test_at_a_broken_image_it_keeps_what_it_has_and_goes_on_once_it_is_whole(
    make_trainer, full, data, cached, tmp_path, split, saved
):
    broken = train_indices(len(data), full.batch_size, full.seed, 3)[0]
    with pytest.raises(UserError, match=f"image {broken}: broken"):
        fit(streamed(make_trainer(full), data, **{f"broken_{split}": [broken]}), tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [str(saved)]
    fit(streamed(make_trainer(full), data), tmp_path)
    assert figures(tmp_path) == figures(cached)
