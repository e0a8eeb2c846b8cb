"""ResNet, to be read from top to bottom: the blocks, the network (stem, stages, head), the constructors by name.

`resnet50` and so on are torchvision's networks ("v1.5": a bottleneck's stride is in its 3x3 convolution, not in its
first 1x1). The `d` variants are fastai's xresnet, after He et al. 2018, "Bag of Tricks for Image Classification with
Convolutional Neural Networks", arXiv:1812.01187, section 4.2: they have ResNet-C's stem of three 3x3 convolutions and
ResNet-D's average-pooled shortcut.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.models.attributes import check_outputs, check_share, check_whole
from flax_resnets.models.convolution import Conv, Initializer
from flax_resnets.models.inputs import check_call
from flax_resnets.models.layers import (
    Dropout,
    Linear,
    SqueezeExcite,
    StochasticDepth,
    avg_pool,
    blur_pool,
    global_avg_pool,
    max_pool,
    mish,
    perturbed,
    subsample,
)
from flax_resnets.models.normalization import BatchNorm, ghost_size

Stem = Literal["imagenet", "deep", "small"]
Shortcut = Literal["conv", "avg_pool", "pad"]
Activation = Literal["relu", "silu", "mish", "gelu"]
Remat = Literal["none", "block"]
ModuleDef = Any

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "silu": nn.silu,
    "mish": mish,
    "gelu": partial(nn.gelu, approximate=False),
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
        strides: stride of the block's first 3x3 convolution and of its shortcut.
        dilation: dilation of the block's first 3x3 convolution, and of its second.
        groups, width_per_group, shortcut, zero_init_last, squeeze_excite, blur_pool: see `ResNet`.
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
    squeeze_excite: bool = False
    blur_pool: bool = False
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
        return self.blur_pool and (self.strides == 2 or self.dilation[0] != self.dilation[1])

    def _strided_conv(self, x: jax.Array, name: str) -> jax.Array:
        """The block's first 3x3 convolution. If the block blurs, `_blur` has the stride instead."""
        strides = 1 if self._blurs() else self.strides
        width = self._inner_width()
        return self.conv(width, 3, strides, dilation=self.dilation[0], groups=self.groups, name=name)(x)

    def _blur(self, x: jax.Array) -> jax.Array:
        return blur_pool(x, self.strides) if self._blurs() else x

    def _last_norm(self, name: str) -> nn.Module:
        init = nn.initializers.zeros_init() if self.zero_init_last else nn.initializers.ones_init()
        return self.norm(scale_init=init, name=name)

    def _last_conv(self, *shape: Any, **settings: Any) -> nn.Module:
        """The convolution that ends a pre-activated branch, initialised with 0 if `zero_init_last`.

        A norm with γ = 0 before it would not do: the ReLU between them would pass no gradient.
        """
        start = {"initializer": nn.initializers.zeros_init()} if self.zero_init_last else {}
        return self.conv(*shape, **settings, **start)

    def _branch_end(self, y: jax.Array, train: bool) -> jax.Array:
        if self.squeeze_excite:
            y = SqueezeExcite(y.dtype, name="squeeze_excite")(y)
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
        y = self.conv(self.features, 3, dilation=self.dilation[1], name="conv2")(y)
        y = self._last_norm("norm2")(y, train)
        return self.act(self._branch_end(y, train) + self._shortcut(x, train))


class BottleneckBlock(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution, and a shortcut: He et al. 2015, arXiv:1512.03385, figure 5 right.

    The last convolution has four times as many channels as the others. The 3x3 convolution has the stride.

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
        y = self.conv(self._inner_width(), 1, name="conv1")(x)
        y = self.act(self.norm(name="norm1")(y, train))
        y = self._strided_conv(y, "conv2")
        y = self._blur(self.act(self.norm(name="norm2")(y, train)))
        y = self.conv(self.features * self.expansion, 1, name="conv3")(y)
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
        y = self.conv(self._inner_width(), 1, name="conv1")(y)
        y = self.act(self.norm(name="norm2")(y, train))
        y = self._strided_conv(y, "conv2")
        y = self.act(self.norm(name="norm3")(y, train))
        y = self._last_conv(self.features * self.expansion, 1, name="conv3")(y)
        return self._branch_end(y, train) + shortcut


class ResNet(nn.Module):
    """A residual network: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.

    Args of the call:
        x: `(N, H, W, C)` images, any float dtype, already normalised; any H, W and C. Pixels of 0 to 255 are refused as
            integers, and cannot be told as floats.
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
        width: output channels of the stem; also the `features` of the first stage's blocks.
        stem: `imagenet`: a 7x7 convolution of stride 2 and a max-pool. `deep`: three 3x3 convolutions and a max-pool.
            `small`: one 3x3 convolution of stride 1 and no pool, for images of 28 or 32 pixels (the paper's section
            4.2).
        shortcut: how a shortcut changes the input's shape where that is needed. `conv`: a 1x1 convolution with stride.
            `avg_pool`: a 2x2 average-pool, then a 1x1 convolution of stride 1, so that every pixel is used. `pad`:
            every other pixel, and additional channels of 0, without parameters (the paper's option A).
        zero_init_last: initialise the last norm's γ of each block with 0, so that the block begins as the identity:
            Goyal et al. 2017, arXiv:1706.02677, section 5.1. In pre-activated blocks the last convolution is
            initialised with 0 instead.
        groups, width_per_group: ResNeXt's cardinality and width (Xie et al. 2016, arXiv:1611.05431, table 1). A
            bottleneck's 3x3 convolution has `features * width_per_group / 64 * groups` channels, in `groups` groups.
        squeeze_excite: whether blocks have a `SqueezeExcite`.
        activation: `relu`, `silu`, `mish` or `gelu`.
        blur_pool: blur where the image is halved, and where `output_stride` dilates instead of halving; see `blur_pool`
            in `layers`. Shortcuts do not blur. Both are as in timm.
        stochastic_depth: rate of `StochasticDepth` in the last block. The first block has the rate 0; between them it
            grows linearly.
        dropout: share of the pooled features that training drops before the head.
        output_stride: largest stride of a feature map, 8 or 16. Stages beyond it dilate their convolutions instead of
            halving the image; the parameters are the same. None or 32 for no dilation.
        remat: `block` to compute the inside of each block again in the backward pass, which saves memory; `none` to
            keep it.
        frozen: parts of the network whose norms are frozen in training, such as `("stem", "stage1")`; see `BatchNorm`.
        initializer: see `Conv` and `Linear`.
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
    shortcut: Shortcut = "conv"
    zero_init_last: bool = False
    groups: int = 1
    width_per_group: int = 64
    squeeze_excite: bool = False
    activation: Activation = "relu"
    blur_pool: bool = False
    stochastic_depth: float = 0.0
    dropout: float = 0.0
    output_stride: int | None = None
    remat: Remat = "none"
    frozen: Sequence[str] = ()
    initializer: Initializer = "torchvision"
    batch_norm: str = "global"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(map(str, choices))}")
        check_outputs(self.num_classes, self.dtype)
        for name in ("stochastic_depth", "dropout"):
            check_share(name, getattr(self, name))
        for name in ("width", "groups", "width_per_group"):
            check_whole(name, getattr(self, name))
        if self.stem == "deep" and self.width < 2:
            raise ValueError("width=1: the deep stem begins with half as many channels")
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
        if self.blur_pool and self.block.preactivated:
            raise ValueError("blur_pool=True: pre-activated blocks cannot blur")
        if self.groups > 1 and self.block.expansion == 1:
            raise ValueError(f"groups={self.groups}: only bottleneck blocks have groups")
        ghost_size(self.batch_norm)
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
        conv = partial(Conv, initializer=self.initializer, dtype=self.dtype)
        block = nn.remat(self.block, static_argnums=(2,)) if self.remat == "block" else self.block
        x = perturbed(self, "stem", self._stem(x, train, act, conv))
        outputs = {"stem": x}
        if self.stem != "small":
            x = blur_pool(max_pool(x, strides=1)) if self.blur_pool else max_pool(x)
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
                    blur_pool=self.blur_pool,
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
        x = Dropout(self.dropout, deterministic=not train)(global_avg_pool(x))
        outputs["head"] = Linear(self.num_classes, self.initializer, name="head")(x) if self.num_classes else x
        return outputs

    def _stem(self, x: jax.Array, train: bool, act: Callable[[jax.Array], jax.Array], conv: ModuleDef) -> jax.Array:
        norm = self._norm("stem")
        if self.stem == "imagenet":
            x = conv(self.width, 7, strides=2, name="stem_conv")(x)
        elif self.stem == "small":
            x = conv(self.width, 3, name="stem_conv")(x)
        else:
            x = conv(self.width // 2, 3, strides=2, name="stem_conv1")(x)
            x = act(norm(name="stem_norm1")(x, train))
            x = conv(self.width // 2, 3, name="stem_conv2")(x)
            x = act(norm(name="stem_norm2")(x, train))
            x = conv(self.width, 3, name="stem_conv")(x)
        # A pre-activated block begins with a norm, so the stem has none.
        return x if self.block.preactivated else act(norm(name="stem_norm")(x, train))

    def _norm(self, part: str) -> ModuleDef:
        return partial(
            BatchNorm,
            batch_norm=self.batch_norm,
            axis_name=self.axis_name,
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


_CHOICES: dict[str, tuple[Any, ...]] = {
    "stem": get_args(Stem),
    "shortcut": get_args(Shortcut),
    "activation": get_args(Activation),
    "remat": get_args(Remat),
    "initializer": get_args(Initializer),
    "output_stride": (None, 8, 16, 32),
    "zero_init_last": (True, False),
    "squeeze_excite": (True, False),
    "blur_pool": (True, False),
}

ResNet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
ResNet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
ResNet152 = partial(ResNet, stage_sizes=(3, 8, 36, 3), block=BottleneckBlock)
