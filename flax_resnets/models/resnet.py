"""ResNet, to be read from top to bottom: the blocks, the network (stem, stages, head), the constructors by name.

`resnet50` and so on are torchvision's networks ("v1.5": a bottleneck's stride is in its 3x3 convolution, not in its
first 1x1, where `stride_on="1x1"` has it). The `d` variants are fastai's xresnet, after He et al. 2018, "Bag of Tricks
for Image Classification with Convolutional Neural Networks", arXiv:1812.01187, section 4.2: they have ResNet-C's stem
of three 3x3 convolutions and ResNet-D's average-pooled shortcut.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.models.attributes import check_outputs, check_share, check_whole
from flax_resnets.models.convolution import Conv, ScaledConv, StandardizedConv
from flax_resnets.models.initializers import Initializer
from flax_resnets.models.inputs import check_call
from flax_resnets.models.layers import (
    Dropout,
    EfficientChannelAttention,
    Linear,
    SqueezeExcite,
    StochasticDepth,
    anti_alias,
    avg_pool,
    global_pool,
    max_pool,
    mish,
    perturbed,
    subsample,
)
from flax_resnets.models.normalization import EPSILON, GROUPS, BatchNorm, GroupNorm, ghost_size, no_norm

Stem = Literal["imagenet", "deep", "deep_tiered", "small"]
StemPool = Literal["max", "zero_padded_max", "conv"]
StrideOn = Literal["3x3", "1x1"]
GlobalPool = Literal["avg", "max", "avgmax", "catavgmax"]
Shortcut = Literal["conv", "avg_pool", "pad"]
Activation = Literal["relu", "silu", "mish", "gelu"]
Norm = Literal["batch", "group", "none"]
Remat = Literal["none", "block"]
ModuleDef = Any

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "silu": nn.silu,
    "mish": mish,
    "gelu": partial(nn.gelu, approximate=False),
}
# 1 divided by the standard deviation of the activation of a normal variable; of ReLU sqrt(2 / (1 - 1 / pi)).
_GAMMAS = {
    "relu": 1.712858550440065,
    "silu": 1.7871872221004421,
    "mish": 1.5920253810994462,
    "gelu": 1.7009262433633332,
}


class ResidualBlock(nn.Module):
    """Base class of the residual blocks: attributes, the shortcut, and the end of the residual branch.

    Args of the call:
        x: `(N, H, W, C)`.
        train: see `BatchNorm`. If `drop_path` is above 0, random numbers come from the `dropout` stream.

    Returns:
        `(N, ceil(H / strides), ceil(W / strides), features * expansion)`.

    Attributes:
        features: width of the stage; its blocks have `features * expansion` output channels.
        strides: stride of the block and of its shortcut.
        dilation: dilation of the block's first 3x3 convolution, and of its second.
        groups, width_per_group, shortcut, zero_init_last, squeeze_excite, squeeze_ratio, blur_pool, stride_on: see
            `ResNet`.
        drop_path: share of the images for which the residual branch is dropped, see `StochasticDepth`.
        act: the activation function.
        conv, norm: `Conv` and `BatchNorm` with the network's settings filled in.
    """

    features: int
    strides: int = 1
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    width_per_group: int = 64
    shortcut: Shortcut = "conv"
    zero_init_last: bool = False
    squeeze_excite: bool | Literal["eca"] = False
    squeeze_ratio: float = 1 / 16
    blur_pool: bool | Literal["average"] = False
    stride_on: StrideOn = "3x3"
    drop_path: float = 0.0
    act: Callable[[jax.Array], jax.Array] = nn.relu
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm

    expansion: ClassVar[int] = 1
    preactivated: ClassVar[bool] = False

    def _inner_width(self) -> int:
        """Channels of the 3x3 convolution: `features`, scaled by `groups` and `width_per_group`."""
        return int(self.features * self.width_per_group / 64) * self.groups

    def _blurs(self) -> bool:
        """Whether this block blurs: if it halves the image, or dilates instead of halving. The latter is as in timm."""
        return bool(self.blur_pool) and (self.strides == 2 or self.dilation[0] != self.dilation[1])

    def _strided_conv(self, x: jax.Array, name: str) -> jax.Array:
        """The block's first 3x3 convolution. If the block blurs, `_blur` has the stride instead."""
        strides = 1 if self._blurs() or self.stride_on == "1x1" else self.strides
        width = self._inner_width()
        return self.conv(width, 3, strides, dilation=self.dilation[0], groups=self.groups, name=name)(x)

    def _first_of_three(self, x: jax.Array) -> jax.Array:
        """A bottleneck's first 1x1 convolution."""
        return self.conv(self._inner_width(), 1, self.strides if self.stride_on == "1x1" else 1, name="conv1")(x)

    def _blur(self, x: jax.Array) -> jax.Array:
        return anti_alias(x, "average" if self.blur_pool == "average" else "blur", self.strides) if self._blurs() else x

    def _last_norm(self, name: str) -> nn.Module:
        init = nn.initializers.zeros_init() if self.zero_init_last else nn.initializers.ones_init()
        return self.norm(scale_init=init, name=name)

    def _last_conv(self, *shape: Any, **settings: Any) -> nn.Module:
        """The convolution that ends a branch, initialised with 0 if `zero_init_last` and no norm follows it.

        In a pre-activated branch a norm with γ = 0 before it would not do: ReLU between them would pass no gradient.
        """
        start = {}
        if self.zero_init_last and self.norm is no_norm:
            start = {"gain_init": nn.initializers.zeros_init()}
        elif self.zero_init_last and self.preactivated:
            start = {"initializer": nn.initializers.zeros_init()}
        return self.conv(*shape, **settings, **start)

    def _branch_end(self, y: jax.Array, train: bool) -> jax.Array:
        if self.squeeze_excite == "eca":
            y = EfficientChannelAttention(y.dtype, name="channel_attention")(y)
        elif self.squeeze_excite:
            y = SqueezeExcite(y.dtype, self.squeeze_ratio, name="squeeze_excite")(y)
        return StochasticDepth(self.drop_path)(y, train)

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        """The input, in the shape of the block's output."""
        features = self.features * self.expansion
        strides = self.strides
        if strides == 1 and x.shape[-1] == features:
            return x
        if self.shortcut == "pad":
            x = subsample(x, strides)
            return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - x.shape[-1])))
        if self.shortcut == "avg_pool" and (strides > 1 or self.dilation[1] > 1):
            x, strides = avg_pool(x, strides), 1
        x = self.conv(features, 1, strides, name="shortcut_conv")(x)
        # The input of a pre-activated shortcut has just been normalised.
        return x if self.preactivated else self.norm(name="shortcut_norm")(x, train)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut: He et al. 2015, arXiv:1512.03385, figure 5 left.

    Takes `(N, H, W, C)` and returns `(N, ceil(H / strides), ceil(W / strides), features)`. For the attributes see
    `ResidualBlock`.

    Example:
        >>> block = BasicBlock(features=8, strides=2)
        >>> x = jnp.ones((1, 6, 6, 4))
        >>> block.init_with_output(jax.random.key(0), x)[0].shape
        (1, 3, 3, 8)
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the block; shapes as in the class."""
        y = self._strided_conv(x, "conv1")
        y = self._blur(self.act(self.norm(name="norm1")(y, train)))
        y = self._last_conv(self.features, 3, dilation=self.dilation[1], name="conv2")(y)
        y = self._last_norm("norm2")(y, train)
        return self.act(self._branch_end(y, train) + self._shortcut(x, train))


class BottleneckBlock(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution, and a shortcut: He et al. 2015, arXiv:1512.03385, figure 5 right.

    The last convolution has four times as many channels as the others. The 3x3 convolution has the stride, or the first
    1x1 convolution, as in the paper and in Caffe's networks: `stride_on`.

    Takes `(N, H, W, C)` and returns `(N, ceil(H / strides), ceil(W / strides), 4 * features)`. For the attributes see
    `ResidualBlock`.

    Example:
        >>> block = BottleneckBlock(features=8, strides=2)
        >>> x = jnp.ones((1, 6, 6, 4))
        >>> block.init_with_output(jax.random.key(0), x)[0].shape
        (1, 3, 3, 32)
    """

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the block; shapes as in the class."""
        y = self._first_of_three(x)
        y = self.act(self.norm(name="norm1")(y, train))
        y = self._strided_conv(y, "conv2")
        y = self._blur(self.act(self.norm(name="norm2")(y, train)))
        y = self._last_conv(self.features * self.expansion, 1, name="conv3")(y)
        y = self._last_norm("norm3")(y, train)
        return self.act(self._branch_end(y, train) + self._shortcut(x, train))


class PreActBasicBlock(ResidualBlock):
    """`BasicBlock` with norm and activation before each convolution: He et al. 2016, arXiv:1603.05027, figure 1b.

    A block's output is neither normalised nor activated; the network does both before the head.
    """

    preactivated: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the block; shapes as in the class."""
        y = self.act(self.norm(name="norm1")(x, train))
        shortcut = self._shortcut(y if self._changes_shape(x) else x, train)
        y = self._strided_conv(y, "conv1")
        y = self.act(self.norm(name="norm2")(y, train))
        y = self._last_conv(self.features, 3, dilation=self.dilation[1], name="conv2")(y)
        return self._branch_end(y, train) + shortcut

    def _changes_shape(self, x: jax.Array) -> bool:
        return self.strides > 1 or x.shape[-1] != self.features * self.expansion


class PreActBottleneckBlock(PreActBasicBlock):
    """`BottleneckBlock` with norm and activation before each convolution: He et al. 2016, arXiv:1603.05027, section 4.

    The convolutions are 1x1, 3x3 and 1x1; otherwise as `PreActBasicBlock`.
    """

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the block; shapes as in the class."""
        y = self.act(self.norm(name="norm1")(x, train))
        shortcut = self._shortcut(y if self._changes_shape(x) else x, train)
        y = self._first_of_three(y)
        y = self.act(self.norm(name="norm2")(y, train))
        y = self._strided_conv(y, "conv2")
        y = self.act(self.norm(name="norm3")(y, train))
        y = self._last_conv(self.features * self.expansion, 1, name="conv3")(y)
        return self._branch_end(y, train) + shortcut


class ResNet(nn.Module):
    """A residual network: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.

    Args of the call:
        x: `(N, H, W, C)` images, any float dtype, already normalised; any H, W and C. Integers bring a warning; floats
            of 0 to 255 cannot be told from others.
        train: whether norms use the statistics of the batch and update `batch_stats`, which must then be mutable; and
            whether `dropout` and `stochastic_depth` are applied. They need a PRNG key: `rngs={"dropout": key}`.

    Returns:
        Logits `(N, num_classes)`, float32; with `num_classes=0` the pooled features `(N, C)`, float32.
        With `method="features"` a dict of feature maps `{"stem", "stage1", ..., "stage4"}`, in `dtype`; their strides
            are in the property `strides`.

    Raises:
        ValueError: an attribute has a value that is not allowed; in a call, see `check_call` in `inputs`.

    Attributes:
        stage_sizes: number of blocks in each stage. From one stage to the next the width doubles and the image halves.
        block: `BasicBlock`, `BottleneckBlock`, `PreActBasicBlock` or `PreActBottleneckBlock`.
        num_classes: outputs of the head; 0 for no head.
        width: the `features` of the first stage's blocks; also output channels of the stem.
        stem: `imagenet`: a 7x7 convolution of stride 2 and a max-pool. `deep`: three 3x3 convolutions and a max-pool;
            the first two have half of the stem's output channels. `deep_tiered`: the same, but the first has three
            eighths, as in timm's `t` variants. `small`: one 3x3 convolution of stride 1 and no pool, for images of 28
            or 32 pixels (the paper's section 4.2).
        stem_channels: output channels of the stem; None for `width`. timm's `stem_width` is half of it in a deep stem.
        stem_pool: how the image is halved after the stem, unless that is `small`. `max`: a 3x3 max-pool of stride 2.
            `zero_padded_max`: the same, but what is outside the image counts as 0, as in BiT (only where an image has
            values below 0 is that another result: in pre-activated networks).
            `conv`: a 3x3 convolution of stride 2, a norm and the activation, as in ResNet-RS (Bello et al. 2021,
            arXiv:2103.07579, section 5).
        shortcut: how a shortcut changes the input's shape where that is needed. `conv`: a 1x1 convolution with stride.
            `avg_pool`: a 2x2 average-pool, then a 1x1 convolution of stride 1, so that every pixel is used. `pad`:
            every other pixel, and additional channels of 0, without parameters (the paper's option A).
        zero_init_last: initialise the last norm's γ of each block with 0, so that the block begins as the identity:
            Goyal et al. 2017, arXiv:1706.02677, section 5.1. In pre-activated blocks the last convolution is
            initialised with 0 instead.
        groups, width_per_group: ResNeXt's cardinality and width (Xie et al. 2016, arXiv:1611.05431, table 1). A
            bottleneck's 3x3 convolution has `features * width_per_group / 64 * groups` channels, in `groups` groups.
        squeeze_excite: True: blocks have a `SqueezeExcite`. `eca`: they have an `EfficientChannelAttention`.
        squeeze_ratio: share of a block's channels that are between the two layers of `SqueezeExcite`.
        activation: `relu`, `silu`, `mish` or `gelu`.
        stride_on: which convolution of a bottleneck has the stride. `3x3` is torchvision's ("v1.5"). `1x1`, the first,
            is the paper's and that of networks from Caffe: detectron2's `STRIDE_IN_1X1`, mmdetection's `style="caffe"`.
        blur_pool: True: blur where the image is halved, and where `output_stride` dilates instead of halving; see
            `blur_pool` in `layers`. `average`: take the mean of 2x2 pixels where the image is halved, also instead of
            the stem's max-pool; see `anti_alias`. Shortcuts do not change. All this is as in timm.
        stochastic_depth: rate of `StochasticDepth` in the last block. The first block has the rate 0; between them it
            grows linearly.
        dropout: share of the pooled features that training drops before the head.
        global_pool: what becomes of the last feature map: `avg` its mean, `max` its maximum, `avgmax` the mean of both,
            `catavgmax` both, so that there are twice as many features.
        output_stride: largest stride of a feature map, 8 or 16. Stages beyond it dilate their convolutions instead of
            halving the image; the parameters are the same. None or 32 for no dilation.
        remat: `block` to compute the inside of each block again in the backward pass, which saves memory; `none` to
            keep it.
        frozen: parts of the network whose norms are frozen in training, such as `("stem", "stage1")`; see `BatchNorm`.
        initializer: see `Conv` and `Linear`.
        norm: `batch`: `BatchNorm`. `group`: `GroupNorm`, whose result for an image does not depend on the batch.
            `none`: no norms; the convolutions are `ScaledConv`. `zero_init_last` sets the last gain of each block to 0.
        standardize_weights: whether convolutions with norms are `StandardizedConv`, as in BiT (Kolesnikov et al. 2020,
            arXiv:1912.11370, section 3.2).
        epsilon: what norms add to the variance.
        batch_norm, axis_name: see `BatchNorm`.
        dtype: dtype of the computation up to the head; parameters and statistics stay float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = ResNet(stage_sizes=(1, 1, 1, 1), block=BasicBlock, num_classes=10, width=8)
        >>> x = jnp.ones((2, 64, 48, 3))
        >>> variables = jax.jit(model.init)(jax.random.key(0), x)
        >>> model.apply(variables, x).shape
        (2, 10)
        >>> logits, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        >>> model.apply(variables, x, method="features")["stage4"].shape, model.strides["stage4"]
        ((2, 2, 2, 64), 32)
    """

    stage_sizes: Sequence[int]
    block: type[ResidualBlock] = BottleneckBlock
    num_classes: int = 1000
    width: int = 64
    stem: Stem = "imagenet"
    stem_channels: int | None = None
    stem_pool: StemPool = "max"
    shortcut: Shortcut = "conv"
    zero_init_last: bool = False
    groups: int = 1
    width_per_group: int = 64
    squeeze_excite: bool | Literal["eca"] = False
    squeeze_ratio: float = 1 / 16
    activation: Activation = "relu"
    stride_on: StrideOn = "3x3"
    blur_pool: bool | Literal["average"] = False
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    global_pool: GlobalPool = "avg"
    output_stride: int | None = None
    remat: Remat = "none"
    frozen: Sequence[str] = ()
    initializer: Initializer = "torchvision"
    norm: Norm = "batch"
    standardize_weights: bool = False
    epsilon: float = EPSILON
    batch_norm: str = "global"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        if isinstance(self.stage_sizes, str) or not isinstance(self.stage_sizes, Sequence) or not self.stage_sizes:
            raise ValueError(f"stage_sizes={self.stage_sizes!r}: must be numbers of blocks, such as (2, 2, 2, 2)")
        for blocks in self.stage_sizes:
            check_whole("stage_sizes", blocks)
        if not (isinstance(self.block, type) and issubclass(self.block, ResidualBlock)):
            raise ValueError(f"block={self.block!r}: must be a class of blocks, such as BasicBlock")
        for name, choices in _CHOICES.items():
            if getattr(self, name) is None and "none" in choices:
                setattr(self, name, "none")  # on a command line the two are the same word
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(map(str, choices))}")
        check_outputs(self.num_classes, self.dtype)
        for name in ("stochastic_depth", "dropout", "squeeze_ratio"):
            check_share(name, getattr(self, name))
        for name in ("width", "groups", "width_per_group"):
            check_whole(name, getattr(self, name))
        if self.stem_channels is not None:
            check_whole("stem_channels", self.stem_channels)
        if 0 in _stem_widths(self):
            name = "width" if self.stem_channels is None else "stem_channels"
            share, least = {"deep": ("half", 2), "deep_tiered": ("three eighths", 8)}[self.stem]
            raise ValueError(
                f"{name}={_stem_widths(self)[-1]}: the deep stem begins with {share} as many channels; "
                f"must be at least {least}"
            )
        if self.width * self.width_per_group < 64:
            raise ValueError(
                f"width={self.width}: with width_per_group={self.width_per_group} leaves a group without channels; "
                f"must be at least {-(-64 // self.width_per_group)}"
            )
        parts = ("stem", *(f"stage{i + 1}" for i in range(len(self.stage_sizes))), "head")
        if isinstance(self.frozen, str) or not isinstance(self.frozen, Sequence):
            raise ValueError(f"frozen={self.frozen!r}: must be a tuple of parts, such as ('stem', 'stage1')")
        for part in self.frozen:
            if part not in parts:
                raise ValueError(f"frozen={part!r}: must be one of {', '.join(parts)}")
        if self.frozen and self.norm != "batch":
            raise ValueError(f"frozen={self.frozen!r}: norm={self.norm!r} has no running statistics; must be ()")
        if self.blur_pool and self.block.preactivated:
            raise ValueError(f"blur_pool={self.blur_pool!r}: pre-activated blocks cannot blur; must be False")
        if self.stem_pool == "conv" and (self.blur_pool or self.block.preactivated):
            kind = "pre-activated" if self.block.preactivated else "blurring"
            raise ValueError(f"stem_pool='conv': a {kind} network has no such pool; must be max")
        if self.stem_pool == "zero_padded_max" and self.blur_pool == "average":
            raise ValueError("stem_pool='zero_padded_max': blur_pool='average' is in its place; must be max")
        if self.groups > 1 and self.block.expansion == 1:
            raise ValueError(f"groups={self.groups}: only bottleneck blocks have groups; must be 1")
        if self.stride_on == "1x1" and (self.blur_pool or self.block.expansion == 1):
            reason = "a block that blurs has its stride in the blur" if self.blur_pool else "only bottlenecks have one"
            raise ValueError(f"stride_on='1x1': {reason}; must be 3x3")
        if not isinstance(self.epsilon, float) or not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon!r}: must be above 0 and below 1, such as 1e-5")
        ghost_size(self.batch_norm)
        if self.norm != "batch" and self.batch_norm != "global":
            raise ValueError(
                f"batch_norm={self.batch_norm!r}: norm={self.norm!r} has no statistics of a batch; must be global"
            )
        if self.norm == "group":
            inner = int(self.width * self.width_per_group / 64) * self.groups
            for channels in (*_stem_widths(self), self.width, inner):
                if channels % GROUPS:
                    raise ValueError(
                        f"norm='group': {channels} channels are not a multiple of its {GROUPS} groups; "
                        "must be batch or none"
                    )
        if self.standardize_weights and self.norm != "none" and self.zero_init_last and self.block.preactivated:
            raise ValueError(
                "standardize_weights=True: a kernel of 0, as zero_init_last makes it, has no variance; must be False"
            )
        super().__post_init__()

    @property
    def strides(self) -> dict[str, int]:
        """Stride of each feature map of `features`: pixels of the image between two neighbouring positions."""
        stride = 1 if self.stem == "small" else 2
        strides = {"stem": stride}
        stride = 1 if self.stem == "small" else 4
        for i in range(len(self.stage_sizes)):
            stride *= self._stage_geometry()[i][0]
            strides[f"stage{i + 1}"] = stride
        return strides

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Classifies images; shapes as in the class."""
        return self._forward(x, train)["head"]

    def features(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The feature maps `stem` (before any max-pool) and `stage1` to `stage4`; shapes as in the class."""
        outputs = self._forward(x, train)
        del outputs["head"]
        return outputs

    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """What `features` returns, and `head`: what a call returns. The textbook networks have this method too."""
        return self._forward(x, train)

    @nn.compact
    def _forward(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        check_call(self, x, train)
        act = _ACTIVATIONS[self.activation]
        conv: ModuleDef = StandardizedConv if self.standardize_weights else Conv
        if self.norm == "none":
            conv = partial(ScaledConv, gamma=_GAMMAS[self.activation])
        conv = partial(conv, initializer=self.initializer, dtype=self.dtype)
        block = nn.remat(self.block, static_argnums=(2,)) if self.remat == "block" else self.block
        x = perturbed(self, "stem", self._stem(x, train, act, conv))
        outputs = {"stem": x}
        if self.stem != "small":
            x = self._stem_pool(x, train, act, conv)
        blocks_before = 0
        for i, ((strides, dilation_before, dilation), blocks) in enumerate(
            zip(self._stage_geometry(), self.stage_sizes, strict=True)
        ):
            for j in range(blocks):
                x = block(
                    self.width * 2**i,
                    strides=strides if j == 0 else 1,
                    dilation=(dilation_before if j == 0 else dilation, dilation),
                    groups=self.groups,
                    width_per_group=self.width_per_group,
                    shortcut=self.shortcut,
                    zero_init_last=self.zero_init_last,
                    squeeze_excite=self.squeeze_excite,
                    squeeze_ratio=self.squeeze_ratio,
                    blur_pool=self.blur_pool,
                    stride_on=self.stride_on,
                    drop_path=self.stochastic_depth * blocks_before / max(sum(self.stage_sizes) - 1, 1),
                    act=act,
                    conv=conv,
                    norm=self._norm(f"stage{i + 1}"),
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train)
                blocks_before += 1
            outputs[f"stage{i + 1}"] = x = perturbed(self, f"stage{i + 1}", x)
        if self.block.preactivated:
            x = act(self._norm("head")(name="head_norm")(x, train))
        x = Dropout(self.dropout, deterministic=not train)(global_pool(x, self.global_pool))
        outputs["head"] = Linear(self.num_classes, self.initializer, name="head")(x) if self.num_classes else x
        return outputs

    def _stem(self, x: jax.Array, train: bool, act: Callable[[jax.Array], jax.Array], conv: ModuleDef) -> jax.Array:
        norm = self._norm("stem")
        *first, last = _stem_widths(self)
        if self.stem == "imagenet":
            x = conv(last, 7, strides=2, name="stem_conv")(x)
        elif self.stem == "small":
            x = conv(last, 3, name="stem_conv")(x)
        else:
            x = conv(first[0], 3, strides=2, name="stem_conv1")(x)
            x = act(norm(name="stem_norm1")(x, train))
            x = conv(first[1], 3, name="stem_conv2")(x)
            x = act(norm(name="stem_norm2")(x, train))
            x = conv(last, 3, name="stem_conv")(x)
        # A pre-activated block begins with a norm, so the stem has none.
        return x if self.block.preactivated else act(norm(name="stem_norm")(x, train))

    def _stem_pool(
        self, x: jax.Array, train: bool, act: Callable[[jax.Array], jax.Array], conv: ModuleDef
    ) -> jax.Array:
        if self.stem_pool == "conv":
            x = conv(x.shape[-1], 3, strides=2, name="stem_pool_conv")(x)
            return act(self._norm("stem")(name="stem_pool_norm")(x, train))
        if self.blur_pool == "average":
            return anti_alias(x, "average")
        padding = 1
        if self.stem_pool == "zero_padded_max":
            x, padding = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 0
        if self.blur_pool:
            return anti_alias(max_pool(x, 1, padding=padding), "blur")
        return max_pool(x, padding=padding)

    def _norm(self, part: str) -> ModuleDef:
        if self.norm == "none":
            return no_norm
        if self.norm == "group":
            return partial(GroupNorm, epsilon=self.epsilon, dtype=self.dtype)
        return partial(
            BatchNorm,
            batch_norm=self.batch_norm,
            axis_name=self.axis_name,
            epsilon=self.epsilon,
            frozen=part in self.frozen,
            dtype=self.dtype,
        )

    def _stage_geometry(self) -> list[tuple[int, int, int]]:
        """For each stage: its stride, the dilation of its first convolution, and the dilation of the others."""
        stride, dilation, geometry = 1 if self.stem == "small" else 4, 1, []
        for i in range(len(self.stage_sizes)):
            before, strides = dilation, 1 if i == 0 else 2
            if self.output_stride is not None and stride * strides > self.output_stride:
                strides, dilation = 1, dilation * 2
            stride *= strides
            geometry.append((strides, before, dilation))
        return geometry


def _stem_widths(network: ResNet) -> list[int]:
    """Output channels of the stem's convolutions.

    Not a method: Flax does not let an interceptor, such as a summary's, call methods of a module that is being made.
    """
    last = network.width if network.stem_channels is None else network.stem_channels
    first = {"deep": [last // 2] * 2, "deep_tiered": [3 * (last // 8), last // 2]}
    return [*first.get(network.stem, []), last]


_CHOICES: dict[str, tuple[Any, ...]] = {
    "stem": get_args(Stem),
    "stem_pool": get_args(StemPool),
    "shortcut": get_args(Shortcut),
    "stride_on": get_args(StrideOn),
    "global_pool": get_args(GlobalPool),
    "activation": get_args(Activation),
    "norm": get_args(Norm),
    "standardize_weights": (True, False),
    "remat": get_args(Remat),
    "initializer": get_args(Initializer),
    "output_stride": (None, 8, 16, 32),
    "zero_init_last": (True, False),
    "squeeze_excite": (True, False, "eca"),
    "blur_pool": (True, False, "average"),
}

ResNet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
ResNet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
ResNet152 = partial(ResNet, stage_sizes=(3, 8, 36, 3), block=BottleneckBlock)
