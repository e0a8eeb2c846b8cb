"""Loading weights: all or nothing, and one error that lists all mistakes."""

import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from flax_resnets import BasicBlock, BottleneckBlock, ResNet, create_model, list_models
from flax_resnets.errors import UserError
from flax_resnets.models.resnet import PreActBasicBlock, PreActBottleneckBlock
from flax_resnets.weights import FreshHeadWarning, export_state_dict, load_weights
from flax_resnets.weights.names import is_pointwise, leaves, torch_name

NETWORKS = {
    "plain": {},
    "bottleneck": {"block": BottleneckBlock},
    "d": {"stem": "deep", "shortcut": "avg_pool", "zero_init_last": True},
    "groups": {"block": BottleneckBlock, "groups": 4, "width_per_group": 8},
    "squeeze_excite": {"squeeze_excite": True},
    "small": {"stem": "small", "stage_sizes": (1, 1, 1)},
    "without shortcut parameters": {"stem": "small", "shortcut": "pad"},
    "v2": {"block": PreActBasicBlock},
    "v2 bottleneck": {"block": PreActBottleneckBlock},
    "v2 d": {"block": PreActBasicBlock, "stem": "deep", "shortcut": "avg_pool"},
    "tiered": {"stem": "deep_tiered", "stem_channels": 16},
    "eca": {"squeeze_excite": "eca"},
    "stem's pool": {"stem": "deep", "stem_pool": "conv", "squeeze_excite": True, "squeeze_ratio": 0.25},
    "stride on 1x1": {"block": BottleneckBlock, "stride_on": "1x1"},
    "both pools": {"global_pool": "catavgmax"},
    "group norm": {"norm": "group", "width": 32},
    "no norm": {"norm": "none"},
    "BiT": {"block": PreActBottleneckBlock, "norm": "group", "standardize_weights": True, "width": 32},
    "no head": {"num_classes": 0},
}


def network(**options) -> ResNet:
    return ResNet(**{"stage_sizes": (2, 1), "block": BasicBlock, "num_classes": 5, "width": 8, **options})


def variables_of(model: ResNet, channels: int = 3) -> dict:
    """Variables in which all tensors differ, so that a test notices if two are confused."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, channels)))
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)


def state_of(model: ResNet, channels: int = 3) -> dict[str, np.ndarray]:
    return export_state_dict(model, variables_of(model, channels))


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def refused(model, source, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(model, source, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("options", NETWORKS.values(), ids=NETWORKS)
def test_what_was_exported_loads_to_the_bit(options):
    model = network(**options)
    variables = variables_of(model)
    loaded = load_weights(model, export_state_dict(model, variables))
    assert_same(loaded, variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}


def test_structure_is_that_of_init_whatever_the_images():
    model = network()
    loaded = load_weights(model, state_of(model), image_shape=(64, 48, 3))
    x = jnp.zeros((2, 64, 48, 3))
    initial = jax.eval_shape(model.init, jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, loaded) == jax.tree.map(jnp.shape, initial)
    assert jax.eval_shape(model.apply, loaded, x).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "path", "expected"),
    [
        ("resnet18", "params stem_conv kernel", "conv1.weight"),
        ("resnet50", "params stage3_block6 conv2 kernel", "layer3.5.conv2.weight"),
        ("resnet50", "batch_stats stage1_block1 shortcut_norm var", "layer1.0.downsample.1.running_var"),
        ("resnet50d", "params stem_conv2 kernel", "conv1.3.weight"),
        ("resnet50d", "params stem_norm scale", "bn1.weight"),
        ("resnet50d", "params stage1_block1 shortcut_conv kernel", "layer1.0.downsample.1.weight"),
        ("resnet50t", "params stem_conv1 kernel", "conv1.0.weight"),
        ("ecaresnet50d", "params stage1_block1 channel_attention conv kernel", "layer1.0.se.conv.weight"),
        ("resnetrs50", "params stem_pool_conv kernel", "maxpool.0.weight"),
        ("resnetrs50", "batch_stats stem_pool_norm var", "maxpool.1.running_var"),
        ("resnetv2_50x1_bit", "params stage1_block1 norm3 scale", "stages.0.blocks.0.norm3.weight"),
    ],
)
def test_names_are_those_of_torchvision_and_timm(name, path, expected):
    assert torch_name(create_model(name), tuple(path.split())) == expected


def test_names_of_preactivated_networks_are_timms():
    model = network(**NETWORKS["v2"])
    names = [torch_name(model, path) for path, _ in leaves(variables_of(model))]
    for name in (
        "stem.conv.weight",
        "stages.0.blocks.1.norm2.running_mean",
        "stages.1.blocks.0.downsample.conv.weight",
    ):
        assert name in names
    assert {"norm.weight", "head.fc.bias"} < set(names)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet50d", "resnetv2_18", "resnext50_32x4d", "seresnet18", "resnet20_cifar"]
)
def test_every_tensor_of_a_registered_network_has_a_name_of_its_own(name):
    model = create_model(name)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    names = [torch_name(model, path) for path, _ in leaves(shapes)]
    assert len(set(names)) == len(names)


def test_counters_are_left_out():
    model = network()
    state = state_of(model)
    assert_same(load_weights(model, state | {"bn1.num_batches_tracked": np.int64(7)}), load_weights(model, state))


def test_every_mistake_is_in_one_error():
    model = network()
    state = state_of(model)
    del state["conv1.weight"], state["layer1.0.bn1.running_mean"]
    state["layer9.0.conv1.weight"] = state["aux"] = np.zeros((1,), np.float32)
    state["layer1.0.conv1.weight"] = np.zeros((8, 8, 1, 1), np.float32)
    state["layer1.0.conv2.weight"] = state["layer1.0.conv2.weight"].astype(np.int32)
    state["layer1.0.bn2.weight"] = np.full(8, np.nan, np.float32)
    state["layer1.0.bn2.bias"] = np.full(8, 1e300)
    state["bn1.running_var"] = -state["bn1.running_var"]
    assert refused(model, state) == (
        "source: does not fit the model: 2 missing: 'conv1.weight', 'layer1.0.bn1.running_mean'; "
        "2 extra: 'aux', 'layer9.0.conv1.weight'; "
        "1 misshaped: 'layer1.0.conv1.weight' is (8, 8, 1, 1), not (8, 8, 3, 3); "
        "4 unfit: 'bn1.running_var' has variances below 0, 'layer1.0.bn2.bias' has NaN or infinity, "
        "'layer1.0.bn2.weight' has NaN or infinity and 1 more"
    )


def test_the_weights_of_another_network_are_counted_and_the_first_of_each_kind_named():
    message = refused(network(), state_of(network(block=BottleneckBlock)))
    assert message == (
        "source: does not fit the model: 20 extra: 'layer1.0.bn3.bias', 'layer1.0.bn3.running_mean', "
        "'layer1.0.bn3.running_var' and 17 more; 9 misshaped: 'fc.weight' is (5, 64), not (5, 16), "
        "'layer1.0.conv1.weight' is (8, 8, 1, 1), not (8, 8, 3, 3), 'layer1.1.conv1.weight' is (8, 32, 1, 1), not "
        "(8, 8, 3, 3) and 6 more"
    )


def stranger(count: int = 40, start: str = "blocks.") -> dict[str, np.ndarray]:
    return {f"{start}{number}.attention.weight": np.zeros((4, 4), np.float32) for number in range(count)}


def without(state: dict, *parts: str) -> dict:
    return {name: value for name, value in state.items() if not any(part in name for part in parts)}


def empty(name: str, **options) -> dict[str, np.ndarray]:
    """Weights of a registered network that take no memory."""
    model = create_model(name, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return {name: broadcast(x.shape, name) for name, x in ((torch_name(model, path), x) for path, x in leaves(shapes))}


def broadcast(shape: tuple[int, ...], name: str) -> np.ndarray:
    """Ones that take no memory, with the axes of torch."""
    shape = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return np.broadcast_to(np.float32(1), (*shape, 1, 1) if is_pointwise(name) else shape)


MISFITS = {
    "another depth": (lambda: empty("resnet34"), "it has as many parameters as resnet34: create_model('resnet34')"),
    "another depth and head": (lambda: empty("resnet34", num_classes=7), "it has as many parameters as resnet34"),
    "other blocks": (lambda: empty("resnet26", num_classes=0), "it has as many parameters as resnet26"),
    "another stem": (lambda: empty("resnet18d"), "it has as many parameters as resnet18d"),
    "pre-activated": (lambda: empty("resnetv2_18"), "it has as many parameters as resnetv2_18"),
    "squeeze-excite": (lambda: empty("seresnet18"), "it has as many parameters as seresnet18"),
    "no head": (lambda: empty("resnet18", num_classes=0), "it has no head: num_classes=0 loads the rest"),
    "unknown names": (
        lambda: {name.replace("layer", "tier"): value for name, value in empty("resnet18").items()},
        "it has as many parameters as the network, but names that are not known here",
    ),
    "Caffe's": (
        lambda: {f"res{s}_0_branch2{b}_w": np.zeros(4, np.float32) for s in range(2, 6) for b in "abc"},
        "its names are Caffe's: rename them to torchvision's and load them into a network with stride_on='1x1'",
    ),
    "another network": (stranger, "all its names begin with 'blocks.'"),
    "some missing": (lambda: without(empty("resnet18"), "bn2", "layer4"), "49 missing: 'layer1.0.bn2.bias', "),
    "some extra": (lambda: empty("resnet18") | stranger(), "40 extra: 'blocks.0.attention.weight', "),
    "all misshaped": (lambda: {n: v[..., None] for n, v in empty("resnet18").items()}, "102 misshaped: "),
    "long names": (lambda: stranger(3000, "\u202e" * 500), "3000 extra: "),
}


@pytest.mark.parametrize(("make", "said"), MISFITS.values(), ids=MISFITS)
def test_a_misfit_is_told_with_its_cause_in_at_most_600_characters(make, said):
    message = refused(create_model("resnet18"), make(), image_shape=(64, 64, 3))
    assert message.startswith("source: does not fit the model: ")
    assert said in message
    assert len(message) <= 600


@pytest.mark.parametrize(
    ("weights_of", "into", "said"),
    [
        ("resnet50_gn", "resnet50", "it has no running statistics, as if for group norm: create_model('resnet50_gn')"),
        ("resnet50", "resnet50_gn", "it has running statistics, as BatchNorm has: create_model('resnet50')"),
        ("resnet50_gn", "resnetv2_50d_gn", "it has as many parameters as resnet50_gn: create_model('resnet50_gn')"),
        ("resnetv2_50x1_bit", "resnetv2_50d_gn", "resnetv2_50x1_bit: create_model('resnetv2_50x1_bit')"),
    ],
)
def test_running_statistics_tell_which_norm_the_weights_are_of(weights_of, into, said):
    message = refused(create_model(into), empty(weights_of), image_shape=(64, 64, 3))
    assert message.endswith(said)


def test_a_long_path_keeps_its_end(tmp_path):
    folder = tmp_path / "x" / ("y" * 200) / ("z" * 200)
    folder.mkdir(parents=True)
    np.savez(folder / "w.npz", **stranger())
    message = refused(network(), folder / "w.npz")
    assert "zz/w.npz: does not fit the model: " in message
    assert len(message) <= 600


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64, ">f4"])
def test_other_floats_become_float32(dtype):
    model = network()
    state = {name: value.astype(dtype) for name, value in state_of(model).items()}
    loaded = load_weights(model, state)
    expected = load_weights(model, {name: value.astype(np.float32) for name, value in state.items()})
    assert_same(loaded, expected)


@pytest.mark.parametrize("block", [BasicBlock, PreActBasicBlock])
def test_another_number_of_classes_gets_a_fresh_head_and_says_so(block):
    state = state_of(network(block=block, num_classes=7))
    model = network(block=block)
    with pytest.warns(FreshHeadWarning, match="source has 7 classes, the model 5: its head starts from random weights"):
        loaded = load_weights(model, state)
    kernel = loaded["params"]["head"]["kernel"]
    assert kernel.shape == (16, 5)
    assert 0 < float(jnp.abs(kernel).max()) <= 16**-0.5
    assert jax.tree.map(jnp.shape, loaded) == jax.tree.map(jnp.shape, variables_of(model))
    with pytest.warns(FreshHeadWarning):
        other = load_weights(model, state, seed=1)
    assert bool((other["params"]["head"]["kernel"] != kernel).all())
    loaded["params"].pop("head")
    assert_same(loaded, load_weights(network(block=block, num_classes=0), state))


def test_a_head_of_another_width_is_misshaped_not_replaced():
    state = state_of(network())
    state["fc.weight"], state["fc.bias"] = np.zeros((7, 99), np.float32), np.zeros(7, np.float32)
    assert "2 misshaped: 'fc.bias' is (7,), not (5,), 'fc.weight' is (7, 99), not (5, 16)" in refused(network(), state)


def test_a_missing_head_is_missing_unless_none_is_wanted():
    state = state_of(network(num_classes=0))
    assert "2 missing: 'fc.bias', 'fc.weight'" in refused(network(), state)
    load_weights(network(num_classes=0), state)


@pytest.mark.parametrize("stem", ["imagenet", "deep", "small"])
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_stem_kernels_are_summed_or_tiled_for_other_channels(stem, channels):
    """A grey image, which is the same in all channels, gives the same output as before."""
    model = network(stem=stem)
    state = state_of(model)
    first = "conv1.0.weight" if stem == "deep" else "conv1.weight"
    loaded = load_weights(model, state, image_shape=(32, 32, channels))
    kernel = loaded["params"]["stem_conv1" if stem == "deep" else "stem_conv"]["kernel"]
    assert kernel.shape[2] == channels
    for channel in range(channels):
        expected = state[first].sum(1) if channels == 1 else state[first][:, channel % 3] * (3 / channels)
        np.testing.assert_allclose(kernel[:, :, channel].transpose(2, 0, 1), expected, rtol=1e-6)


def test_channels_other_than_three_load_only_into_as_many():
    grey = state_of(network(), channels=1)
    assert_same(load_weights(network(), grey, (32, 32, 1)), variables_of(network(), channels=1))
    message = refused(network(), grey, image_shape=(28, 28, 3))
    assert "'conv1.weight' is (8, 1, 7, 7), not (8, 3, 7, 7)" in message
    assert message.endswith("; it is for images of 1 channel: give image_shape=(28, 28, 1)")


@pytest.mark.parametrize("name", [name for name in list_models() if isinstance(create_model(name), ResNet)])
def test_every_registered_network_comes_back_from_its_own_export(name):
    """The number of channels of the images is taken from the file's stem."""
    registered = create_model(name, num_classes=10)
    model = registered.clone(stage_sizes=(1,) * len(registered.stage_sizes), width=min(registered.width, 64))
    for channels in (1, 2, 3, 4, 6) if name in ("resnet18d", "resnet20_cifar", "resnetv2_18") else (1,):
        variables = variables_of(model, channels)
        assert_same(load_weights(model, export_state_dict(model, variables)), variables)


def test_a_stem_of_more_channels_than_images_have_is_misshaped():
    state = state_of(network())
    state["conv1.weight"] = np.broadcast_to(np.float32(0), (8, 10**9, 7, 7))
    assert "'conv1.weight' is (8, 1000000000, 7, 7), not (8, 3, 7, 7)" in refused(network(), state)
    state["conv1.weight"] = np.zeros((8, 3), np.float32)
    assert "'conv1.weight' is (8, 3), not (8, 3, 7, 7)" in refused(network(), state)


def test_a_folded_network_is_told_what_to_load_into():
    assert refused(network(batch_norm="folded"), state_of(network())).startswith(
        "batch_norm='folded': weight files have"
    )


def test_a_mapping_is_copied():
    model = network()
    state = state_of(model)
    loaded = load_weights(model, state)
    expected = jax.tree.map(np.array, loaded)
    for value in state.values():
        value[...] = 99
    assert_same(loaded, expected)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (3, "source=int: must be a path, hf-hub:owner/name or a mapping of arrays"),
        (None, "source=NoneType: must be"),
        ({"conv1.weight": "text"}, "source: 'conv1.weight' is a str, not an array"),
        ({"conv1.weight": [1.0]}, "source: 'conv1.weight' is a list, not an array"),
        ({}, "missing: "),
    ],
)
def test_sources_that_mean_nothing_are_one_line(source, message):
    assert message in refused(network(), source)


@pytest.mark.parametrize("shape", [(224, 224), (224, 224, 0), (224, 224, 3.0), ()])
def test_image_shapes_that_mean_nothing_are_refused(shape):
    assert "must be height, width and channels" in refused(network(), {}, image_shape=shape)


def test_networks_without_a_counterpart_are_refused():
    from flax import linen as nn

    assert refused(nn.Dense(3), {}) == "model=Dense: only a ResNet has names in torchvision and timm"


def test_loading_says_nothing_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(network(), state_of(network()))
