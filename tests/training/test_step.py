"""The compiled steps: what they change, what they check, and what they sum up."""

import dataclasses
import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets.data.batches import Batch, eval_batches, train_batch
from flax_resnets.training import compilation
from flax_resnets.training.placement import to_devices
from flax_resnets.training.state import state_digest
from flax_resnets.training.step import evaluate, network_inputs, step_key


def train_step(trainer):
    return trainer.steps.train_step_at(trainer.config.image_size)


def first_batch(trainer) -> Batch:
    data = trainer.train
    return to_devices(train_batch(data.images, data.labels, trainer.config.batch_size, 0, 0), trainer.mesh)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_changes_every_parameter_and_every_statistic(make_trainer, config, optimizer):
    trainer = make_trainer(dataclasses.replace(config, optimizer=optimizer, clip_norm=1.0))
    before = jax.device_get(trainer.steps.create_state())
    state, output = train_step(trainer)(trainer.steps.create_state(), first_batch(trainer))
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
        state, data = trainer.steps.create_state(), trainer.train
        for step in range(6):
            batch = train_batch(data.images, data.labels, config.batch_size, config.seed, step)
            state, output = train_step(trainer)(state, to_devices(batch, trainer.mesh))
        assert int(state.skipped) == 0
        assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype("float32")}
        return float(output.loss)

    assert loss_after_an_epoch(precision) == pytest.approx(loss_after_an_epoch("float32"), rel=0.05)


def test_float16_scales_the_loss_and_backs_off_when_it_overflows(make_trainer, config):
    trainer = make_trainer(dataclasses.replace(config, precision="float16"))
    state = trainer.steps.create_state()
    scale = state.loss_scale.replace(scale=jnp.float32(1e30))
    state, output = train_step(trainer)(state.replace(loss_scale=scale), first_batch(trainer))
    assert np.isfinite(output.loss)
    assert int(output.skipped_in_a_row) == 1
    assert float(state.loss_scale.scale) == pytest.approx(5e29)


def test_a_loss_that_is_not_finite_is_skipped_and_counted(make_trainer, config):
    trainer = make_trainer(config)
    state = trainer.steps.create_state()
    poisoned = jax.tree.map(jnp.copy, state.params)
    poisoned["head"]["bias"] = poisoned["head"]["bias"].at[0].set(jnp.nan)
    state = state.replace(params=poisoned)
    before = jax.device_get(state)
    for count in (1, 2):
        state, output = train_step(trainer)(state, first_batch(trainer))
        assert int(output.skipped_in_a_row) == int(state.skipped) == int(state.step) == count
    for name in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(state, name))
    assert int(state.loss_count) == 0

    healthy = jax.tree.map(lambda leaf: jnp.nan_to_num(leaf), state.params)
    state, output = train_step(trainer)(state.replace(params=healthy), first_batch(trainer))
    assert (int(output.skipped_in_a_row), int(state.skipped), int(state.loss_count)) == (0, 2, 1)


def test_label_smoothing_is_the_mean_over_spread_targets(make_trainer, config):
    plain = make_trainer(config)
    state = plain.steps.create_state()
    state = state.replace(params=jax.tree.map(lambda leaf: leaf * 0, state.params))  # every logit 0
    smoothed = make_trainer(dataclasses.replace(config, label_smoothing=0.3))
    _, output = train_step(smoothed)(state, first_batch(smoothed))
    assert float(output.loss) == pytest.approx(np.log(4), rel=1e-6)


def test_evaluation_counts_every_image_once_at_any_batch_size(make_trainer, config):
    trainer = make_trainer(config)
    state, _ = train_step(trainer)(trainer.steps.create_state(), first_batch(trainer))
    data = trainer.valid
    results = [
        evaluate(trainer.steps.eval_step, state, eval_batches(data.images, data.labels, size), trainer.mesh)
        for size in (1, 29, 64, 203, 500)
    ]
    for result in results[1:]:
        assert result.accuracy == results[0].accuracy
        assert result.top5_accuracy == 1.0  # of four classes
        assert result.loss == pytest.approx(results[0].loss, rel=1e-6)


def test_evaluation_by_hand(make_trainer, config):
    trainer = make_trainer(config)
    data = trainer.valid
    state = trainer.steps.create_state()
    zero = jax.tree.map(jnp.zeros_like, state.params)
    zero["head"]["bias"] = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    result = evaluate(
        trainer.steps.eval_step, state.replace(params=zero), eval_batches(data.images, data.labels, 64), trainer.mesh
    )
    assert result.accuracy == np.mean(data.labels == 3)
    assert result.loss == pytest.approx(-np.mean(np.log([0.1, 0.2, 0.3, 0.4])[data.labels]), rel=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2, "label_smoothing": 0.3},
        {"batch_norm": "device", "cutmix": 1.0, "label_smoothing": 0.1},
        {"loss": "bce", "mixup": 0.4},
        {"precision": "float16"},
    ],
    ids=str,
)
def test_class_weights_multiply_the_loss_of_each_image(make_trainer, config, changes):
    weights, shares = np.array([0.0, 0.5, 2.0, 7.0]), np.array([0.1, 0.2, 0.3, 0.4])
    trainer = make_trainer(dataclasses.replace(config, class_weights=tuple(weights), **changes))
    state = trainer.steps.create_state()
    zero = jax.tree.map(jnp.zeros_like, state.params)
    zero["head"]["bias"] = jnp.log(jnp.asarray(shares, jnp.float32))  # the same logits for every image
    state, output = train_step(trainer)(state.replace(params=zero), first_batch(trainer))

    key = step_key(trainer.config, jnp.int32(0))
    targets = np.asarray(network_inputs(key, first_batch(trainer), trainer.config, 4)[1], np.float64)
    smooth = trainer.config.label_smoothing
    smoothed = targets * (1 - smooth) + smooth / 4
    if trainer.config.loss == "bce":
        yes = shares / (1 + shares)  # the sigmoid of log(share)
        losses = -(smoothed * np.log(yes) + (1 - smoothed) * np.log(1 - yes)).mean(1)
    else:
        losses = -(smoothed * np.log(shares)).sum(1)
    expected = ((targets * weights).sum(1) * losses).mean()
    assert float(output.loss) == pytest.approx(expected, rel=2e-3 if changes.get("precision") else 1e-5)


def test_evaluation_has_no_weights(make_trainer, config):
    plain, weighted = (make_trainer(dataclasses.replace(config, class_weights=w)) for w in (None, (0.0, 0.5, 2.0, 7.0)))
    state, batches = plain.steps.create_state(), list(eval_batches(plain.valid.images, plain.valid.labels, 64))
    results = [evaluate(trainer.steps.eval_step, state, batches, trainer.mesh) for trainer in (plain, weighted)]
    jax.tree.map(np.testing.assert_array_equal, *results)


def still(config, **changes):
    """The configuration without augmentation, so that a batch's images can be rearranged."""
    return dataclasses.replace(config, flip=False, optimizer="sgd", **changes)


def test_a_gradient_in_parts_is_that_of_ghosts_of_every_nth_image(make_trainer, config):
    in_parts = make_trainer(still(config, accumulate=4))
    as_ghosts = make_trainer(still(config, batch_norm="ghost:8"))
    batch = first_batch(in_parts)
    state, output = train_step(in_parts)(in_parts.steps.create_state(), batch)
    grouped = jax.tree.map(lambda array: np.concatenate([np.asarray(array)[part::4] for part in range(4)]), batch)
    expected, expected_output = train_step(as_ghosts)(as_ghosts.steps.create_state(), grouped)
    assert float(output.loss) == pytest.approx(float(expected_output.loss), rel=1e-6)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state.params, expected.params)


def test_parts_update_the_statistics_one_after_the_other(make_trainer, config):
    once, twice = make_trainer(still(config)), make_trainer(still(config, accumulate=2))
    batch = first_batch(once)
    halves = [jax.tree.map(lambda array, part=part: np.asarray(array)[part::2].repeat(2, 0), batch) for part in (0, 1)]
    state = once.steps.create_state()
    params = jax.device_get(state.params)
    for half in halves:  # each image twice: the same mean, and the same biased variance
        state, _ = train_step(once)(state, half)
        state = state.replace(params=jax.tree.map(jnp.asarray, params))
    in_parts, _ = train_step(twice)(twice.steps.create_state(), batch)
    for name in ("mean", "var"):
        got, expected = (tree.batch_stats["stem_norm"][name] for tree in (in_parts, state))
        np.testing.assert_allclose(got, expected, rtol=1e-3)  # the unbiased variance counts each image once


def test_bce_is_a_yes_or_no_for_each_class(make_trainer, config):
    trainer = make_trainer(dataclasses.replace(config, loss="bce"))
    state = trainer.steps.create_state()
    zero = jax.tree.map(jnp.zeros_like, state.params)
    zero["head"]["bias"] = jnp.array([0.0, 1.0, 2.0, 3.0])
    batch = first_batch(trainer)
    labels = np.asarray(batch.labels)
    _, output = train_step(trainer)(state.replace(params=zero), batch)
    yes = 1 / (1 + np.exp(-np.arange(4.0)))
    losses = -np.where(np.eye(4)[labels] > 0, np.log(yes), np.log(1 - yes)).mean(1)
    assert float(output.loss) == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.parametrize("statistics", ["average", "recalibrate"])
def test_the_average_by_hand(make_trainer, config, statistics):
    trainer = make_trainer(dataclasses.replace(config, ema_decay=0.15, ema_batch_norm=statistics))
    state = trainer.steps.create_state()
    expected = jax.device_get((state.params, state.batch_stats))
    first_statistics = expected[1]
    for decay in (0.1, 0.15, 0.15):  # (1 + t) / (10 + t) at t = 0, then the configured decay
        state, _ = train_step(trainer)(state, first_batch(trainer))
        now = jax.device_get((state.params, state.batch_stats))
        expected = jax.tree.map(lambda old, new, decay=decay: decay * old + (1 - decay) * new, expected, now)
    if statistics == "recalibrate":  # at the end of an epoch
        expected = expected[0], first_statistics
    got = state.ema.params, state.ema.batch_stats
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), got, expected)


def test_without_an_average_there_is_none(make_trainer, config):
    assert make_trainer(config).steps.abstract_state.ema is None


def test_mixing_rests_from_an_epoch_on(make_trainer, config, monkeypatch):
    """Before `mix_until` losses differ from those without mixing; from it on a step is equal to the last bit."""
    if "fusion_emitters" in os.environ["XLA_FLAGS"]:
        # XLA's older loops round by what else is in a program. These two programs are compiled as a user's.
        options = {**compilation.XLA_OPTIONS, "xla_cpu_use_fusion_emitters": True}
        monkeypatch.setattr(compilation, "XLA_OPTIONS", options)
    config = dataclasses.replace(config, seed=1)  # no other test has compiled it
    plain = make_trainer(config)
    mixing = make_trainer(dataclasses.replace(config, mixup=0.4, cutmix=1.0, mix_off_epoch=1))
    last_of_first_epoch, first_of_second = plain.steps_per_epoch - 1, plain.steps_per_epoch
    for step, same in ((last_of_first_epoch, False), (first_of_second, True)):
        digests = set()
        for trainer in (plain, mixing):
            state = trainer.steps.create_state().replace(step=jnp.int32(step))
            state, _ = train_step(trainer)(state, first_batch(trainer))
            digests.add(state_digest(state))
        assert (len(digests) == 1) == same


def test_evaluation_with_a_flip_does_not_see_which_way_an_image_faces(make_trainer, config):
    for flip in (True, False):
        trainer = make_trainer(dataclasses.replace(config, eval_flip=flip))
        state, _ = train_step(trainer)(trainer.steps.create_state(), first_batch(trainer))
        data = trainer.valid
        losses = [
            evaluate(trainer.steps.eval_step, state, eval_batches(images, data.labels, 64), trainer.mesh).loss
            for images in (data.images, data.images[:, :, ::-1])
        ]
        assert (losses[0] == pytest.approx(losses[1], rel=1e-6)) == flip
