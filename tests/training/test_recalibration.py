"""Running statistics recomputed for averaged weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets.augment import for_training
from flax_resnets.models.convolution import convolve
from flax_resnets.training.recalibration import recalibrate
from flax_resnets.training.step import step_key


def prepared(make_trainer, config):
    trainer = make_trainer(dataclasses.replace(config, ema_decay=0.5, ema_batch_norm="recalibrate", flip=False))
    state = trainer.steps.create_state()
    ema = state.ema.replace(params=jax.tree.map(lambda leaf: leaf * 1.5, state.ema.params))
    return trainer, state.replace(ema=ema)


def batches(trainer, *steps: int):
    """Numbers of training steps, and their batches."""
    return [(step, next(trainer.batches(range(step, step + 1)))) for step in steps]


def test_the_first_norms_statistics_by_hand(make_trainer, config):
    trainer, state = prepared(make_trainer, config)
    got = recalibrate(trainer.steps.statistics_step_at(12), state, batches(trainer, 0, 4, 5))
    expected = []
    for _, batch in batches(trainer, 0, 4, 5):
        images = np.asarray(batch.images, np.float32) / 255
        y = convolve(jnp.asarray((images - 0.5) / 0.25), state.ema.params["stem_conv"]["kernel"], padding=1)
        expected.append((np.mean(y, (0, 1, 2)), np.var(np.asarray(y), (0, 1, 2), ddof=1)))
    means, variances = zip(*expected, strict=True)
    np.testing.assert_allclose(got["stem_norm"]["mean"], np.mean(means, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["stem_norm"]["var"], np.mean(variances, 0), rtol=1e-4)


def test_what_the_running_statistics_were_does_not_matter(make_trainer, config):
    trainer, state = prepared(make_trainer, config)
    first = recalibrate(trainer.steps.statistics_step_at(12), state, batches(trainer, 1))
    state = state.replace(batch_stats=jax.tree.map(lambda leaf: leaf + 1, state.batch_stats))
    second = recalibrate(trainer.steps.statistics_step_at(12), state, batches(trainer, 1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), first, second)


def test_frozen_norms_keep_their_statistics_to_the_bit(make_trainer, config):
    frozen = dataclasses.replace(config, freeze=("stem",))
    trainer, state = prepared(make_trainer, frozen)
    before = {name: leaf + np.float32(0.1) for name, leaf in state.batch_stats["stem_norm"].items()}
    state = state.replace(batch_stats={**state.batch_stats, "stem_norm": before})
    got = recalibrate(trainer.steps.statistics_step_at(12), state, batches(trainer, 0, 1, 4))
    jax.tree.map(np.testing.assert_array_equal, got["stem_norm"], before)


def test_the_images_are_of_the_size_asked_for(make_trainer, config):
    trainer, state = prepared(make_trainer, config)
    got = recalibrate(trainer.steps.statistics_step_at(8), state, batches(trainer, 0))
    ((_, batch),) = batches(trainer, 0)
    images = for_training(step_key(trainer.config, jnp.int32(0)), batch.images, trainer.config, size=8)
    assert images.shape[1:3] == (8, 8)
    y = convolve(images, state.ema.params["stem_conv"]["kernel"], padding=1)
    np.testing.assert_allclose(got["stem_norm"]["mean"], np.mean(y, (0, 1, 2)), rtol=1e-4, atol=1e-6)


def test_nothing_to_recalibrate(make_trainer, config):
    trainer, state = prepared(make_trainer, config)
    with pytest.raises(ValueError, match="no batches"):
        recalibrate(trainer.steps.statistics_step_at(12), state, [])
    with pytest.raises(ValueError, match="ema_decay is not set"):
        recalibrate(trainer.steps.statistics_step_at(12), state.replace(ema=None), batches(trainer, 0))
