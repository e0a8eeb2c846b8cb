"""Exporting weights under the names of torchvision and timm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flax_resnets import BasicBlock, BottleneckBlock, ResNet, fold_batch_norm
from flax_resnets.errors import UserError
from flax_resnets.models.resnet import PreActBasicBlock
from flax_resnets.weights import export_state_dict


def network(**options) -> ResNet:
    return ResNet(**{"stage_sizes": (1, 1), "block": BasicBlock, "num_classes": 5, "width": 8, **options})


def initial(model: ResNet, channels: int = 3) -> dict:
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, channels)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)


def test_arrays_are_torchs_in_name_shape_and_order():
    model = network()
    variables = initial(model)
    state = export_state_dict(model, variables, layout="torchvision")
    assert {name: value.shape for name, value in state.items() if "layer1" not in name} == {
        "conv1.weight": (8, 3, 7, 7),
        "bn1.weight": (8,),
        "bn1.bias": (8,),
        "bn1.running_mean": (8,),
        "bn1.running_var": (8,),
        "layer2.0.conv1.weight": (16, 8, 3, 3),
        "layer2.0.conv2.weight": (16, 16, 3, 3),
        **{
            f"layer2.0.bn{i}.{leaf}": (16,)
            for i in (1, 2)
            for leaf in ("weight", "bias", "running_mean", "running_var")
        },
        "layer2.0.downsample.0.weight": (16, 8, 1, 1),
        **{f"layer2.0.downsample.1.{leaf}": (16,) for leaf in ("weight", "bias", "running_mean", "running_var")},
        "fc.weight": (5, 16),
        "fc.bias": (5,),
    }
    kernel = variables["params"]["stem_conv"]["kernel"]
    assert state["conv1.weight"][3, 1, 2, 5] == kernel[2, 5, 1, 3]
    assert all(value.dtype == np.float32 and value.flags["C_CONTIGUOUS"] for value in state.values())
    assert all(value.flags["WRITEABLE"] and value.flags["OWNDATA"] for value in state.values())


def test_timm_writes_some_fully_connected_layers_as_convolutions():
    model = network(squeeze_excite=True)
    assert export_state_dict(model, initial(model))["layer1.0.se.fc1.weight"].shape == (8, 8, 1, 1)
    model = network(block=PreActBasicBlock)
    assert export_state_dict(model, initial(model))["head.fc.weight"].shape == (5, 16, 1, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"squeeze_excite": True},
        {"stem": "deep"},
        {"shortcut": "avg_pool"},
        {"blur_pool": True},
        {"stem_channels": 4},
        {"global_pool": "max"},
        {"epsilon": 1e-3},
        {"activation": "mish"},
        {"block": PreActBasicBlock},
    ],
)
def test_torchvision_refuses_what_timm_alone_has(options):
    model = network(**options)
    with pytest.raises(UserError, match=r"torchvision has no such network; timm has: layout='timm'$"):
        export_state_dict(model, initial(model), layout="torchvision")


@pytest.mark.parametrize(
    "options",
    [
        {"stem": "small"},
        {"shortcut": "pad"},
        {"block": PreActBasicBlock, "squeeze_excite": True},
        {"block": BottleneckBlock, "stride_on": "1x1"},
    ],
)
def test_torchvision_refuses_what_nobody_else_has(options):
    model = network(**options)
    with pytest.raises(UserError, match="no such network; nor has timm, but layout='timm' gives names of its scheme"):
        export_state_dict(model, initial(model), layout="torchvision")


def test_mistakes_are_one_line():
    model = network()
    with pytest.raises(UserError, match="layout='keras': must be one of timm, torchvision"):
        export_state_dict(model, initial(model), layout="keras")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="batch_norm='folded': torch's networks have norms"):
        export_state_dict(*fold_batch_norm(model, initial(model)))
    with pytest.raises(UserError, match="model=Dense: only a ResNet"):
        export_state_dict(nn.Dense(3), {})
    variables = initial(network(num_classes=6))
    del variables["params"]["stem_norm"]["bias"]
    variables["params"]["aux"] = {"kernel": np.zeros(3)}
    with pytest.raises(UserError) as caught:
        export_state_dict(model, variables)
    assert str(caught.value) == (
        "variables: does not fit the model: 1 missing: 'params/stem_norm/bias'; 1 extra: 'params/aux/kernel'; "
        "2 misshaped: 'params/head/bias' is (6,), not (5,), 'params/head/kernel' is (16, 6), not (16, 5)"
    )


def test_any_number_of_channels_is_exported():
    assert export_state_dict(network(), initial(network(), channels=4))["conv1.weight"].shape == (8, 4, 7, 7)
