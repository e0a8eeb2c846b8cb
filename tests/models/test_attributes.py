"""Values that the attributes of networks accept and refuse."""

import jax.numpy as jnp
import pytest

from flax_resnets import ResNet18, ResNet50, create_model
from flax_resnets.errors import UserError
from flax_resnets.models.attributes import check_outputs


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.dtype("float16"), "bfloat16"])
def test_a_float_dtype_by_any_name(dtype):
    check_outputs(10, dtype)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"dtype": "bf16"}, "dtype='bf16': must be a float dtype"),
        ("resnet18", {"dtype": None}, "dtype=None: must be a float dtype"),
        ("lenet", {"dtype": jnp.int32}, "dtype=.*: must be a float dtype, such as jnp.float32"),
        ("resnet18", {"batch_norm": None}, "batch_norm=None: must be 'global', 'device' or"),
        (
            "resnet18",
            {"stem": "deep", "width": 1},
            "width=1: the deep stem .* half as many channels; must be at least 2",
        ),
        ("resnet50t", {"width": 4}, "width=4: the deep stem .* as many channels; must be at least 8"),
        ("resnet50s", {"stem_channels": 1}, "stem_channels=1: the deep stem .*; must be at least 2"),
        ("resnetrs50", {"blur_pool": True}, "stem_pool='conv': a blurring network has no such pool; must be max"),
        ("resnetaa50", {"stem_pool": "zero_padded_max"}, "stem_pool='zero_padded_max': .* in its place; must be max"),
        ("resnet50_gn", {"frozen": ("stem",)}, r"frozen=\('stem',\): norm='group' has no running .*; must be \(\)"),
        ("resnetv2_50", {"blur_pool": True}, "blur_pool=True: pre-activated blocks cannot blur; must be False"),
        ("resnet18", {"groups": 2}, "groups=2: only bottleneck blocks have groups; must be 1"),
        ("resnetblur50", {"stride_on": "1x1"}, "stride_on='1x1': a block that blurs has its stride in the blur"),
        ("resnet50_gn", {"batch_norm": "ghost:32"}, "batch_norm='ghost:32': norm='group' .*; must be global"),
        ("resnet50_gn", {"width": 8}, "norm='group': 8 channels .* 32 groups; must be batch or none"),
        ("resnetv2_50x1_bit", {"zero_init_last": True}, "standardize_weights=True: .* zero_init_last.*; must be False"),
        ("resnet18", {"epsilon": 1}, "epsilon=1: must be above 0 and below 1, such as 1e-5"),
        ("resnet18", {"width": 1.5}, "width=1.5: must be a whole number above 0"),
        ("resnext50_32x4d", {"width": 8}, "width=8: with width_per_group=4 .* must be at least 16"),
        ("nin", {"dropout": 50}, "dropout=50: must be at least 0 and below 1"),
        ("nin", {"dropout": (0, 5)}, r"dropout=\(0, 5\): must be at least 0"),
        ("alexnet", {"dropout": "half"}, "dropout='half': must be at least 0"),
        ("vgg11", {"dropout": -1}, "dropout=-1: must be at least 0"),
        ("lenet", {"padding": -3}, "padding=-3: must be a whole number 0 or above"),
        ("lenet_bn", {"padding": "x"}, "padding='x': must be a whole number 0 or above"),
    ],
)
def test_a_value_an_attribute_cannot_have(name, options, message):
    with pytest.raises(UserError, match=f"^{name}: {message}"):
        create_model(name, 10, **options)


@pytest.mark.parametrize("classes", [-1, 2.5, True, "10"])
@pytest.mark.parametrize("constructor", [ResNet18, ResNet50])
def test_so_many_classes_there_are_not(constructor, classes):
    with pytest.raises(ValueError, match=r"num_classes=.*: must be a whole number, 0 for pooled features"):
        constructor(num_classes=classes)


@pytest.mark.parametrize("option", ["norm", "remat"])
def test_none_is_the_word_that_a_command_line_makes_of_it(option):
    assert getattr(create_model("resnet18", **{option: None}), option) == "none"
