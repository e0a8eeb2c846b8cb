"""Parts of a network that do not train, or train later, or at lower rates."""

import dataclasses
import itertools
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets import create_model
from flax_resnets.errors import UserError
from flax_resnets.training import Callback
from flax_resnets.training.config import Config
from flax_resnets.training.finetune import Plan, phase_schedules, plan_of
from flax_resnets.training.interruption import Interruption, Stopped
from flax_resnets.training.loop import fit
from flax_resnets.training.optimizers import OPTIMIZERS, make_optimizer
from flax_resnets.training.recipes import load_config

pytestmark = pytest.mark.usefixtures("no_pictures_in_module")

BODY = {"stem_conv", "stem_norm", "stage1_block1", "stage2_block1"}

# lr_scale in the groups of timm 1.0.31's `param_groups_layer_decay(model, layer_decay=0.7)`, by our modules' names.
TIMMS = {
    "resnet18": {
        "stem_conv": 0.04035360699999998,
        "stem_norm": 0.04035360699999998,
        "stage1_block1": 0.05764800999999997,
        "stage1_block2": 0.08235429999999996,
        "stage2_block1": 0.11764899999999996,
        "stage2_block2": 0.16806999999999994,
        "stage3_block1": 0.24009999999999995,
        "stage3_block2": 0.3429999999999999,
        "stage4_block1": 0.48999999999999994,
        "stage4_block2": 0.7,
        "head": 1.0,
    },
    "resnet50": {
        "stem_conv": 0.0023263051398720674,
        "stem_norm": 0.0023263051398720674,
        "stage1_block1": 0.0033232930569600965,
        "stage1_block2": 0.004747561509942996,
        "stage1_block3": 0.006782230728489994,
        "stage2_block1": 0.009688901040699992,
        "stage2_block2": 0.01384128720099999,
        "stage2_block3": 0.019773267429999988,
        "stage2_block4": 0.028247524899999984,
        "stage3_block1": 0.04035360699999998,
        "stage3_block2": 0.05764800999999997,
        "stage3_block3": 0.08235429999999996,
        "stage3_block4": 0.11764899999999996,
        "stage3_block5": 0.16806999999999994,
        "stage3_block6": 0.24009999999999995,
        "stage4_block1": 0.3429999999999999,
        "stage4_block2": 0.48999999999999994,
        "stage4_block3": 0.7,
        "head": 1.0,
    },
    # Some of them: the norm before the head has the last block's rate.
    "resnetv2_50": {"stem_conv": 0.0023263051398720674, "stage4_block3": 0.7, "head_norm": 0.7, "head": 1.0},
}


def named(model: str, **changes) -> Config:
    size = 28 if model.startswith("lenet") else 64
    required = {"dataset": "noise", "image_size": size, "batch_size": 8, "epochs": 3, "learning_rate": 0.1}
    return Config(model=model, **required | changes)


def plan(model: str, **changes):
    config = named(model, **changes)
    return plan_of(config, create_model(model, 10), (config.image_size, config.image_size, 3))


def different(a, b) -> set[str]:
    """The modules in which two trees of parameters or statistics differ in any bit."""
    return {name for name in a if not jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), a[name], b[name]))}


def paths(tree) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize("model", TIMMS)
def test_layer_decay_has_timms_rates(model):
    groups = plan(model, layer_decay=0.7).groups
    for module, rate in TIMMS[model].items():
        assert math.isclose(groups[module].rate, rate, rel_tol=1e-12), module
    if model != "resnetv2_50":
        assert groups.keys() == TIMMS[model].keys()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_layer_is_updated_at_its_rate(config, make_trainer, name):
    """Of every optimizer, weight decay included: an update with layer_decay is one without, times the rate."""
    config = dataclasses.replace(config, optimizer=name, weight_decay=0.3, layer_decay=0.5)
    # From the golden order of layers: the stem is three layers below the head.
    rates = {"stem_conv": 0.125, "stem_norm": 0.125, "stage1_block1": 0.25, "stage2_block1": 0.5, "head": 1.0}
    trainer = make_trainer(config)
    assert {module: group.rate for module, group in trainer.steps.plan.groups.items()} == rates
    random = np.random.default_rng(0)
    shapes = trainer.steps.abstract_state.params
    params, grads = (
        jax.tree.map(lambda leaf: jnp.array(random.normal(size=leaf.shape), jnp.float32), shapes) for _ in range(2)
    )
    updates = []
    for groups in (None, trainer.steps.plan.groups):
        optimizer = make_optimizer(config, lambda _: 0.01, lambda _: 0.9, groups)
        updates.append(jax.jit(optimizer.update)(grads, optimizer.init(params), params)[0])
    for module, rate in rates.items():
        same, scaled = (each[module] for each in updates)
        jax.tree.map(lambda a, b, r=rate: np.testing.assert_allclose(r * a, b, rtol=1e-4, atol=1e-7), same, scaled)


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizer_holds_nothing_of_frozen_parts(config, make_trainer, name, layer_decay):
    changes = {"optimizer": name, "freeze": ("stem", "stage1"), "layer_decay": layer_decay}
    state = make_trainer(dataclasses.replace(config, **changes)).steps.abstract_state
    whole = make_trainer(dataclasses.replace(config, optimizer=name)).steps.abstract_state
    frozen = ("stem_conv", "stem_norm", "stage1_block1")
    assert not [path for path in paths(state.opt_state) if any(module in path for module in frozen)]
    assert [path for path in paths(whole.opt_state) if "stem_conv" in path]
    assert [path for path in paths(state.opt_state) if "stage2_block1" in path]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "ranger", "ema_decay": 0.9, "decay_all": True, "weight_decay": 0.5, "clip_norm": 0.1},
        pytest.param({"optimizer": "muon", "accumulate": 2, "layer_decay": 0.5}, marks=pytest.mark.slow),
        pytest.param({"optimizer": "lamb", "precision": "float16", "batch_norm": "device"}, marks=pytest.mark.slow),
    ],
    ids=lambda changes: changes["optimizer"],
)
def test_frozen_parts_do_not_change_in_any_bit(config, make_trainer, changes):
    trainer = make_trainer(dataclasses.replace(config, freeze=("stem", "stage1"), **changes))
    state = trainer.steps.create_state()
    # A zero with a sign: adding an update of zero would lose it.
    state.params["stem_norm"]["bias"] = state.params["stem_norm"]["bias"] * -1.0
    before = jax.device_get(state)
    step = trainer.steps.train_step_at(12)
    for batch in trainer.batches(range(7)):
        state, _ = step(state, batch)
    assert different(before.params, state.params) == {"stage2_block1", "head"}
    assert np.signbit(state.params["stem_norm"]["bias"]).all()
    assert different(before.batch_stats, state.batch_stats) == {"stage2_block1"}
    if state.ema:
        assert different(before.ema.params, state.ema.params) == {"stage2_block1", "head"}
        assert different(before.ema.batch_stats, state.ema.batch_stats) == {"stage2_block1"}


def test_norms_follow_unless_told_otherwise(config, make_trainer):
    """`model_options.frozen` says whose norms are frozen; γ and β of frozen parts stay as they are."""
    options = {"freeze": "backbone", "model_options": {"frozen": ()}}
    trainer = make_trainer(dataclasses.replace(config, **options))
    state = trainer.steps.create_state()
    before = jax.device_get(state)
    state, _ = trainer.steps.train_step_at(12)(state, next(trainer.batches(range(1))))
    assert different(before.params, state.params) == {"head"}
    assert different(before.batch_stats, state.batch_stats) == BODY - {"stem_conv"}


class Watch(Callback):
    """Keeps the parameters after each epoch, and stops the run after a step."""

    def __init__(self, stop_at: int | None = None):
        self.stop_at, self.stop, self.params = stop_at, Interruption(), []
        self.rates = []

    def on_step_end(self, run, step, output):
        self.rates.append(float(output.learning_rate))
        if step == self.stop_at:
            self.stop.ask("the test")

    def on_epoch_end(self, run, row):
        self.params.append(jax.device_get(run.state.params))


@pytest.fixture(scope="module")
def two_phases(config) -> Config:
    return dataclasses.replace(config, freeze_epochs=1, layer_decay=0.5, ema_decay=0.9, freeze=("stem",))


@pytest.fixture(scope="module")
def unbroken(make_trainer, two_phases, tmp_path_factory):
    watch = Watch()
    run = fit(make_trainer(two_phases), tmp_path_factory.mktemp("phases"), callbacks=[watch])
    return run, watch


def test_first_the_head_trains_alone_then_all_that_is_not_frozen(unbroken, make_trainer, two_phases):
    run, watch = unbroken
    params = [jax.device_get(make_trainer(two_phases).steps.create_state().params), *watch.params]
    assert [different(a, b) for a, b in itertools.pairwise(params)] == [
        {"head"},
        {"stage1_block1", "stage2_block1", "head"},
        {"stage1_block1", "stage2_block1", "head"},
    ]
    # Each part counts its own updates, so that Adam corrects the first ones of a part that has waited.
    counts = {
        next(name for name in ("head", "stage1_block1", "stage2_block1") if name in path): int(leaf)
        for path, leaf in zip(paths(run.state.opt_state), jax.tree.leaves(run.state.opt_state), strict=True)
        if "inner_states" in path and path.endswith(".count")
    }
    assert counts == {"head": 18, "stage1_block1": 12, "stage2_block1": 12}


def test_each_phase_has_the_rates_of_fastais_fine_tune(two_phases, unbroken):
    """One cycle for the head, whose rise takes 99 % of it, and another one with half the peak for all."""

    def cosine(start, end, share):
        return start + (end - start) * (1 - math.cos(math.pi * share)) / 2

    def one_cycle(step, steps, peak, pct_start, div):
        share = step / steps
        if share < pct_start:
            return cosine(peak / div, peak, share / pct_start)
        return cosine(peak, peak / 1e5, (share - pct_start) / (1 - pct_start))

    config = dataclasses.replace(two_phases, pct_start=0.3, div_factor=5.0, learning_rate=2e-3)
    (first, _), (second, momentum) = phase_schedules(config, 300, 100)
    expected = [one_cycle(step, 100, 2e-3, 0.99, 25) for step in range(100)]
    np.testing.assert_allclose([first(step) for step in range(100)], expected, rtol=1e-4)
    expected = [one_cycle(step, 200, 1e-3, 0.3, 5) for step in range(0, 200, 10)]
    np.testing.assert_allclose([second(step) for step in range(100, 300, 10)], expected, rtol=1e-4)
    assert float(second(90)) == float(second(100))  # steps that were skipped in the first phase delay the second
    assert math.isclose(momentum(100 + 60), 0.85, rel_tol=1e-6)
    rates = unbroken[1].rates
    assert math.isclose(max(rates[:6]), 1e-2, rel_tol=0.2)
    assert max(rates[6:]) <= 0.5e-2


def test_step_counts_the_epochs_of_the_run_also_after_those_of_the_head_and_after_an_amendment(two_phases):
    config = dataclasses.replace(
        two_phases, schedule="step", freeze_epochs=5, decay_epochs=(10, 15), warmup_epochs=3.0, epochs=20
    )
    (_, _), (rate, _) = phase_schedules(dataclasses.replace(config, learning_rate=1.0), 200, 10)
    expected = [1 / 6, 1 / 3, 0.5, 0.5, 0.5] + [0.05] * 5 + [0.005] * 5  # half of the rate, in each epoch's last step
    np.testing.assert_allclose([rate(10 * epoch + 9) for epoch in range(5, 20)], expected, rtol=1e-5)
    for past in (7, 12):
        (amended, _), _ = phase_schedules(dataclasses.replace(config, learning_rate=1.0), 200 - 10 * past, 10, past)
        there = [amended(10 * epoch + 9) for epoch in range(20 - past)]
        np.testing.assert_allclose(there, expected[past - 5 :], rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "saved"),
    [(2, range(2, 6)), (6, range(6, 7)), (8, range(8, 18))],  # the steps in flight are finished first
    ids=["in the first phase", "between them", "in the second"],
)
def test_it_resumes_to_the_bit_in_both_phases(unbroken, make_trainer, two_phases, tmp_path, step, saved):
    stop = Watch(step)
    with pytest.raises(Stopped):
        fit(make_trainer(two_phases), tmp_path, stop.stop, callbacks=[stop])
    assert max(int(path.name) for path in (tmp_path / "checkpoints").iterdir()) in saved
    assert fit(make_trainer(two_phases), tmp_path).digest == unbroken[0].digest


def test_the_names_of_parts_on_the_command_line():
    assert load_config("quickstart", {"freeze": "stem,stage1"}).freeze == ("stem", "stage1")
    assert load_config("quickstart", {"freeze": "backbone"}).freeze == "backbone"
    assert json.loads(load_config("quickstart", {"freeze": "stem,"}).to_json())["freeze"] == ["stem"]


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("resnet20_cifar", "stem, stage1, stage2, stage3, head"),
        ("lenet_bn", "conv1, conv2, dense1, dense2, head"),
        ("vgg11", "block1, block2, block3, block4, block5, dense1, dense2, head"),
    ],
)
def test_a_misspelt_part_is_named_with_those_there_are(model, parts):
    with pytest.raises(UserError) as caught:
        plan(model, freeze=("stage9",))
    error = str(caught.value)
    assert error.startswith(f"freeze=stage9: {model} has no part 'stage9'; ")
    assert error.endswith(f"ts parts are {parts}; backbone is all but the head")
    assert ("did you mean stage3? Its" in error) == (model == "resnet20_cifar")
    if model == "resnet20_cifar":
        with pytest.raises(UserError, match="has no part 'layer2'; did you mean stage2"):  # as in torch
            plan(model, freeze=("layer2",))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"freeze": ("backbone", "head")}, "freeze=backbone,head: nothing is left to train; leave out a part"),
        ({"freeze": "backbone", "freeze_epochs": 1}, "freeze_epochs=1: with freeze=backbone the head trains alone in"),
        ({"freeze": ("head",), "freeze_epochs": 1}, "freeze_epochs=1: the head trains alone in them, but is in freeze"),
        ({"freeze_epochs": 3}, "freeze_epochs=3: must be below epochs=3"),
        ({"freeze_epochs": -1}, "freeze_epochs=-1: must be at least 0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0: must be above 0 and up to 1"),
        ({"layer_decay": 1.5}, "layer_decay=1.5: must be above 0 and up to 1"),
        ({"freeze": (1,)}, "freeze=1: must be names with commas between or backbone"),
        ({"freeze": "stem"}, "freeze=stem: must be names with commas between or backbone"),
        (
            {"freeze_epochs": 1, "schedule": "warmup_cosine", "warmup_epochs": 2},
            "warmup_epochs=2.0: must be below epochs=3 minus freeze_epochs=1",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_a_line(changes, error):
    with pytest.raises(UserError) as caught:
        plan("resnet18", **changes)
    assert str(caught.value).startswith(error)


def test_by_default_all_trains_alike():
    assert plan("resnet18") == Plan()


ON_EIGHT_DEVICES = """
import dataclasses, jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from flax_resnets import BasicBlock, ResNet
from flax_resnets.data.batches import train_batch
from flax_resnets.training.build import build_steps
from flax_resnets.training.config import Config
from flax_resnets.training.placement import make_mesh, to_devices
from flax_resnets.training.timeline import Timeline

config = Config(
    model="made", dataset="noise", image_size=8, mean=(0.5,), std=(0.25,), batch_size=16, epochs=2, learning_rate=0.1,
    freeze=("stem",), freeze_epochs=1, layer_decay=0.5, weight_shards=4, ema_decay=0.9, batch_norm="device",
)
model = ResNet((1,), BasicBlock, 4, 32, stem="small", batch_norm="device")
mesh = make_mesh(config.weight_shards)
steps = build_steps(config, model, mesh, 1, Timeline(1))
labels = np.arange(16, dtype=np.int32) % 4
images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
batch = to_devices(train_batch(images, labels, 16, config.seed, 0), mesh)
before = steps.create_state()
params = [jax.device_get(before.params)]
state = before
for epoch in (1, 2):
    state, output = steps.in_epoch(epoch, config).train_step_at(8)(state, batch)
    assert np.isfinite(output.loss)
    params.append(jax.device_get(state.params))
    placed = jax.tree.map(lambda a, b: a.sharding.is_equivalent_to(b.sharding, a.ndim), state, steps.abstract_state)
    assert jax.tree.all(placed)
for a, b in zip(params, params[1:]):
    print(*(name for name in a if not jax.tree.all(jax.tree.map(np.array_equal, a[name], b[name]))))
"""


def test_on_several_devices_with_split_weights():
    done = subprocess.run([sys.executable, "-c", ON_EIGHT_DEVICES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "head\nhead stage1_block1\n"
