"""The residual networks: sizes, shapes, and what training and evaluation change."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flax_resnets
from flax_resnets import BasicBlock, BottleneckBlock, ResNet
from flax_resnets.models.resnet import PreActBasicBlock, PreActBottleneckBlock


def small(**options) -> ResNet:
    return ResNet(**{"stage_sizes": (1, 1, 1, 1), "block": BasicBlock, "num_classes": 10, "width": 8, **options})


def init(model: ResNet, x: jax.Array):
    """Variables like those of `model.init`, drawn by numpy: `model.init` takes seconds to compile."""
    random = np.random.default_rng(0)

    def draw(path, leaf):
        if path[-1].key == "kernel":
            return jnp.asarray(random.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape), jnp.float32)
        return jnp.full(leaf.shape, path[-1].key in ("scale", "var"), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, jax.eval_shape(model.init, jax.random.key(0), x))


def apply(model: ResNet, variables, x: jax.Array, **arguments):
    return jax.jit(partial(model.apply, **arguments))(variables, x)  # compiled as one program


def noise(*shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), shape)


@pytest.mark.parametrize(
    ("options", "strides"),
    [({}, (2, 4, 8, 16, 32)), ({"stem": "deep"}, (2, 4, 8, 16, 32)), ({"stem": "small"}, (1, 1, 2, 4, 8))],
)
@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock, PreActBasicBlock, PreActBottleneckBlock])
def test_features_stand_at_their_strides_for_any_image(options, strides, block):
    model = small(block=block, **options)
    x = jnp.zeros((2, 75, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v: model.apply(v, x, method="features"), variables)
    widths = [8] + [8 * 2**i * block.expansion for i in range(4)]
    names = ["stem", "stage1", "stage2", "stage3", "stage4"]
    assert {name: value.shape for name, value in maps.items()} == {
        name: (2, -(-75 // stride), -(-64 // stride), width)
        for name, stride, width in zip(names, strides, widths, strict=True)
    }


def test_num_classes_zero_gives_pooled_features():
    model, x = small(num_classes=0), noise(2, 32, 32, 3)
    variables = init(model, x)
    maps = apply(model, variables, x, method="features")
    np.testing.assert_allclose(apply(model, variables, x), maps["stage4"].mean((1, 2)), rtol=1e-6)
    assert "head" not in variables["params"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_logits_are_float32_and_parameters_too(dtype):
    model, x = small(dtype=dtype), noise(2, 32, 32, 1)
    variables = init(model, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    assert apply(model, variables, x).dtype == jnp.float32
    exact = apply(small(), variables, x)
    np.testing.assert_allclose(apply(model, variables, x), exact, atol=0.05 * float(jnp.abs(exact).max()))


def test_evaluation_changes_nothing_and_training_changes_every_statistic():
    model, x = small(), noise(4, 32, 32, 3)
    variables = init(model, x)
    with pytest.warns(UserWarning, match="A training step needs train=True"):
        _, updates = apply(model, variables, x, train=False, mutable=["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, updates["batch_stats"], variables["batch_stats"])
    _, updates = apply(model, variables, x, train=True, mutable=["batch_stats"])
    moved = jax.tree.map(lambda a, b: bool((a != b).all()), updates["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved)), moved


def test_zero_init_last_starts_each_block_as_its_shortcut():
    model, x = small(stage_sizes=(1,), zero_init_last=True, stem="small"), noise(2, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    maps = apply(model, variables, x, method="features")
    np.testing.assert_array_equal(maps["stage1"], maps["stem"])  # no change of shape, so no convolution either


@pytest.mark.parametrize("block", [PreActBasicBlock, PreActBottleneckBlock])
def test_preactivated_blocks_that_start_as_their_shortcut_can_leave_it(block):
    """After a norm with γ = 0 and β = 0, ReLU's gradient would always be 0."""
    model, x = small(stage_sizes=(2,), block=block, zero_init_last=True, stem="small"), noise(2, 8, 8, 3)
    variables = jax.jit(model.init)(jax.random.key(0), x)

    def loss(params):
        maps, _ = model.apply({**variables, "params": params}, x, True, method="features", mutable=["batch_stats"])
        return (maps["stage1"] ** 3).sum(), maps

    gradients, maps = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    last = "conv2" if block is PreActBasicBlock else "conv3"
    assert jnp.abs(gradients["stage1_block2"][last]["kernel"]).max() > 0
    if block is PreActBasicBlock:  # a bottleneck's first shortcut has a convolution
        np.testing.assert_array_equal(maps["stage1"], maps["stem"])


def test_the_d_shortcut_sees_every_pixel():
    """A 1x1 convolution of stride 2 uses one pixel of four; after an average-pool it uses all."""

    def pixels_that_matter(shortcut):
        block = BasicBlock(4, strides=2, shortcut=shortcut, zero_init_last=True)
        x = jnp.abs(noise(1, 4, 4, 4))
        variables = jax.jit(block.init)(jax.random.key(0), x)
        gradient = jax.jit(jax.grad(lambda x: (block.apply(variables, x) ** 2).sum()))(x)
        return int((gradient != 0).any(-1).sum())

    assert pixels_that_matter("conv") == 4
    assert pixels_that_matter("avg_pool") == 16


def test_works_under_jit_grad_and_vmap():
    model, x = small(), noise(2, 32, 32, 3)
    variables = init(model, x)
    expected = model.apply(variables, x)
    np.testing.assert_allclose(apply(model, variables, x), expected, rtol=1e-4, atol=1e-5)
    one_by_one = jax.jit(jax.vmap(lambda image: model.apply(variables, image[None])[0]))(x)
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-4, atol=1e-5)
    loss = jax.grad(lambda params: model.apply({**variables, "params": params}, x).sum())
    grads = jax.jit(loss)(variables["params"])
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize(("output_stride", "strides"), [(32, (4, 8, 16, 32)), (16, (4, 8, 16, 16)), (8, (4, 8, 8, 8))])
@pytest.mark.parametrize("shortcut", ["conv", "avg_pool"])
def test_output_stride_dilates_with_the_same_parameters(output_stride, strides, shortcut):
    model, plain = small(output_stride=output_stride, shortcut=shortcut), small(shortcut=shortcut)
    x = jnp.zeros((1, 96, 64, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    assert variables == jax.eval_shape(plain.init, jax.random.key(0), x)
    maps = jax.eval_shape(lambda v: model.apply(v, x, method="features"), variables)
    for stage, stride in enumerate(strides, start=1):
        assert maps[f"stage{stage}"].shape[1:3] == (96 // stride, 64 // stride)
        assert model.strides[f"stage{stage}"] == stride


def test_a_dilated_network_sees_what_the_plain_one_sees_between_its_positions():
    """Every other position of the dilated feature map equals the plain map: both see the same pixels."""
    options = {"stage_sizes": (1, 1), "stem": "small", "shortcut": "conv"}
    x = noise(1, 32, 32, 3)
    plain = small(**options)
    variables = init(plain, x)
    maps = apply(plain, variables, x, method="features")
    dilated = small(**options).clone(output_stride=8)
    assert dilated.strides == plain.strides  # two stages end at stride 2, so the limit has no effect
    np.testing.assert_array_equal(apply(dilated, variables, x, method="features")["stage2"], maps["stage2"])


def test_remat_gives_the_same_numbers():
    x = noise(2, 32, 32, 3)
    variables = init(small(), x)

    def gradient(model):
        loss = jax.grad(lambda p: (model.apply({**variables, "params": p}, x) ** 2).sum())
        return jax.jit(loss)(variables["params"])

    kept, again = gradient(small()), gradient(small(remat="block"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), kept, again)


def test_frozen_parts_keep_their_statistics_in_training():
    model, x = small(frozen=("stem", "stage2")), noise(4, 32, 32, 3)
    variables = init(model, x)
    _, updates = apply(model, variables, x, train=True, mutable=["batch_stats"])
    for name, statistics in variables["batch_stats"].items():
        now = updates["batch_stats"].get(name, statistics)
        moved = any(bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (statistics, now)), strict=True))
        assert moved == (not name.startswith(("stem", "stage2"))), name


def test_dropout_and_stochastic_depth_draw_in_training_alone():
    model, x = small(dropout=0.5, stochastic_depth=0.5), noise(4, 32, 32, 3)
    variables = init(model, x)

    def train(seed: int) -> jax.Array:
        rngs = {"dropout": jax.random.key(seed)}
        return apply(model, variables, x, train=True, mutable=["batch_stats"], rngs=rngs)[0]

    np.testing.assert_array_equal(train(0), train(0))
    assert bool((train(0) != train(1)).any())
    np.testing.assert_array_equal(apply(model, variables, x), apply(small(), variables, x))


@pytest.mark.parametrize("activation", ["relu", "silu", "mish", "gelu"])
def test_activations_differ(activation):
    x = noise(1, 32, 32, 3)
    variables = init(small(), x)
    same = bool((apply(small(activation=activation), variables, x) == apply(small(), variables, x)).all())
    assert same == (activation == "relu")


def test_the_cifar_shortcut_has_no_parameters():
    model, x = small(shortcut="pad", stem="small"), noise(2, 9, 9, 3)
    variables = init(model, x)
    assert not any("shortcut" in name for block in variables["params"].values() for name in block)
    assert apply(model, variables, x).shape == (2, 10)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stage_sizes", 2),
        ("stage_sizes", ()),
        ("stage_sizes", (2, 0)),
        ("block", "basic"),
        ("stem", "imagnet"),
        ("shortcut", "pool"),
        ("initializer", "torch"),
        ("batch_norm", "ghost"),
        ("activation", "tanh"),
        ("remat", "all"),
        ("output_stride", 4),
        ("dropout", 1.0),
        ("stochastic_depth", -0.1),
        ("width", 0),
        ("frozen", ("stage9",)),
        ("groups", 2),
        ("squeeze_excite", "ECA"),
        ("squeeze_ratio", 1.5),
        ("blur_pool", "mean"),
        ("stem_channels", 0),
        ("stem_pool", "avg"),
        ("stride_on", "1x1"),
        ("global_pool", "mean"),
        ("norm", "layer"),
        ("epsilon", 0.0),
    ],
)
def test_values_that_mean_nothing_are_refused_where_they_enter(option, value):
    with pytest.raises(ValueError, match=f"^{option}="):
        small(**{option: value})


def test_importable_names_are_the_contract():
    for size in (18, 34, 50, 101, 152):
        assert getattr(flax_resnets, f"ResNet{size}")(num_classes=3).num_classes == 3
