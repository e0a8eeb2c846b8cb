"""Networks by name."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from flax_resnets import ResNet, create_model, list_models
from flax_resnets.cli.summary import summarize
from flax_resnets.errors import UserError
from flax_resnets.models.registry import MODELS, model_options

WITHOUT_REFERENCE = """
resnet20_cifar resnet32_cifar resnet44_cifar resnet56_cifar resnet110_cifar
fcn resblock_net resblock_net_deep lenet lenet_bn alexnet vgg11 vgg11_quarter nin googlenet densenet
"""

# sum(p.numel() for p in timm.create_model(name).parameters()), timm 1.0.31 and torchvision 0.29.1 on torch 2.14.1.
TIMM = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnet18d": 11_708_744,
    "resnet34d": 21_816_904,
    "resnet50d": 25_576_264,
    "resnet101d": 44_568_392,
    "resnet152d": 60_212_040,
    "resnet200d": 64_693_064,
    "resnet26": 15_995_176,
    "resnet26d": 16_014_408,
    "resnet10t": 5_435_488,
    "resnet14t": 10_081_632,
    "resnet26t": 16_011_872,
    "resnet50t": 25_573_728,
    "resnet50s": 25_680_808,
    "resnetblur18": 11_689_512,
    "resnetblur50": 25_557_032,
    "resnetblur50d": 25_576_264,
    "resnetaa50": 25_557_032,
    "resnetaa50d": 25_576_264,
    "resnet50_gn": 25_557_032,
    "resnetv2_18": 11_687_720,
    "resnetv2_34": 21_795_880,
    "resnetv2_50": 25_549_352,
    "resnetv2_101": 44_541_480,
    "resnetv2_152": 60_185_128,
    "resnetv2_50d_gn": 25_568_584,
    "resnetv2_50x1_bit": 25_549_352,
    "resnetv2_50x3_bit": 217_319_080,
    "resnetv2_101x1_bit": 44_541_480,
    "resnetv2_101x3_bit": 387_934_888,
    "resnetv2_152x2_bit": 236_335_208,
    "resnetv2_152x4_bit": 936_533_224,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "resnext101_32x16d": 194_026_792,
    "resnext50d_32x4d": 25_048_136,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
    "seresnet18": 11_779_624,
    "seresnet34": 21_960_416,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "seresnet152": 66_821_848,
    "seresnext50_32x4d": 27_559_896,
    "seresnext101_32x8d": 93_569_048,
    "seresnext26d_32x4d": 16_809_512,
    "ecaresnet26t": 16_011_916,
    "ecaresnet50d": 25_576_350,
    "ecaresnet50t": 25_573_814,
    "resnetrs50": 35_691_912,
    "resnetrs101": 63_618_696,
    "resnetrs152": 86_621_576,
}


def test_the_names_are_these():
    assert list(MODELS) == [*TIMM, *WITHOUT_REFERENCE.split()]


@pytest.mark.parametrize("name", MODELS)
def test_parameters_and_multiply_adds_are_exact_at_the_native_setting(name):
    entry = MODELS[name]
    shape = (entry.input_size, entry.input_size, entry.channels)
    layers = summarize(create_model(name, entry.num_classes), shape)
    assert sum(layer.parameters for layer in layers) == entry.parameters
    assert sum(layer.multiply_adds for layer in layers) == entry.multiply_adds
    assert entry.parameters == TIMM.get(name, entry.parameters)


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_cifar_resnets_are_as_deep_as_their_names(depth):
    """6n + 2 layers with weights, as in He et al. 2015, section 4.2, where shortcuts have no weights."""
    layers = summarize(create_model(f"resnet{depth}_cifar", 10), (32, 32, 3), depth=2)
    weighted = [layer for layer in layers if layer.kind in ("Conv", "Linear")]
    assert len(weighted) == depth
    assert (weighted[0].output, weighted[-2].output, weighted[-1].output) == ((32, 32, 16), (8, 8, 64), (10,))


def test_list_models_takes_a_pattern():
    assert list_models("resnet5*") == [
        "resnet50",
        "resnet50d",
        "resnet50t",
        "resnet50s",
        "resnet50_gn",
        "resnet56_cifar",
    ]
    assert list_models() == list(MODELS)
    assert list_models("nothing") == []
    with pytest.raises(UserError, match=r"pattern=None: must be a string, such as 'resnet\*d'"):
        list_models(None)  # type: ignore[arg-type]


def test_options_reach_the_module():
    model = create_model("resnet50", num_classes=7, stem="small", width=32)
    assert isinstance(model, ResNet)
    assert (model.num_classes, model.stem, model.width) == (7, "small", 32)


def test_options_are_the_module_s_own():
    assert model_options("lenet") == ["dtype", "padding"]
    assert model_options("densenet") == ["dtype", "batch_norm", "axis_name"]
    assert {"stem", "width", "frozen", "batch_norm"} < set(model_options("resnet20_cifar"))
    for name in MODELS:
        assert not {"num_classes", "name", "parent", "stage_sizes", "stages"} & set(model_options(name))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "model='resnet19': no such model; did you mean resnet1"),
        ("transformer", {}, "model='transformer': no such model; list_models() has them"),
        ("resnet18", {"steem": "deep"}, "steem='deep': resnet18 has no such option; did you mean stem?"),
        ("resnet18", {"stage_sizes": (1,)}, "has no such option"),
        ("alexnet", {"stem": "small"}, "stem='small': alexnet has no such option; there are dtype, dropout"),
        ("lenet", {"numclasses": 7}, "numclasses=7: lenet has no such option; did you mean num_classes?"),
        ("alexnet", {"batch_norm": "device"}, "batch_norm='device': alexnet has no such option"),
        ("vgg11", {"drop_out": 0.1}, "drop_out=0.1: vgg11 has no such option; did you mean dropout?"),
        ("densenet", {"batch_norm": "ghost:0"}, "densenet: batch_norm='ghost:0': must be"),
        ("resnext50_32x4d", {"groups": 0}, "resnext50_32x4d: groups=0: must be a whole number above 0"),
        ("resnet18", {"stem": "wide"}, "resnet18: stem='wide': must be one of imagenet, deep, deep_tiered, small"),
        (
            "resnet18",
            {"in_chans": 1},
            "in_chans=1: timm's word; here the images decide: model.init(key, images), or load_",
        ),
        ("resnet18", {"drop_path_rate": 0.1}, "drop_path_rate=0.1: timm's word; here it is stochastic_depth"),
        (
            "resnet18",
            {"features_only": True},
            'here any network gives them: model.apply(variables, images, method="fea',
        ),
        ("resnet18", {"act_layer": "silu"}, "here it is activation, such as activation='silu'"),
        ("alexnet", {"drop_rate": 0.1}, "drop_rate=0.1: alexnet has no such option; did you mean dropout?"),
        ("resnet18", {"global_pool": "mean"}, "global_pool='mean': must be one of avg, max, avgmax, catavgmax"),
        (50, {}, "model=50: must be a name, such as 'resnet50'; list_models() has them"),
        (["resnet50"], {}, "model=['resnet50']: must be a name"),
        ("resnet18", {"drop_path": 0.1}, "drop_path=0.1: timm's word; here it is stochastic_depth"),
        ("resnet18", {"num_classes": -1}, "num_classes=-1: must be a whole number"),
        ("resnet18", {"num_classes": True}, "num_classes=True: must be a whole number"),
    ],
)
def test_mistakes_are_one_line(name, options, message):
    with pytest.raises(UserError) as caught:
        create_model(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_submodule_gets_the_name_it_is_given():
    class Program(nn.Module):
        @nn.compact
        def __call__(self, x):
            return create_model("resnet18", num_classes=3, name="bb", stem="small")(x)

    shapes = jax.eval_shape(Program().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    assert list(shapes["params"]) == ["bb"]
    assert create_model("lenet", 7, parent=None, name="tail").name == "tail"
    assert create_model(name="lenet").name is None  # `name` as a keyword is the network's name
    with pytest.raises(TypeError, match="name is missing"):
        create_model(num_classes=3)
