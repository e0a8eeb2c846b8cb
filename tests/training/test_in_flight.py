"""The host starts a few steps ahead of the devices, and no more."""

from collections.abc import Iterator
from itertools import accumulate

import jax
import jax.numpy as jnp
import pytest

from flax_resnets.data.batches import eval_batches
from flax_resnets.training.in_flight import AHEAD, each_computed
from flax_resnets.training.step import evaluate


@pytest.mark.parametrize("steps", [0, 1, AHEAD, AHEAD + 1, 10])
def test_each_output_comes_when_the_next_have_been_started(steps):
    started = []

    def outputs() -> Iterator[jnp.ndarray]:
        for step in range(steps):
            started.append(step)
            yield jnp.int32(step)

    seen = []
    for output in each_computed(outputs()):
        seen.append(int(output))
        assert len(started) == min(len(seen) + AHEAD, steps)
    assert seen == list(range(steps))


def test_an_evaluation_keeps_few_batches_on_the_devices(make_trainer, config, monkeypatch):
    """Otherwise a validation split of ImageNet's size would pile up on the devices."""
    trainer = make_trainer(config)
    data, state = trainer.valid, trainer.steps.create_state()
    events = []

    def eval_step(*arguments):
        events.append(1)
        return trainer.steps.eval_step(*arguments)

    def wait(outputs):
        events.append(-1)
        return block_until_ready(outputs)

    block_until_ready = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", wait)
    evaluate(eval_step, state, eval_batches(data.images, data.labels, 8), trainer.mesh)
    assert events.count(1) == 26
    assert max(accumulate(events)) == AHEAD + 1
