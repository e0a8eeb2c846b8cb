"""The names of other libraries. `benchmarks.parity.layouts` compares with the libraries themselves."""

import re

import jax
import numpy as np
import pytest
from test_fit import noted
from test_load import assert_same, network, refused, variables_of

from flax_resnets import BottleneckBlock
from flax_resnets.models.resnet import PreActBasicBlock
from flax_resnets.weights import load_weights
from flax_resnets.weights.layouts import LAYOUTS
from flax_resnets.weights.names import leaves, torch_order

OF_LIBRARY = {layout.library: layout for layout in LAYOUTS}
BOTTLENECK = network(block=BottleneckBlock)
BASIC = network()
DEEP = network(block=BottleneckBlock, stem="deep", shortcut="avg_pool")

# Of each library: a network, and some names of its tensors as that library has them.
NAMES = {
    "transformers": (
        BOTTLENECK,
        "embedder.embedder.convolution.weight embedder.embedder.normalization.running_var "
        "encoder.stages.0.layers.0.layer.0.convolution.weight encoder.stages.0.layers.1.layer.2.normalization.bias "
        "encoder.stages.1.layers.0.shortcut.convolution.weight "
        "encoder.stages.1.layers.0.shortcut.normalization.running_mean classifier.1.weight classifier.1.bias",
    ),
    "mmpretrain": (
        DEEP,
        "stem.0.conv.weight stem.2.bn.running_mean layer1.0.conv3.weight layer1.1.bn3.bias "
        "layer1.0.downsample.0.weight layer1.0.downsample.1.running_var layer2.0.downsample.1.weight "
        "layer2.0.downsample.2.running_var head.fc.weight",
    ),
    "detectron2": (
        BOTTLENECK,
        "stem.conv1.weight stem.conv1.norm.running_mean res2.0.conv1.weight res2.0.conv3.norm.bias "
        "res3.0.shortcut.weight res3.0.shortcut.norm.weight linear.bias",
    ),
    "nn.Sequential": (BASIC, "0.weight 1.running_var 4.0.conv1.weight 4.1.bn2.bias 5.0.downsample.0.weight 7.weight"),
    "fastai": (
        DEEP,
        "0.0.weight 2.1.running_mean 4.0.convpath.0.0.weight 4.0.convpath.2.1.bias 4.0.idpath.0.0.weight "
        "5.0.idpath.1.0.weight 5.0.idpath.1.1.running_var 9.weight",
    ),
    "fastai 1": (DEEP, "0.0.weight 4.0.convs.0.0.weight 4.0.idconv.0.weight 5.0.idconv.1.running_var 8.bias"),
    "jax-resnet": (
        BOTTLENECK,
        "params/layers_0/ConvBlock_0/Conv_0/kernel batch_stats/layers_2/ConvBlock_2/BatchNorm_0/var "
        "params/layers_3/ConvBlock_0/Conv_0/kernel params/layers_4/ResNetSkipConnection_0/ConvBlock_0/Conv_0/kernel "
        "params/layers_6/kernel params/layers_6/bias",
    ),
    "Flax's example": (
        BASIC,
        "params/conv_init/kernel batch_stats/bn_init/mean params/ResNetBlock_0/Conv_0/kernel "
        "params/ResNetBlock_1/BatchNorm_1/scale params/ResNetBlock_2/conv_proj/kernel "
        "batch_stats/ResNetBlock_2/norm_proj/var params/Dense_0/bias",
    ),
    "flax_resnets": (BASIC, "params/stem_conv/kernel batch_stats/stage1_block1/norm2/var params/head/bias"),
}


def test_every_layout_has_its_names_here():
    assert set(NAMES) == set(OF_LIBRARY) - {"torchvision and timm"}


def written(library: str, model, variables: dict) -> dict[str, np.ndarray]:
    layout = OF_LIBRARY[library]
    tensors = {}
    for path, value in leaves(variables):
        prefix = layout.prefix if path[1] != "head" else ""
        tensors[prefix + layout.name(model, path)] = value if layout.linen else torch_order(value)
    return tensors


@pytest.mark.parametrize("library", NAMES)
def test_a_file_of_the_library_is_loaded_to_the_bit(library):
    model, names = NAMES[library]
    variables = variables_of(model)
    tensors = written(library, model, variables)
    assert len(tensors) == len(jax.tree.leaves(variables))
    assert {OF_LIBRARY[library].prefix * (not re.match("classifier", name)) + name for name in names.split()} <= set(
        tensors
    )
    if OF_LIBRARY[library].differs(model):
        loaded, note = noted(model, tensors)
        assert re.search(r"STRIDE_IN_1X1|pads strided layers", note)
    else:
        loaded = load_weights(model, tensors)
    assert_same(loaded, variables)


@pytest.mark.parametrize("library", ["transformers", "jax-resnet"])
def test_other_shapes_and_a_missing_tensor_are_told_in_its_names(library):
    model, names = NAMES[library]
    tensors = written(library, model, variables_of(model))
    name = next(name for name in tensors if name.endswith(names.split()[2]))
    tensors[name] = np.zeros((1, 1, 3, 3), np.float32)
    missing = [*tensors][5]
    del tensors[missing]
    message = refused(model, tensors)
    assert f"1 missing: '{missing}'" in message
    assert f"1 misshaped: '{name}' is " in message


def test_detectron2s_basic_blocks_have_one_place_for_the_stride():
    assert OF_LIBRARY["detectron2"].differs(BASIC) == ""
    assert OF_LIBRARY["detectron2"].differs(network(block=BottleneckBlock, stride_on="1x1")) == ""


@pytest.mark.parametrize("library", [library for library in NAMES if library != "flax_resnets"])
@pytest.mark.parametrize(
    "options", [{"squeeze_excite": True}, {"block": PreActBasicBlock}, {"norm": "group", "width": 32}]
)
def test_a_library_without_such_a_network_has_no_names_for_it(library, options):
    if library == "nn.Sequential" and "block" not in options:
        return  # timm's names in a sequence
    model = network(**options)
    with pytest.raises(KeyError):
        [OF_LIBRARY[library].name(model, path) for path, _ in leaves(variables_of(model))]
