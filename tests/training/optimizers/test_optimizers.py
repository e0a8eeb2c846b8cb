"""The optimizers, each compared with its rule in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_resnets import create_model
from flax_resnets.errors import UserError
from flax_resnets.training.optimizers import OPTIMIZERS, OptimizerConfig, make_optimizer
from flax_resnets.training.optimizers.orthogonal import scale_by_muon
from flax_resnets.training.schedule import ScheduleConfig, make_schedules

RATES, MOMENTA = np.linspace(0.2, 0.02, 14), np.linspace(0.9, 0.7, 14)
SETTINGS = {"weight_decay": 0.3, "beta2": 0.95, "epsilon": 1e-4}


def config(name: str, **settings) -> OptimizerConfig:
    return OptimizerConfig(**({"optimizer": name, "weight_decay": 0.0} | settings))


def scheduled(name, **settings):
    """An optimizer at a new learning rate and momentum for each update."""
    rates, momenta = jnp.array(RATES), jnp.array(MOMENTA)
    return make_optimizer(config(name, **settings), lambda step: rates[step], lambda step: momenta[step])


def tiny_params():
    """The parameters of a small network, float32: a first and a hidden convolution, a norm's scale, and a head."""
    random = np.random.default_rng(0)
    shapes = {"stem": (1, 1, 3, 8), "conv": (3, 3, 8, 6), "scale": (6,), "head": (6, 4), "bias": (4,)}
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def gradients(count):
    random = np.random.default_rng(1)
    return [{k: random.normal(size=v.shape).astype(np.float32) for k, v in tiny_params().items()} for _ in range(count)]


def trajectory(optimizer, count):
    """The parameters after each of `steps` updates by `gradients`, and the last state."""
    params = jax.tree.map(jnp.asarray, tiny_params())
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    path = []
    for gradient in gradients(count):
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        path.append(params)
    return path, state


def adams_moments(name, step, first, second, gradient):
    """Adam's two moments of one parameter, updated and corrected for their bias towards 0; step is counted from 1."""
    b1, b2 = MOMENTA[step - 1], SETTINGS["beta2"]
    first[name] = b1 * first.get(name, 0) + (1 - b1) * gradient
    second[name] = b2 * second.get(name, 0) + (1 - b2) * gradient**2
    return first[name] / (1 - b1**step), second[name] / (1 - b2**step)


def adams_direction(name, step, first, second, gradient):
    mean, square = adams_moments(name, step, first, second, gradient)
    return mean / (np.sqrt(square) + SETTINGS["epsilon"])


def rectified_direction(name, step, first, second, gradient):
    """Liu et al. 2019, algorithm 2, with fastai's threshold of 5 instead of 4."""
    mean, square = adams_moments(name, step, first, second, gradient)
    b2 = SETTINGS["beta2"]
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * step * b2**step / (1 - b2**step)
    if length < 5:
        return mean
    rectifier = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
    return rectifier * mean / (np.sqrt(square) + SETTINGS["epsilon"])


def expected_trajectory(count, rule, *, decay_all=False):
    """Like `trajectory`, by a rule (name, step, first, second, gradient) with decoupled decay, in float64."""
    params, first, second, path = {k: v.astype(np.float64) for k, v in tiny_params().items()}, {}, {}, []
    for step, gradient in enumerate(gradients(count), start=1):
        params = dict(params)
        for name, weight in params.items():
            direction = rule(name, step, first, second, gradient[name])
            if decay_all or weight.ndim > 1:
                direction = direction + SETTINGS["weight_decay"] * weight
            params[name] = weight - RATES[step - 1] * direction
        path.append(params)
    return path


def assert_same_paths(actual, expected):
    for step, (one, other) in enumerate(zip(actual, expected, strict=True)):
        for name in other:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5, err_msg=f"{name}, update {step}")


def test_sgd_is_nesterovs_at_the_schedules_values():
    params, velocity = {k: v.astype(np.float64) for k, v in tiny_params().items()}, {}
    expected = []
    for rate, momentum, gradient in zip(RATES[:4], MOMENTA, gradients(4), strict=False):
        params = dict(params)
        for name, weight in params.items():
            decayed = gradient[name] + SETTINGS["weight_decay"] * weight * (weight.ndim > 1)
            velocity[name] = momentum * velocity.get(name, 0) + decayed
            params[name] = weight - rate * (decayed + momentum * velocity[name])
        expected.append(params)
    path, _ = trajectory(scheduled("sgd", **SETTINGS), 4)
    assert_same_paths(path, expected)


def test_plain_sgd_is_the_gradient_times_the_rate():
    optimizer = make_optimizer(config("sgd"), lambda _: 0.5, lambda _: 0.0)
    params = jnp.array([1.0, -2.0])
    state = optimizer.init(params)
    for gradient in ([2.0, 4.0], [-1.0, 3.0]):
        updates, state = optimizer.update(jnp.array(gradient), state, params)
        np.testing.assert_allclose(updates, -0.5 * np.array(gradient))


@pytest.mark.parametrize("decay_all", [False, True])
def test_adamw_is_adam_and_decay_apart(decay_all):
    path, _ = trajectory(scheduled("adamw", **SETTINGS, decay_all=decay_all), 4)
    assert_same_paths(path, expected_trajectory(4, adams_direction, decay_all=decay_all))


def test_adamws_defaults_are_fastais():
    rate, momentum = jnp.float32(0.1), jnp.float32(0.9)
    ours, _ = trajectory(make_optimizer(config("adamw", weight_decay=0.01), lambda _: rate, lambda _: momentum), 3)
    kernels = {name: weight.ndim > 1 for name, weight in tiny_params().items()}
    optaxs, _ = trajectory(optax.adamw(0.1, 0.9, b2=0.99, eps=1e-5, weight_decay=0.01, mask=kernels), 3)
    assert_same_paths(ours, optaxs)


@pytest.mark.parametrize("decay_all", [False, True])
def test_lamb_moves_what_decays_by_its_own_size(decay_all):
    params, first, second, expected = {k: v.astype(np.float64) for k, v in tiny_params().items()}, {}, {}, []
    for step, gradient in enumerate(gradients(4), start=1):
        params = dict(params)
        for name, weight in params.items():
            direction = adams_direction(name, step, first, second, gradient[name])
            decays = decay_all or weight.ndim > 1
            direction = direction + SETTINGS["weight_decay"] * weight * decays
            trust = np.linalg.norm(weight) / np.linalg.norm(direction) if decays else 1.0
            params[name] = weight - RATES[step - 1] * trust * direction
        expected.append(params)
    path, _ = trajectory(scheduled("lamb", decay_all=decay_all, **SETTINGS), 4)
    assert_same_paths(path, expected)


def test_ranger_is_rectified_adam_halfway_back_every_sixth_update():
    """Thirteen updates: the first ones without the second moment, and two changes of the slow weights."""
    params, first, second, expected = {k: v.astype(np.float64) for k, v in tiny_params().items()}, {}, {}, []
    slow = params
    for step, gradient in enumerate(gradients(13), start=1):
        params = dict(params)
        for name, weight in params.items():
            direction = rectified_direction(name, step, first, second, gradient[name])
            direction = direction + SETTINGS["weight_decay"] * weight * (weight.ndim > 1)
            params[name] = weight - RATES[step - 1] * direction
        if step % 6 == 0:
            slow = params = {name: (slow[name] + params[name]) / 2 for name in params}
        expected.append(params)
    path, _ = trajectory(scheduled("ranger", **SETTINGS), 13)
    assert_same_paths(path, expected)


def test_muon_leaves_all_but_hidden_convolutions_to_adamw():
    path, _ = trajectory(scheduled("muon", **SETTINGS), 4)
    expected = expected_trajectory(4, adams_direction)
    for params in expected:
        del params["conv"]
    assert_same_paths(path, expected)


def test_muon_moves_a_kernel_by_its_direction_and_by_decay():
    kernel, expected = tiny_params()["conv"], []
    state = scale_by_muon(MOMENTA[0]).init(kernel)
    for step, gradient in enumerate(gradients(4)):
        direction, state = scale_by_muon(MOMENTA[step]).update(gradient["conv"], state)
        kernel = kernel - RATES[step] * (direction + SETTINGS["weight_decay"] * kernel)
        expected.append({"conv": kernel})
    path, _ = trajectory(scheduled("muon", **SETTINGS), 4)
    assert_same_paths(path, expected)


def test_muon_takes_a_resnets_convolutions_between_stem_and_head():
    model = create_model("seresnet18", 10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))["params"]
    optimizer = make_optimizer(config("muon"), lambda _: 0.1, lambda _: 0.9)
    state = jax.eval_shape(optimizer.init, params)
    momenta = optax.tree.get(state, "MuonState").mu
    names = {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in jax.tree.leaves_with_path(momenta)}
    # Two convolutions in each of eight blocks, and three in shortcuts.
    assert len(names) == 19
    assert all(name.endswith("kernel") and "_block" in name and "squeeze_excite" not in name for name in names)


def test_muon_leaves_a_head_of_convolutions_to_adamw():
    params = jax.eval_shape(create_model("nin", 10).init, jax.random.key(0), jnp.zeros((1, 224, 224, 1)))["params"]
    state = jax.eval_shape(make_optimizer(config("muon"), lambda _: 0.1, lambda _: 0.9).init, params)
    momenta = optax.tree.get(state, "MuonState").mu
    names = {jax.tree_util.keystr(path[:1], simple=True) for path, _ in jax.tree.leaves_with_path(momenta)}
    assert names == {f"block{i}_conv{j}" for i in (1, 2, 3) for j in (1, 2, 3)} - {"block1_conv1"}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_decay_spares_biases_and_norms_unless_told_not_to(name):
    params = {"kernel": jnp.ones((1, 1, 4, 2)), "bias": jnp.ones(2)}
    for decay_all in (False, True):
        optimizer = make_optimizer(config(name, weight_decay=0.5, decay_all=decay_all), lambda _: 0.1, lambda _: 0.9)
        no_gradient = jax.tree.map(jnp.zeros_like, params)
        updates, _ = jax.jit(optimizer.update)(no_gradient, optimizer.init(params), params)
        assert float(updates["kernel"].max()) < 0
        assert bool(updates["bias"].any()) == decay_all


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_an_update_is_the_same_each_time_and_names_what_the_schedules_gave(name):
    optimizer = scheduled(name, weight_decay=0.1, clip_norm=1.0)
    params, gradient = tiny_params(), gradients(1)[0]
    update = jax.jit(optimizer.update)
    _, state = update(gradient, optimizer.init(params), params)
    second, third = update(gradient, state, params), update(gradient, state, params)
    jax.tree.map(np.testing.assert_array_equal, second, third)
    for state, step in ((second[1], 1), (scheduled(name).init(params), 0)):
        given = optax.tree.get(state, "hyperparams")  # raises if there are several
        assert set(given) == {"learning_rate", "momentum"}
        values = given["learning_rate"], given["momentum"]
        np.testing.assert_allclose(values, (RATES[step], MOMENTA[step]), rtol=1e-6)


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_each_finds_the_bottom_of_a_bowl(name):
    target = jax.tree.map(jnp.asarray, tiny_params())
    schedule = ScheduleConfig(schedule="flat_cosine", learning_rate=0.05, momentum=(0.9, 0.9), pct_start=0.5)
    optimizer = make_optimizer(config(name), *make_schedules(schedule, steps=200))

    def loss(params):
        return sum(((a - b) ** 2).sum() for a, b in zip(*map(jax.tree.leaves, (params, target)), strict=True)) / 2

    @jax.jit
    def descend(params):
        def step(_, carry):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 200, step, (params, optimizer.init(params)))[0]

    start = jax.tree.map(lambda leaf, away: leaf + 0.5 * away, target, gradients(1)[0])
    assert float(loss(descend(start))) < 1e-3 * float(loss(start))


def test_clipping_bounds_the_global_norm():
    optimizer = make_optimizer(config("sgd", clip_norm=0.5), lambda _: 1.0, lambda _: 0.0)
    params = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
    updates, _ = optimizer.update(jax.tree.map(lambda p: p + 7.0, params), optimizer.init(params), params)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5)


def test_an_optimizer_there_is_not():
    with pytest.raises(UserError, match="optimizer=lion: must be one of sgd, adamw, lamb, ranger, muon"):
        config("lion")
