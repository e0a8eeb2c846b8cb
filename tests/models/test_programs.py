"""Networks in programs with strict dtypes, exported with symbolic sizes, or differentiated in other ways."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from flax_resnets import BasicBlock, BottleneckBlock, ResNet, create_model, fold_batch_norm
from flax_resnets.models.folding import why_not_folded
from flax_resnets.models.resnet import PreActBottleneckBlock


def small(**options) -> ResNet:
    return ResNet(**{"stage_sizes": (1, 1), "block": BasicBlock, "num_classes": 5, "width": 16, **options})


def draw(model, image: tuple[int, int, int]):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *image), jnp.float32))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.uniform(0.01, 0.1, leaf.shape).astype(np.float32), shapes)


def training_loss(model, variables, x):
    rngs = {"dropout": jax.random.key(0)}
    logits, _ = model.apply(variables, x, True, mutable=["batch_stats"], rngs=rngs)
    return jnp.square(logits).sum()


def trace_all(model, image: tuple[int, int, int], images_dtype=jnp.float32) -> None:
    """Traces training, its gradients and evaluation. JAX checks dtypes while it traces, so nothing is computed."""
    x = jax.ShapeDtypeStruct((2, *image), images_dtype)
    variables = draw(model, image)
    jax.eval_shape(jax.grad(partial(training_loss, model)), variables, x)
    assert jax.eval_shape(model.apply, variables, x).dtype == jnp.float32
    if isinstance(model, ResNet) and not why_not_folded(model):
        folded, folded_variables = fold_batch_norm(model, variables)
        jax.eval_shape(folded.apply, folded_variables, x)


OPTIONS = {
    "plain": {},
    "d": {"stem": "deep", "shortcut": "avg_pool", "zero_init_last": True, "initializer": "fastai"},
    "small": {"stem": "small", "shortcut": "pad"},
    "silu": {"activation": "silu", "remat": "block"},
    "mish": {"activation": "mish"},
    "gelu": {"activation": "gelu", "frozen": ("stem",)},
    "squeeze_excite": {"squeeze_excite": True},
    "blur_pool": {"blur_pool": True, "output_stride": 8, "stage_sizes": (1, 1, 1)},
    "dilated d": {"output_stride": 8, "stage_sizes": (1, 1, 1), "shortcut": "avg_pool"},
    "dropped": {"stochastic_depth": 0.3, "dropout": 0.3, "batch_norm": "ghost:1"},
    "groups": {"block": BottleneckBlock, "groups": 2},
    "v2": {"block": PreActBottleneckBlock},
    "eca": {"squeeze_excite": "eca", "stem": "deep_tiered", "global_pool": "catavgmax"},
    "average": {"blur_pool": "average", "global_pool": "avgmax"},
    "rs": {"block": BottleneckBlock, "stem_pool": "conv", "stride_on": "1x1", "global_pool": "max"},
    "no norm": {"norm": "none", "zero_init_last": True},
    "group norm": {"norm": "group", "width": 32},
    "BiT": {
        "block": PreActBottleneckBlock,
        "norm": "group",
        "width": 32,
        "standardize_weights": True,
        "stem_pool": "zero_padded_max",
    },
}


# In bfloat16 all of them; the other dtypes meet the same operations, so by default three networks are enough.
IN_EACH_DTYPE = [
    pytest.param(
        options,
        dtype,
        id=f"{name}-{dtype.dtype.name}",
        marks=() if dtype == jnp.bfloat16 or name in ("plain", "dropped", "BiT") else pytest.mark.slow,
    )
    for name, options in OPTIONS.items()
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32)
]


@pytest.mark.parametrize(("options", "dtype"), IN_EACH_DTYPE)
def test_resnets_promote_no_dtypes_unasked(options, dtype):
    with jax.numpy_dtype_promotion("strict"):
        trace_all(small(**options, dtype=dtype), (33, 26, 3))


@pytest.mark.parametrize(
    ("name", "side", "dtype"),
    [
        ("lenet", 28, jnp.float32),
        ("lenet", 28, jnp.bfloat16),
        ("lenet_bn", 28, jnp.bfloat16),
        ("densenet", 32, jnp.float32),
        ("densenet", 32, jnp.float16),
        ("resblock_net", 33, jnp.bfloat16),
        ("nin", 72, jnp.bfloat16),
        ("googlenet", 32, jnp.bfloat16),
    ],
)
def test_textbook_networks_promote_no_dtypes_unasked(name, side, dtype):
    with jax.numpy_dtype_promotion("strict"):
        trace_all(create_model(name, num_classes=10, dtype=dtype), (side, side, 1))


@pytest.mark.filterwarnings("ignore:images of dtype u?int")
@pytest.mark.parametrize("images_dtype", [jnp.uint8, jnp.int32, jnp.float16])
@pytest.mark.parametrize("network", ["d", "lenet"])
def test_images_of_any_dtype_under_strict_promotion(network, images_dtype):
    with jax.numpy_dtype_promotion("strict"):
        model, side = (create_model("lenet", 10), 28) if network == "lenet" else (small(**OPTIONS["d"]), 33)
        trace_all(model, (side, side, 3), images_dtype)


def exported(model, variables, shape: str, channels: int, train: bool = False, constraints=()):
    """The network exported for images of a symbolic shape, and the function that was exported."""
    settings = {"train": True, "mutable": ["batch_stats"]} if train else {}
    function = jax.jit(partial(model.apply, **settings))
    x = jax.ShapeDtypeStruct((*export.symbolic_shape(shape, constraints=constraints), channels), jnp.float32)
    return export.export(function)(variables, x), function


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, "b, h, w"),
        (OPTIONS["d"], "b, s, s"),
        (OPTIONS["small"], "b, h, w"),
        (OPTIONS["blur_pool"], "b, h, w"),
        (OPTIONS["dilated d"], "2, h, w"),
        (OPTIONS["eca"], "b, h, w"),
        (OPTIONS["average"], "b, h, w"),
        (OPTIONS["BiT"], "b, h, w"),
        ({"squeeze_excite": True, "block": PreActBottleneckBlock}, "b, h, 32"),
    ],
)
def test_a_network_exported_for_any_size_gives_the_same_at_each(options, shape):
    model = small(**options)
    variables = draw(model, (32, 32, 3))
    program, plain = exported(model, variables, shape, 3)
    for side in (32, 21):
        width = 32 if "32" in shape else side + 3 * ("w" in shape)
        x = np.random.default_rng(side).normal(size=(2, side, width, 3)).astype(np.float32)
        np.testing.assert_allclose(program.call(variables, x), plain(variables, x), rtol=1e-5)


def test_a_training_step_is_exported_for_any_size():
    model, x = small(), np.random.default_rng(0).normal(size=(4, 21, 32, 3)).astype(np.float32)
    variables = draw(model, (32, 32, 3))
    program, plain = exported(model, variables, "b, h, w", 3, train=True)
    got, expected = program.call(variables, x), plain(variables, x)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), got, expected)


@pytest.mark.parametrize(("name", "side"), [("fcn", 32), ("densenet", 32), ("nin", 72), ("googlenet", 32)])
def test_textbook_networks_without_a_flat_layer_are_exported_for_any_size(name, side):
    model = create_model(name, num_classes=10)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    # These bounds say that images are never smaller than a network's windows. Without them JAX takes a minute for NiN.
    program, _ = exported(model, shapes, "b, h, w", 1, constraints=[f"h >= {side}", f"w >= {side}"])
    assert [str(size) for size in program.out_avals[0].shape] == ["b", "10"]


def test_a_flat_layer_is_exported_for_a_symbolic_batch_alone():
    model = create_model("lenet", num_classes=10)
    variables = draw(model, (28, 28, 1))
    program, plain = exported(model, variables, "b, 28, 28", 1)
    x = np.ones((3, 28, 28, 1), np.float32)
    np.testing.assert_allclose(program.call(variables, x), plain(variables, x), rtol=1e-5)
    with pytest.raises(ValueError, match=re.escape("images of symbolic height or width: a fully connected layer")):
        exported(model, variables, "b, h, w", 1)


def test_other_ways_to_differentiate_give_the_same_gradient():
    model = small(activation="mish", shortcut="avg_pool")
    variables, x = draw(model, (16, 13, 3)), np.random.default_rng(0).normal(size=(2, 16, 13, 3)).astype(np.float32)
    loss = partial(training_loss, model, x=x)

    @jax.jit
    def ways(variables):
        _, push = jax.linearize(loss, variables)
        along = push(variables)
        checked = jax.grad(jax.checkpoint(loss))(variables)
        plain = jax.grad(loss)(variables)
        each = jax.vmap(loss)(jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf]), variables))
        return along, checked, plain, each

    along, checked, plain, each = ways(variables)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), checked, plain)
    inner = sum(jax.tree.leaves(jax.tree.map(lambda a, b: float((a * b).sum()), plain, variables)))
    np.testing.assert_allclose(along, inner, rtol=1e-3)
    np.testing.assert_allclose(each[0], jax.jit(loss)(variables), rtol=1e-4)


def test_jaxs_switches_change_nothing_but_what_they_say():
    model = small(activation="mish", shortcut="avg_pool", dropout=0.3, stochastic_depth=0.3)
    variables, x = draw(model, (16, 13, 3)), np.random.default_rng(0).normal(size=(2, 16, 13, 3)).astype(np.float32)
    expected = jax.jit(model.apply)(variables, x)
    with jax.debug_nans(True), jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(jax.jit(model.apply)(variables, x), expected, rtol=1e-5)
        jax.block_until_ready(jax.jit(jax.grad(partial(training_loss, model)))(variables, x))
    jax.config.update("jax_enable_x64", True)
    try:
        logits = jax.jit(model.apply)(variables, x)
        trace_all(model, (16, 13, 3), jnp.float64)
        trace_all(create_model("densenet", 10), (32, 32, 1), jnp.float64)
        with jax.numpy_dtype_promotion("strict"):
            trace_all(model, (16, 13, 3), jnp.float64)
    finally:
        jax.config.update("jax_enable_x64", False)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
