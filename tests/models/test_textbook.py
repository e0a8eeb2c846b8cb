"""The textbook networks: the shapes that the books print, the numbers of parameters, and what training changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnets import BasicBlock, create_model
from flax_resnets.models.textbook import FCN, VGG, AlexNet, ConvLayer, DenseNet, GoogLeNet, LeNet, LeNetBN, NiN

# Height, width and channels, or features, of each step, as in the book.
SHAPES = {
    "lenet": {
        "conv1": (28, 28, 6),
        "pool1": (14, 14, 6),
        "conv2": (10, 10, 16),
        "pool2": (5, 5, 16),
        "flatten": (400,),
        "dense1": (120,),
        "dense2": (84,),
        "head": (10,),
    },
    "alexnet": {
        "conv1": (54, 54, 96),
        "pool1": (26, 26, 96),
        "conv2": (26, 26, 256),
        "pool2": (12, 12, 256),
        "conv3": (12, 12, 384),
        "conv4": (12, 12, 384),
        "conv5": (12, 12, 256),
        "pool3": (5, 5, 256),
        "flatten": (6400,),
        "dense1": (4096,),
        "dense2": (4096,),
        "head": (10,),
    },
    "vgg11": {
        "block1": (112, 112, 64),
        "block2": (56, 56, 128),
        "block3": (28, 28, 256),
        "block4": (14, 14, 512),
        "block5": (7, 7, 512),
        "flatten": (25088,),
        "dense1": (4096,),
        "dense2": (4096,),
        "head": (10,),
    },
    "vgg11_quarter": {
        "block1": (112, 112, 16),
        "block2": (56, 56, 32),
        "block3": (28, 28, 64),
        "block4": (14, 14, 128),
        "block5": (7, 7, 128),
        "flatten": (6272,),
        "dense1": (4096,),
        "dense2": (4096,),
        "head": (10,),
    },
    "nin": {
        "block1": (54, 54, 96),
        "pool1": (26, 26, 96),
        "block2": (26, 26, 256),
        "pool2": (12, 12, 256),
        "block3": (12, 12, 384),
        "pool3": (5, 5, 384),
        "head_block": (5, 5, 10),
        "head": (10,),
    },
    "googlenet": {
        "block1": (24, 24, 64),
        "block2": (12, 12, 192),
        "block3": (6, 6, 480),
        "block4": (3, 3, 832),
        "block5": (1024,),
        "head": (10,),
    },
    "densenet": {
        "stem": (24, 24, 64),
        "block1": (24, 24, 192),
        "transition1": (12, 12, 96),
        "block2": (12, 12, 224),
        "transition2": (6, 6, 112),
        "block3": (6, 6, 240),
        "transition3": (3, 3, 120),
        "block4": (3, 3, 248),
        "pool": (248,),
        "head": (10,),
    },
    "fcn": {
        "stage1": (64, 64, 16),
        "stage2": (32, 32, 32),
        "stage3": (16, 16, 64),
        "stage4": (8, 8, 128),
        "stage5": (4, 4, 256),
        "pool": (256,),
        "head": (10,),
    },
}
SHAPES["lenet_bn"] = SHAPES["lenet"]
SHAPES["resblock_net"] = SHAPES["resblock_net_deep"] = SHAPES["fcn"]
SIZES = {"lenet": 28, "lenet_bn": 28, "googlenet": 96, "densenet": 96, "fcn": 128}
SIZES |= {"resblock_net": 128, "resblock_net_deep": 128}


def conv(size: int, inputs: int, outputs: int) -> int:
    """Weights and biases."""
    return size * size * inputs * outputs + outputs


def dense(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def inception(inputs: int, c1: int, c2: tuple[int, int], c3: tuple[int, int], c4: int) -> int:
    return (
        conv(1, inputs, c1)
        + conv(1, inputs, c2[0])
        + conv(3, c2[0], c2[1])
        + conv(1, inputs, c3[0])
        + conv(5, c3[0], c3[1])
        + conv(1, inputs, c4)
    )


def dense_block(inputs: int) -> int:
    """Parameters of four convolutions, each with a norm of all channels before it and a 3x3 kernel to 32 channels."""
    return sum(2 * channels + conv(3, channels, 32) for channels in range(inputs, inputs + 4 * 32, 32))


def transition(inputs: int) -> int:
    return 2 * inputs + conv(1, inputs, inputs // 2)


STAGES = [(3, 16), (16, 32), (32, 64), (64, 128), (128, 256)]

PARAMETERS = {
    # 156 + 2,416 + 48,120 + 10,164 + 850 = 61,706
    "lenet": conv(5, 1, 6) + conv(5, 6, 16) + dense(400, 120) + dense(120, 84) + dense(84, 10),
    "lenet_bn": 61_706 + 2 * (6 + 16 + 120 + 84),
    "alexnet": conv(11, 1, 96)
    + conv(5, 96, 256)
    + conv(3, 256, 384)
    + conv(3, 384, 384)
    + conv(3, 384, 256)
    + dense(5 * 5 * 256, 4096)
    + dense(4096, 4096)
    + dense(4096, 10),
    "vgg11": conv(3, 1, 64)
    + conv(3, 64, 128)
    + conv(3, 128, 256)
    + conv(3, 256, 256)
    + conv(3, 256, 512)
    + 3 * conv(3, 512, 512)
    + dense(7 * 7 * 512, 4096)
    + dense(4096, 4096)
    + dense(4096, 10),
    "vgg11_quarter": conv(3, 1, 16)
    + conv(3, 16, 32)
    + conv(3, 32, 64)
    + conv(3, 64, 64)
    + conv(3, 64, 128)
    + 3 * conv(3, 128, 128)
    + dense(7 * 7 * 128, 4096)
    + dense(4096, 4096)
    + dense(4096, 10),
    "nin": conv(11, 1, 96)
    + 2 * conv(1, 96, 96)
    + conv(5, 96, 256)
    + 2 * conv(1, 256, 256)
    + conv(3, 256, 384)
    + 2 * conv(1, 384, 384)
    + conv(3, 384, 10)
    + 2 * conv(1, 10, 10),
    "googlenet": conv(7, 1, 64)
    + conv(1, 64, 64)
    + conv(3, 64, 192)
    + inception(192, 64, (96, 128), (16, 32), 32)
    + inception(256, 128, (128, 192), (32, 96), 64)
    + inception(480, 192, (96, 208), (16, 48), 64)
    + inception(512, 160, (112, 224), (24, 64), 64)
    + inception(512, 128, (128, 256), (24, 64), 64)
    + inception(512, 112, (144, 288), (32, 64), 64)
    + inception(528, 256, (160, 320), (32, 128), 128)
    + inception(832, 256, (160, 320), (32, 128), 128)
    + inception(832, 384, (192, 384), (48, 128), 128)
    + dense(1024, 10),
    "densenet": conv(7, 1, 64)
    + 2 * 64
    + dense_block(64)
    + transition(192)
    + dense_block(96)
    + transition(224)
    + dense_block(112)
    + transition(240)
    + dense_block(120)
    + 2 * 248
    + dense(248, 10),
    # The convolutions have no biases. A norm has two parameters for each channel, γ and β.
    "fcn": sum((9 * before + 2) * after for before, after in STAGES) + dense(256, 10),
    "resblock_net": sum((9 * before + 2 + 9 * after + 2 + before + 2) * after for before, after in STAGES)
    + dense(256, 10),
}
PARAMETERS["resblock_net_deep"] = PARAMETERS["resblock_net"] + sum(2 * (9 * after + 2) * after for _, after in STAGES)


def noise(*shape: int, seed: int = 1) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize("name", SHAPES)
def test_steps_have_the_books_shapes_and_parameters(name):
    model, size = create_model(name, num_classes=10), SIZES.get(name, 224)
    x = jnp.zeros((2, size, size, 3 if size == 128 else 1))
    steps, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, method="layers"))
    assert {step: value.shape for step, value in steps.items()} == {
        step: (2, *shape) for step, shape in SHAPES[name].items()
    }
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == PARAMETERS[name]


def test_parameters_named_in_print():
    """The functions above, compared with totals that were calculated by hand."""
    assert PARAMETERS["lenet"] == 156 + 2_416 + 48_120 + 10_164 + 850 == 61_706
    convolutions = 11_712 + 614_656 + 885_120 + 1_327_488 + 884_992
    assert PARAMETERS["alexnet"] == convolutions + 26_218_496 + 16_781_312 + 40_970 == 46_764_746
    convolutions = 640 + 73_856 + 295_168 + 590_080 + 1_180_160 + 3 * 2_359_808
    assert PARAMETERS["vgg11"] == convolutions + 102_764_544 + 16_781_312 + 40_970 == 128_806_154
    blocks = (11_712 + 2 * 9_312, 614_656 + 2 * 65_792, 885_120 + 2 * 147_840, 34_570 + 2 * 110)
    assert PARAMETERS["nin"] == sum(blocks) == 1_992_166


def test_steps_come_in_the_books_order():
    order = []

    def note_order():
        steps = LeNet().init_with_output(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), method="layers")[0]
        order.extend(steps)  # noted here, because `eval_shape` and `jit` sort a dict by name

    jax.eval_shape(note_order)
    assert order == list(SHAPES["lenet"])


def test_lenet_bn_as_the_books_listing_has_it():
    """The network of section 8.5 has no padding: 28 -> 24 -> 12 -> 8 -> 4."""
    model = create_model("lenet_bn", num_classes=10, padding=0)
    x = jnp.zeros((1, 28, 28, 1))
    steps, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, method="layers"))
    assert steps["flatten"].shape == (1, 4 * 4 * 16)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == 62_158 - (25 - 16) * 16 * 120


# Each class with the smallest image that it accepts, and with few channels if they can be chosen.
SMALL = [
    (FCN(), 32),
    (FCN(blocks=2), 32),
    (LeNet(), 14),
    (LeNetBN(), 14),
    (AlexNet(), 65),
    (VGG(stages=((1, 4), (2, 8))), 8),
    (NiN(), 67),
    (GoogLeNet(), 16),
    (DenseNet(stages=(1, 2), growth=4), 16),
]


@pytest.mark.parametrize(("model", "size"), SMALL, ids=lambda value: type(value).__name__)
def test_training_is_called_as_a_resnets(model, size):
    """The same call trains all of them. Networks without norms return no statistics."""
    x = jnp.zeros((2, size, size, 3), jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)

    def train(variables):
        keys = {"dropout": jax.random.key(0)}
        return model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=keys)

    logits, updates = jax.eval_shape(train, variables)
    assert (logits.shape, logits.dtype) == ((2, 10), jnp.float32)
    assert ("batch_stats" in updates) == ("batch_stats" in variables) == hasattr(model, "batch_norm")
    features = jax.eval_shape(lambda v: model.clone(num_classes=0).apply(v, x), variables)
    assert len(features.shape) == 2


@pytest.mark.parametrize(("model", "size"), SMALL, ids=lambda value: type(value).__name__)
def test_half_precision_keeps_float32_parameters_and_logits(model, size):
    x = jnp.zeros((2, size, size, 1))
    half = model.clone(dtype=jnp.bfloat16)
    steps, variables = jax.eval_shape(lambda: half.init_with_output(jax.random.key(0), x, method="layers"))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    assert steps["head"].dtype == jnp.float32
    assert {step.dtype for step in steps.values() if step.ndim == 4} == {np.dtype(jnp.bfloat16)}


def modules_called(model: nn.Module, kind: type, x: jax.Array, **kwargs) -> list[nn.Module]:
    """The modules of a type that a call of the network uses."""
    called = []

    def watch(method, args, kwargs, context):
        if isinstance(context.module, kind) and context.method_name == "__call__":
            called.append(context.module)
        return method(*args, **kwargs)

    keys = {"params": jax.random.key(0), "dropout": jax.random.key(0)}
    with nn.intercept_methods(watch):
        jax.eval_shape(lambda: model.init(keys, x, **kwargs))
    return called


@pytest.mark.parametrize(("name", "size"), [("lenet", 7), ("alexnet", 7), ("nin", 2), ("nin", 40)])
def test_images_that_are_too_small_are_named(name, size):
    model = create_model(name, 10)
    with pytest.raises(ValueError, match=r"the image is too small: \d+ x \d+ is left for a (kernel|window) of"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, size, size, 1)))


@pytest.mark.parametrize(("model", "size", "dropouts"), [(AlexNet(), 65, 2), (VGG(), 32, 2), (NiN(), 67, 1)])
def test_dropout_drops_half_in_training_only(model, size, dropouts):
    x = jnp.zeros((1, size, size, 1))
    assert [module.rate for module in modules_called(model, nn.Dropout, x)] == dropouts * [0.5]
    assert all(module.deterministic for module in modules_called(model, nn.Dropout, x))
    assert not any(module.deterministic for module in modules_called(model, nn.Dropout, x, train=True))


def test_d2l_starts_from_xavier_and_no_bias():
    params = jax.jit(LeNet().init)(jax.random.key(0), noise(1, 28, 28, 1))["params"]
    bound = (6 / (400 + 120)) ** 0.5
    assert 0.98 * bound < float(jnp.abs(params["dense1"]["kernel"]).max()) <= bound
    bound = (6 / (25 * 6 + 25 * 16)) ** 0.5
    assert 0.98 * bound < float(jnp.abs(params["conv2"]["kernel"]).max()) <= bound
    assert not any(bool(layer["bias"].any()) for layer in params.values())


def test_a_conv_layer_is_convolution_norm_relu():
    layer, x = ConvLayer(4, strides=2), noise(8, 6, 6, 3)
    variables = layer.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        "conv": {"kernel": (3, 3, 3, 4)},
        "norm": {"scale": (4,), "bias": (4,)},
    }
    y, _ = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.shape == (8, 3, 3, 4)
    assert float(y.min()) == 0


@pytest.mark.parametrize("blocks", [1, 2])
def test_resblock_nets_are_made_of_fastais_resblock(blocks):
    """The blocks are `BasicBlock`s with an average-pooled shortcut and a last γ of 0."""
    called = modules_called(FCN(blocks=blocks), BasicBlock, jnp.zeros((1, 32, 32, 3)))
    assert [block.strides for block in called] == 5 * [2, 1][:blocks]
    assert {(block.shortcut, block.zero_init_last) for block in called} == {("avg_pool", True)}


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_fcns_start_as_fastais_layers_do(blocks):
    """Uniform; before a ReLU with He's variance, elsewhere with torch's default, 1 / (3 fan in). β is 1e-3."""
    params = jax.jit(FCN(blocks=blocks).init)(jax.random.key(0), noise(1, 64, 64, 3))["params"]
    head = params.pop("head")
    assert 0.05 < float(jnp.abs(head["kernel"]).max()) <= 1 / 256**0.5
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        layer, parameter = path[-2].key, path[-1].key
        if parameter == "kernel":
            bound = (6 if layer in ("conv", "conv1") else 1) ** 0.5 / (leaf[..., 0].size) ** 0.5
            assert 0.95 * bound < float(jnp.abs(leaf).max()) <= bound, path
            assert float(leaf.std()) == pytest.approx(bound / 3**0.5, rel=0.1), path
        elif parameter == "bias":
            assert set(leaf.tolist()) == {jnp.float32(1e-3).item()}, path
        seen.add(layer)
    assert seen == (
        {"conv1", "norm1", "conv2", "norm2", "shortcut_conv", "shortcut_norm"} if blocks else {"conv", "norm"}
    )


@pytest.mark.parametrize(("name", "size"), [("lenet", 10), ("alexnet", 28), ("nin", 28), ("vgg11", 28)])
def test_an_image_that_is_too_small_is_refused(name, size):
    model = create_model(name)
    with pytest.raises(ValueError, match="the image is too small"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, 1)))


def test_a_batch_norm_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_norm='ghost'"):
        DenseNet(batch_norm="ghost")
