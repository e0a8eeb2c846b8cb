"""Table of all networks by name. A new variant is a new line in `MODELS`."""

import dataclasses
import difflib
import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flax import linen as nn

from flax_resnets.errors import UserError
from flax_resnets.models.pretrained import find_pretrained, pretrained_weights
from flax_resnets.models.resnet import (
    BasicBlock,
    PreActBasicBlock,
    PreActBottleneckBlock,
    ResNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
)
from flax_resnets.models.textbook import (
    FCN,
    VGG,
    AlexNet,
    DenseNet,
    GoogLeNet,
    LeNet,
    LeNetBN,
    NiN,
    ResBlockNet,
    ResBlockNetDeep,
)


@dataclass(frozen=True)
class ModelEntry:
    """How to make a network, and facts about it at the sizes for which it was designed.

    Attributes:
        constructor: makes the module; its keywords are the module's attributes.
        parameters: number of parameters, with `num_classes` and `channels`.
        multiply_adds: multiply-adds of convolutions and linear layers, for one image of side `input_size`.
        input_size: side of the images, in pixels.
        source: the paper, and the code or book that the network follows.
        num_classes: number of outputs.
        channels: channels of the images.
    """

    constructor: Callable[..., nn.Module]
    parameters: int
    multiply_adds: int
    input_size: int
    source: str
    num_classes: int = 1000
    channels: int = 3


_TORCHVISION = "He et al. 2015, arXiv:1512.03385, table 1; torchvision's graph (v1.5)"
_XRESNET = "He et al. 2018, arXiv:1812.01187, section 4.2; fastai's xresnet, timm's resnet*d"
_PREACT = "He et al. 2016, arXiv:1603.05027, section 4; timm's resnetv2_*"
_RESNEXT = "Xie et al. 2016, arXiv:1611.05431, table 1; torchvision's graph"
_WIDE = "Zagoruyko and Komodakis 2016, arXiv:1605.07146, section 3.5; torchvision's graph"
_BOTTLENECK_18 = "timm's name for ResNet-18's stages made of bottlenecks; otherwise as its neighbours"
_SE = "Hu et al. 2017, arXiv:1709.01507, section 3.3; timm's seresnet*"
_TIMM_D = "timm's name for such a network with xresnet's stem and shortcut (He et al. 2018, arXiv:1812.01187)"
_TIERED = "timm's resnet*t: as resnet*d, but the stem's convolutions have 24, 32 and 64 channels"
_RESNET_S = "timm's resnet50s, after GluonCV: three 3x3 convolutions of 64, 64 and 128 channels as the stem"
_AA = "Zhang 2019, arXiv:1904.11486, section 3.2; timm's resnetblur* (a blur of 3x3) and resnetaa* (a mean of 2x2)"
_ECA = "Wang et al. 2020, arXiv:1910.03151, section 3; timm's ecaresnet*"
_RS = "Bello et al. 2021, arXiv:2103.07579, section 5; timm's resnetrs*"
_GROUP_NORM = "Wu and He 2018, arXiv:1803.08494; timm's resnet*_gn"
_BIT = "Kolesnikov et al. 2020, arXiv:1912.11370, section 3; timm's resnetv2_*_bit"
_CIFAR = "He et al. 2015, arXiv:1512.03385, section 4.2, with shortcuts without parameters (option A)"
_FASTBOOK = "Howard and Gugger, Deep Learning for Coders with fastai and PyTorch, chapter 14"
_D2L = "Zhang et al., Dive into Deep Learning, section "

# fastai's initialisation. With γ = 0 in the last norm, each block begins as the identity.
_d = partial(partial, stem="deep", shortcut="avg_pool", zero_init_last=True, initializer="fastai")
_t = partial(partial, stem="deep_tiered", shortcut="avg_pool", zero_init_last=True)
_s = partial(partial, stem="deep", stem_channels=128, zero_init_last=True)
_v2_basic = partial(partial, block=PreActBasicBlock)
_v2 = partial(partial, block=PreActBottleneckBlock)
_gn = partial(partial, norm="group")
_bit = partial(
    partial, block=PreActBottleneckBlock, stem_pool="zero_padded_max", norm="group", standardize_weights=True
)
_v2d = partial(_v2, stem="deep", shortcut="avg_pool")
_32x4d = partial(partial, groups=32, width_per_group=4)
_32x8d = partial(partial, groups=32, width_per_group=8)
_64x4d = partial(partial, groups=64, width_per_group=4)
_32x16d = partial(partial, groups=32, width_per_group=16)
_wide = partial(partial, width_per_group=128)
_se = partial(partial, squeeze_excite=True)
_eca = partial(partial, squeeze_excite="eca")
_blur = partial(partial, blur_pool=True)
_aa = partial(partial, blur_pool="average")
_rs = partial(
    partial,
    stem="deep",
    stem_pool="conv",
    shortcut="avg_pool",
    squeeze_excite=True,
    squeeze_ratio=0.25,
    zero_init_last=True,
)
_ResNet10 = partial(ResNet, stage_sizes=(1, 1, 1, 1), block=BasicBlock)
_ResNet14 = partial(ResNet, stage_sizes=(1, 1, 1, 1))
_ResNet26 = partial(ResNet, stage_sizes=(2, 2, 2, 2))
_ResNet200 = partial(ResNet, stage_sizes=(3, 24, 36, 3))
_cifar = partial(ResNet, block=BasicBlock, width=16, stem="small", shortcut="pad")
_vgg11_quarter = partial(VGG, stages=((1, 16), (1, 32), (2, 64), (2, 128), (2, 128)))

MODELS: dict[str, ModelEntry] = {
    "resnet18": ModelEntry(ResNet18, 11_689_512, 1_814_073_344, 224, _TORCHVISION),
    "resnet34": ModelEntry(ResNet34, 21_797_672, 3_663_761_408, 224, _TORCHVISION),
    "resnet50": ModelEntry(ResNet50, 25_557_032, 4_089_184_256, 224, _TORCHVISION),
    "resnet101": ModelEntry(ResNet101, 44_549_160, 7_801_405_440, 224, _TORCHVISION),
    "resnet152": ModelEntry(ResNet152, 60_192_808, 11_513_626_624, 224, _TORCHVISION),
    "resnet18d": ModelEntry(_d(ResNet18), 11_708_744, 2_053_713_920, 224, _XRESNET),
    "resnet34d": ModelEntry(_d(ResNet34), 21_816_904, 3_903_401_984, 224, _XRESNET),
    "resnet50d": ModelEntry(_d(ResNet50), 25_576_264, 4_328_824_832, 224, _XRESNET),
    "resnet101d": ModelEntry(_d(ResNet101), 44_568_392, 8_041_046_016, 224, _XRESNET),
    "resnet152d": ModelEntry(_d(ResNet152), 60_212_040, 11_753_267_200, 224, _XRESNET),
    "resnet200d": ModelEntry(_d(_ResNet200), 64_693_064, 15_247_122_432, 224, _XRESNET),
    "resnet26": ModelEntry(_ResNet26, 15_995_176, 2_342_256_640, 224, _BOTTLENECK_18),
    "resnet26d": ModelEntry(_d(_ResNet26), 16_014_408, 2_581_897_216, 224, _BOTTLENECK_18),
    "resnet10t": ModelEntry(_t(_ResNet10), 5_435_488, 1_097_259_008, 224, _TIERED),
    "resnet14t": ModelEntry(_t(_ResNet14), 10_081_632, 1_676_822_528, 224, _TIERED),
    "resnet26t": ModelEntry(_t(_ResNet26), 16_011_872, 2_550_286_336, 224, _TIERED),
    "resnet50t": ModelEntry(_t(ResNet50), 25_573_728, 4_297_213_952, 224, _TIERED),
    "resnet50s": ModelEntry(_s(ResNet50), 25_680_808, 5_444_337_664, 224, _RESNET_S),
    "resnetblur18": ModelEntry(_blur(ResNet18), 11_689_512, 2_334_298_112, 224, _AA),
    "resnetblur50": ModelEntry(_blur(ResNet50), 25_557_032, 5_129_633_792, 224, _AA),
    "resnetblur50d": ModelEntry(_blur(_d(ResNet50)), 25_576_264, 5_369_274_368, 224, _AA),
    "resnetaa50": ModelEntry(_aa(ResNet50), 25_557_032, 5_129_633_792, 224, _AA),
    "resnetaa50d": ModelEntry(_aa(_d(ResNet50)), 25_576_264, 5_369_274_368, 224, _AA),
    "resnet50_gn": ModelEntry(_gn(ResNet50), 25_557_032, 4_089_184_256, 224, _GROUP_NORM),
    "resnetv2_18": ModelEntry(_v2_basic(ResNet18), 11_687_720, 1_814_073_344, 224, _PREACT),
    "resnetv2_34": ModelEntry(_v2_basic(ResNet34), 21_795_880, 3_663_761_408, 224, _PREACT),
    "resnetv2_50": ModelEntry(_v2(ResNet50), 25_549_352, 4_089_184_256, 224, _PREACT),
    "resnetv2_101": ModelEntry(_v2(ResNet101), 44_541_480, 7_801_405_440, 224, _PREACT),
    "resnetv2_152": ModelEntry(_v2(ResNet152), 60_185_128, 11_513_626_624, 224, _PREACT),
    "resnetv2_50d_gn": ModelEntry(_gn(_v2d(ResNet50)), 25_568_584, 4_328_824_832, 224, _GROUP_NORM),
    "resnetv2_50x1_bit": ModelEntry(_bit(ResNet50, width=64), 25_549_352, 4_089_184_256, 224, _BIT),
    "resnetv2_50x3_bit": ModelEntry(_bit(ResNet50, width=192), 217_319_080, 36_082_286_592, 224, _BIT),
    "resnetv2_101x1_bit": ModelEntry(_bit(ResNet101, width=64), 44_541_480, 7_801_405_440, 224, _BIT),
    "resnetv2_101x3_bit": ModelEntry(_bit(ResNet101, width=192), 387_934_888, 69_492_277_248, 224, _BIT),
    "resnetv2_152x2_bit": ModelEntry(_bit(ResNet152, width=128), 236_335_208, 45_814_382_592, 224, _BIT),
    "resnetv2_152x4_bit": ModelEntry(_bit(ResNet152, width=256), 936_533_224, 182_777_282_560, 224, _BIT),
    "resnext50_32x4d": ModelEntry(_32x4d(ResNet50), 25_028_904, 4_230_479_872, 224, _RESNEXT),
    "resnext101_32x8d": ModelEntry(_32x8d(ResNet101), 88_791_336, 16_414_015_488, 224, _RESNEXT),
    "resnext101_64x4d": ModelEntry(_64x4d(ResNet101), 83_455_272, 15_460_270_080, 224, _RESNEXT),
    "resnext101_32x16d": ModelEntry(_32x16d(ResNet101), 194_026_792, 36_163_289_088, 224, _RESNEXT),
    "resnext50d_32x4d": ModelEntry(_d(_32x4d(ResNet50)), 25_048_136, 4_470_120_448, 224, _TIMM_D),
    "wide_resnet50_2": ModelEntry(_wide(ResNet50), 68_883_240, 11_398_021_120, 224, _WIDE),
    "wide_resnet101_2": ModelEntry(_wide(ResNet101), 126_886_696, 22_753_050_624, 224, _WIDE),
    "seresnet18": ModelEntry(_se(ResNet18), 11_779_624, 1_814_161_408, 224, _SE),
    "seresnet34": ModelEntry(_se(ResNet34), 21_960_416, 3_663_920_128, 224, _SE),
    "seresnet50": ModelEntry(_se(ResNet50), 28_088_024, 4_091_699_200, 224, _SE),
    "seresnet101": ModelEntry(_se(ResNet101), 49_326_872, 7_806_148_608, 224, _SE),
    "seresnet152": ModelEntry(_se(ResNet152), 66_821_848, 11_520_204_800, 224, _SE),
    "seresnext50_32x4d": ModelEntry(_se(_32x4d(ResNet50)), 27_559_896, 4_232_994_816, 224, _SE),
    "seresnext101_32x8d": ModelEntry(_se(_32x8d(ResNet101)), 93_569_048, 16_418_758_656, 224, _SE),
    "seresnext26d_32x4d": ModelEntry(_se(_d(_32x4d(_ResNet26))), 16_809_512, 2_711_740_416, 224, _TIMM_D),
    "ecaresnet26t": ModelEntry(_eca(_t(_ResNet26)), 16_011_916, 2_550_332_928, 224, _ECA),
    "ecaresnet50d": ModelEntry(_eca(_d(ResNet50)), 25_576_350, 4_328_912_640, 224, _ECA),
    "ecaresnet50t": ModelEntry(_eca(_t(ResNet50)), 25_573_814, 4_297_301_760, 224, _ECA),
    "resnetrs50": ModelEntry(_rs(ResNet50), 35_691_912, 4_454_490_112, 224, _RS),
    "resnetrs101": ModelEntry(_rs(ResNet101), 63_618_696, 8_175_624_192, 224, _RS),
    "resnetrs152": ModelEntry(_rs(ResNet152), 86_621_576, 11_895_185_408, 224, _RS),
    "resnet20_cifar": ModelEntry(partial(_cifar, stage_sizes=(3, 3, 3)), 269_722, 40_551_040, 32, _CIFAR, 10, 3),
    "resnet32_cifar": ModelEntry(partial(_cifar, stage_sizes=(5, 5, 5)), 464_154, 68_862_592, 32, _CIFAR, 10, 3),
    "resnet44_cifar": ModelEntry(partial(_cifar, stage_sizes=(7, 7, 7)), 658_586, 97_174_144, 32, _CIFAR, 10, 3),
    "resnet56_cifar": ModelEntry(partial(_cifar, stage_sizes=(9, 9, 9)), 853_018, 125_485_696, 32, _CIFAR, 10, 3),
    "resnet110_cifar": ModelEntry(partial(_cifar, stage_sizes=(18, 18, 18)), 1_727_962, 252_887_680, 32, _CIFAR, 10, 3),
    "fcn": ModelEntry(FCN, 395_674, 20_646_400, 128, _FASTBOOK, 10, 3),
    "resblock_net": ModelEntry(ResBlockNet, 1_226_890, 70_126_080, 128, _FASTBOOK, 10, 3),
    "resblock_net_deep": ModelEntry(ResBlockNetDeep, 2_800_202, 164_497_920, 128, _FASTBOOK, 10, 3),
    "lenet": ModelEntry(LeNet, 61_706, 416_520, 28, _D2L + "7.6", 10, 1),
    "lenet_bn": ModelEntry(LeNetBN, 62_158, 416_520, 28, _D2L + "8.5", 10, 1),
    "alexnet": ModelEntry(AlexNet, 46_764_746, 938_146_176, 224, _D2L + "8.1", 10, 1),
    "vgg11": ModelEntry(VGG, 128_806_154, 7_547_232_256, 224, _D2L + "8.2", 10, 1),
    "vgg11_quarter": ModelEntry(_vgg11_quarter, 43_093_322, 512_155_648, 224, _D2L + "8.2", 10, 1),
    "nin": ModelEntry(NiN, 1_992_166, 762_297_352, 224, _D2L + "8.3", 10, 1),
    "googlenet": ModelEntry(GoogLeNet, 5_977_530, 276_066_304, 96, _D2L + "8.4", 10, 1),
    "densenet": ModelEntry(DenseNet, 758_226, 129_077_168, 96, _D2L + "8.7", 10, 1),
}

# Attributes that the name itself determines. A network with other values comes from its class, under no name here.
_SET_BY_NAME = ("stage_sizes", "block", "stages", "blocks", "growth", "num_classes", "name", "parent")

# Keywords of timm's networks that have another name here, or none.
_IN_TIMM = {
    "in_chans": "the images decide: model.init(key, images), or load_weights(model, source, image_shape=(H, W, C))",
    "features_only": 'any network gives them: model.apply(variables, images, method="features")',
    "drop_path_rate": "it is stochastic_depth",
    "drop_path": "it is stochastic_depth",
    "drop_rate": "it is dropout",
    "act_layer": "it is activation, such as activation='silu'",
    "norm_layer": "it is norm, such as norm='group'",
    "conv_layer": "it is standardize_weights=True",
    "aa_layer": "it is blur_pool, True or 'average'",
    "block_args": "it is squeeze_excite, True or 'eca', and squeeze_ratio",
    "cardinality": "it is groups",
    "base_width": "it is width_per_group",
    "width_factor": "it is width, 64 times the factor",
    "stem_type": "it is stem",
    "stem_width": "it is stem_channels, twice the stem_width of a deep stem",
    "replace_stem_pool": "it is stem_pool='conv'",
    "avg_down": "it is shortcut='avg_pool'",
    "checkpoint_path": "load_weights(model, path) gives the variables",
}


def model_options(name: str) -> list[str]:
    """The keywords that `create_model` accepts for a network: its attributes, except those that its name determines.

    Args:
        name: one of `list_models()`.

    Raises:
        UserError: there is no such network; the message has the nearest names.

    Example:
        >>> model_options("alexnet")
        ['dtype', 'dropout']
    """
    return [field.name for field in dataclasses.fields(_module(name)) if field.name not in _SET_BY_NAME]


def _module(name: str) -> Any:
    """The class of a network."""
    constructor = _entry(name).constructor
    return constructor.func if isinstance(constructor, partial) else constructor


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """The names that `create_model` accepts, if they match a shell pattern; variants of a network follow each other.

    Args:
        pattern: such as `resnet*d`.
        pretrained: whether to list trained weights, such as `resnet18.a1_in1k`: a network's name and a tag, as timm has
            them. `load_classifier` and `load_weights` take these names.

    Raises:
        UserError: `pattern` is not a string.

    Example:
        >>> list_models("resnet18d.*", pretrained=True)
        ['resnet18d.ra2_in1k', 'resnet18d.ra4_e3600_r224_in1k']
        >>> list_models("resnet??d")
        ['resnet18d', 'resnet34d', 'resnet50d', 'resnet26d']
    """
    if not isinstance(pattern, str):
        raise UserError(f"pattern={pattern!r}: must be a string, such as 'resnet*d'; '*' for all")
    return [name for name in (pretrained_weights() if pretrained else MODELS) if fnmatch.fnmatchcase(name, pattern)]


def create_model(
    name: str | None = None, /, num_classes: int = 1000, *, pretrained: bool = False, **overrides: Any
) -> nn.Module:
    """Makes the network of that name, as a linen module.

    Args:
        name: one of `list_models()`; or, with `pretrained`, of `list_models(pretrained=True)`.
        num_classes: outputs of the head; 0 for a network that returns pooled features.
        pretrained: makes the network of trained weights, such as `resnet50.a1_in1k`. A linen module holds no weights:
            `load_weights(model, "resnet50.a1_in1k")` gives them as variables, and `load_classifier` gives both with
            preprocessing and class names.
        **overrides: attributes of the module, such as `stem="small"` or `dtype=jnp.bfloat16`; also `name` (as a
            submodule of another module) and `parent`, which every linen module has.

    Raises:
        UserError: there is no such network or no such weights, the network has no such attribute, or the attribute
            cannot have that value. For a wrong name, the message has the nearest names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = create_model("resnet18", num_classes=10, stem="small")
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
        >>> shapes["params"]["head"]["kernel"].shape
        (512, 10)
        >>> create_model("resnet18", name="backbone").name
        'backbone'
    """
    if name is None:
        if "name" not in overrides:
            raise TypeError("create_model: the network's name is missing; list_models() has them")
        name = str(overrides.pop("name"))  # the network's name, given as a keyword
    if not isinstance(name, str):
        raise UserError(f"model={name!r}: must be a name, such as 'resnet50'; list_models() has them")
    if pretrained or name in pretrained_weights():
        name = _of_pretrained(name, pretrained)
    entry, options = _entry(name), [*model_options(name), "num_classes"]
    for option in overrides:
        if option not in (*options, "name", "parent"):
            known = _IN_TIMM.get(option) if issubclass(_module(name), ResNet) else None
            right = f"timm's word; here {known}" if known else f"{name} has no such option; {_nearest(option, options)}"
            raise UserError(f"{option}={overrides[option]!r}: {right}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise UserError(f"num_classes={num_classes!r}: must be a whole number, 0 for pooled features")
    try:
        return entry.constructor(num_classes=num_classes, **overrides)
    except ValueError as error:  # about an attribute's value; the message names the attribute
        raise UserError(f"{name}: {error}") from error


def _of_pretrained(name: str, pretrained: bool) -> str:
    """The name of the network of trained weights, by their name."""
    if "." not in name:
        _entry(name)
    found = find_pretrained(name)
    if not pretrained:
        raise UserError(
            f"model={name!r}: names trained weights, which a linen module does not hold; create_model({found.model!r}) "
            f"makes the network, load_weights(model, {name!r}) its variables, load_classifier({name!r}) both"
        )
    return found.model


def _entry(name: str) -> ModelEntry:
    if name not in MODELS:
        raise UserError(f"model={name!r}: no such model; {_nearest(name, MODELS, 'list_models() has them')}")
    return MODELS[name]


def _nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    close = difflib.get_close_matches(word, list(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise or f"there are {', '.join(known)}"
