"""Building what a configuration names."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnets import ResNet
from flax_resnets.errors import UserError
from flax_resnets.training.build import build_steps, check_devices
from flax_resnets.training.config import Config
from flax_resnets.training.network import make_model
from flax_resnets.training.placement import make_mesh
from flax_resnets.training.recipes import load_config
from flax_resnets.training.timeline import Timeline

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.py"


@pytest.fixture
def config() -> Config:
    return load_config(QUICKSTART)


def test_a_network_has_the_runs_precision_and_kind_of_norm(config):
    config = dataclasses.replace(config, model="resnet18", precision="bfloat16", batch_norm="ghost:32")
    model = make_model(config, num_classes=3)
    assert isinstance(model, ResNet)
    assert (model.dtype, model.batch_norm, model.num_classes) == (jnp.bfloat16, "ghost:32", 3)


@pytest.mark.parametrize(
    ("option", "right"),
    [
        ("dtype", "set precision instead"),
        ("name", "set model instead"),
        ("num_classes", "set nothing: training decides it instead"),
    ],
)
def test_what_a_run_decides_is_no_option_of_its_network(config, option, right):
    config = dataclasses.replace(config, model_options={option: 3})
    with pytest.raises(UserError, match=f"model_options.{option}=3: {right}"):
        make_model(config, num_classes=10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 60}, "batch_size=60: must be a multiple of the 8 devices"),
        ({"eval_batch_size": 100}, "eval_batch_size=100: must be a multiple of the 8 devices"),
        (
            {"batch_size": 64, "accumulate": 16},
            "batch_size=64: .* the 8 devices times accumulate=16",
        ),
        ({"weight_shards": 3}, "weight_shards=3: must divide the 8 devices"),
    ],
)
def test_devices_must_divide_the_batches(config, changes, message):
    check_devices(dataclasses.replace(config, batch_size=64), 8)
    with pytest.raises(UserError, match=message):
        check_devices(dataclasses.replace(config, **changes), 8)


def test_a_size_has_one_step_and_all_sizes_one_state(config):
    config = dataclasses.replace(config, progressive=((1, 16),))
    steps = build_steps(config, make_model(config, 10), make_mesh(), 1, Timeline(3))
    assert steps.train_step_at(16) is steps.train_step_at(16)
    assert steps.train_step_at(16) is not steps.train_step_at(config.image_size)
    assert steps.statistics_step_at(16) is steps.statistics_step_at(16)
    state = steps.create_state()
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, steps.abstract_state)


def test_a_run_that_goes_on_has_the_compiled_steps_of_its_beginning(config):
    def steps(**changes):
        changed = dataclasses.replace(config, **changes)
        return build_steps(changed, make_model(changed, 10), make_mesh(), 1, Timeline(3))

    begun = steps(save_every=5, data_dir="here")
    assert steps(data_dir="there", patience=3) is begun
    assert steps(learning_rate=0.5) is not begun
    assert steps(model_options={**config.model_options, "zero_init_last": False}) is not begun
    assert steps() is begun


def mine(logits, labels):
    return optax.softmax_cross_entropy(logits, labels)


def test_a_function_of_ones_own_is_traced_for_each_run(config):
    own_loss = dataclasses.replace(config, loss=mine)
    model, mesh = make_model(config, 10), make_mesh()
    assert build_steps(own_loss, model, mesh, 1, Timeline(3)) is not build_steps(own_loss, model, mesh, 1, Timeline(3))


def test_images_do_not_grow_under_a_network_of_one_size(config):
    config = dataclasses.replace(config, model="lenet", model_options={}, progressive=((1, 20),))
    with pytest.raises(UserError, match="'lenet' has other parameters for images of 20 px than of 28"):
        build_steps(config, make_model(config, 10), make_mesh(), 1, Timeline(1))
