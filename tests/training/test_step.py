"""The compiled steps: what they change, what they guard against, and what they add up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets.data.batches import Batch, eval_batches, train_batch
from flax_resnets.training.step import evaluate, to_devices


def first_batch(trainer) -> Batch:
    data = trainer.train
    return to_devices(train_batch(data.images, data.labels, trainer.config.batch_size, 0, 0), trainer.mesh)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_changes_every_parameter_and_every_statistic(make_trainer, config, optimizer):
    trainer = make_trainer(dataclasses.replace(config, optimizer=optimizer, clip_norm=1.0))
    before = jax.device_get(trainer.create_state())
    state, output = trainer.train_step(trainer.create_state(), first_batch(trainer))
    for name in ("params", "batch_stats"):
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), getattr(before, name), getattr(state, name))
        assert all(jax.tree.leaves(moved)), moved
    assert int(state.step) == 1
    assert float(state.loss_sum) == float(output.loss)
    assert float(output.learning_rate) == pytest.approx(config.learning_rate / config.div_factor, rel=1e-5)
    assert float(output.momentum) == pytest.approx(config.momentum[0])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns_as_float32_does(make_trainer, config, precision):
    def loss_after_an_epoch(precision: str) -> float:
        trainer = make_trainer(dataclasses.replace(config, precision=precision))
        state, data = trainer.create_state(), trainer.train
        for step in range(6):
            batch = train_batch(data.images, data.labels, config.batch_size, config.seed, step)
            state, output = trainer.train_step(state, to_devices(batch, trainer.mesh))
        assert int(state.skipped) == 0
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
        return float(output.loss)

    assert loss_after_an_epoch(precision) == pytest.approx(loss_after_an_epoch("float32"), rel=0.05)


def test_float16_scales_the_loss_and_backs_off_when_it_overflows(make_trainer, config):
    trainer = make_trainer(dataclasses.replace(config, precision="float16"))
    state = trainer.create_state()
    scale = state.loss_scale.replace(scale=jnp.float32(1e30))
    state, output = trainer.train_step(state.replace(loss_scale=scale), first_batch(trainer))
    assert np.isfinite(output.loss)
    assert int(output.skipped_in_a_row) == 1
    assert float(state.loss_scale.scale) == pytest.approx(5e29)


def test_a_loss_that_is_not_finite_is_skipped_and_counted(make_trainer, config):
    trainer = make_trainer(config)
    state = trainer.create_state()
    poisoned = jax.tree.map(jnp.copy, state.params)
    poisoned["head"]["bias"] = poisoned["head"]["bias"].at[0].set(jnp.nan)
    state = state.replace(params=poisoned)
    before = jax.device_get(state)
    for count in (1, 2):
        state, output = trainer.train_step(state, first_batch(trainer))
        assert int(output.skipped_in_a_row) == int(state.skipped) == int(state.step) == count
    for name in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(state, name))
    assert int(state.loss_count) == 0

    healthy = jax.tree.map(lambda leaf: jnp.nan_to_num(leaf), state.params)
    state, output = trainer.train_step(state.replace(params=healthy), first_batch(trainer))
    assert (int(output.skipped_in_a_row), int(state.skipped), int(state.loss_count)) == (0, 2, 1)


def test_label_smoothing_is_the_mean_over_spread_targets(make_trainer, config):
    plain = make_trainer(config)
    state = plain.create_state()
    state = state.replace(params=jax.tree.map(lambda leaf: leaf * 0, state.params))  # every logit 0
    smoothed = make_trainer(dataclasses.replace(config, label_smoothing=0.3))
    _, output = smoothed.train_step(state, first_batch(smoothed))
    assert float(output.loss) == pytest.approx(np.log(4), rel=1e-6)


def test_evaluation_counts_every_image_once_at_any_batch_size(make_trainer, config):
    trainer = make_trainer(config)
    state, _ = trainer.train_step(trainer.create_state(), first_batch(trainer))
    data = trainer.valid
    results = [
        evaluate(trainer.eval_step, state, eval_batches(data.images, data.labels, size), trainer.mesh)
        for size in (1, 29, 64, 203, 500)
    ]
    for result in results[1:]:
        assert result.accuracy == results[0].accuracy
        assert result.top5_accuracy == 1.0  # of four classes
        assert result.loss == pytest.approx(results[0].loss, rel=1e-6)


def test_evaluation_by_hand(make_trainer, config):
    trainer = make_trainer(config)
    data = trainer.valid
    state = trainer.create_state()
    zero = jax.tree.map(jnp.zeros_like, state.params)
    zero["head"]["bias"] = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    result = evaluate(
        trainer.eval_step, state.replace(params=zero), eval_batches(data.images, data.labels, 64), trainer.mesh
    )
    assert result.accuracy == np.mean(data.labels == 3)
    assert result.loss == pytest.approx(-np.mean(np.log([0.1, 0.2, 0.3, 0.4])[data.labels]), rel=1e-6)
