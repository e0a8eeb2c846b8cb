"""ResNet, read top to bottom: the stem, the blocks, the four stages, the head, and the networks by name.

The graph without suffix is torchvision's ("v1.5": the stride of a bottleneck sits on its 3x3, not on its first 1x1).
The `d` form is fastai's xresnet, after He et al. 2018, "Bag of Tricks for Image Classification with Convolutional
Neural Networks", arXiv:1812.01187, section 4.2: ResNet-C's stem of three 3x3 and ResNet-D's average-pooled shortcut.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.models.layers import (
    BatchNorm,
    Conv,
    Initializer,
    Linear,
    avg_pool,
    ghost_size,
    global_avg_pool,
    max_pool,
)

Stem = Literal["imagenet", "deep", "small"]
Shortcut = Literal["conv", "avg_pool"]
ModuleDef = Any


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the input is carried: He et al. 2015, arXiv:1512.03385, figure 5 left.

    Args of the call:
        x: `(N, H, W, C)`.
        train: see `BatchNorm`.

    Returns:
        `(N, ceil(H / strides), ceil(W / strides), features * expansion)`.

    Attributes:
        features: width of the 3x3 convolutions.
        strides: of the first convolution, and of the shortcut.
        shortcut: what carries the input where the shape changes: `conv`, a strided 1x1; `avg_pool`, a 2x2
            average-pool, then an unstrided 1x1, so that no pixel is skipped.
        zero_init_last: start the last norm's γ at 0, and with it the block as the identity: Goyal et al. 2017,
            arXiv:1706.02677, section 5.1.
        conv, norm: `Conv` and `BatchNorm` with the network's settings filled in.
    """

    features: int
    strides: int = 1
    shortcut: Shortcut = "conv"
    zero_init_last: bool = False
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm

    expansion: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block; shapes as in the class."""
        y = self.conv(self.features, 3, self.strides, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.norm(name="norm2", scale_init=_last_scale(self.zero_init_last))(y, train)
        return nn.relu(y + _shortcut(self, x, train))


class BottleneckBlock(nn.Module):
    """1x1 down, 3x3, 1x1 up to four times the width: He et al. 2015, arXiv:1512.03385, figure 5 right.

    Arguments, attributes and result as `BasicBlock`'s, with `expansion` 4; the stride sits on the 3x3.
    """

    features: int
    strides: int = 1
    shortcut: Shortcut = "conv"
    zero_init_last: bool = False
    conv: ModuleDef = Conv
    norm: ModuleDef = BatchNorm

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Apply the block; shapes as in the class."""
        y = self.conv(self.features, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="norm1")(y, train))
        y = self.conv(self.features, 3, self.strides, name="conv2")(y)
        y = nn.relu(self.norm(name="norm2")(y, train))
        y = self.conv(self.features * self.expansion, 1, name="conv3")(y)
        y = self.norm(name="norm3", scale_init=_last_scale(self.zero_init_last))(y, train)
        return nn.relu(y + _shortcut(self, x, train))


def _last_scale(zero: bool) -> nn.initializers.Initializer:
    return nn.initializers.zeros_init() if zero else nn.initializers.ones_init()


def _shortcut(block: BasicBlock | BottleneckBlock, x: jax.Array, train: bool) -> jax.Array:
    """The block's input, brought to its output's shape where the two differ. Called within the block's scope."""
    features = block.features * block.expansion
    if block.strides == 1 and x.shape[-1] == features:
        return x
    strides = block.strides
    if block.shortcut == "avg_pool" and strides > 1:
        x, strides = avg_pool(x), 1
    x = block.conv(features, 1, strides, name="shortcut_conv")(x)
    return block.norm(name="shortcut_norm")(x, train)


class ResNet(nn.Module):
    """A residual network: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, table 1.

    Args of the call:
        x: `(N, H, W, C)` images, any float dtype, already normalised; any H, W and C.
        train: normalise by the batch and update `batch_stats`, which must then be mutable.

    Returns:
        Logits `(N, num_classes)`, float32; with `num_classes=0` the pooled features `(N, C)`, float32.
        `method="features"` gives `{"stem", "stage1", ..., "stage4"}`, feature maps at strides 2, 4, 8, 16, 32
        (1, 1, 2, 4, 8 with the small stem) in `dtype`.

    Raises:
        ValueError: an attribute has a value it cannot have.

    Attributes:
        stage_sizes: blocks in each stage; the width doubles and the image halves from one stage to the next.
        block: `BasicBlock` or `BottleneckBlock`.
        num_classes: outputs of the head; 0 for no head.
        width: channels of the stem's output and of the first stage's 3x3.
        stem: `imagenet`, a 7x7 of stride 2 and a max-pool; `deep`, three 3x3 and a max-pool; `small`, one 3x3 of
            stride 1 and no pool, for images of 28 or 32 pixels (the paper's section 4.2).
        shortcut, zero_init_last: see `BasicBlock`.
        initializer: see `Conv` and `Linear`.
        batch_norm, axis_name: see `BatchNorm`.
        dtype: of the computation up to the head; parameters and statistics stay float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = ResNet(stage_sizes=(1, 1, 1, 1), block=BasicBlock, num_classes=10, width=8)
        >>> x = jnp.ones((2, 64, 48, 3))
        >>> variables = model.init(jax.random.key(0), x)
        >>> model.apply(variables, x).shape
        (2, 10)
        >>> logits, updates = model.apply(variables, x, train=True, mutable=["batch_stats"])
        >>> model.apply(variables, x, method="features")["stage4"].shape
        (2, 2, 2, 64)
    """

    stage_sizes: Sequence[int]
    block: type[BasicBlock] | type[BottleneckBlock] = BottleneckBlock
    num_classes: int = 1000
    width: int = 64
    stem: Stem = "imagenet"
    shortcut: Shortcut = "conv"
    zero_init_last: bool = False
    initializer: Initializer = "torchvision"
    batch_norm: str = "global"
    axis_name: str | None = None
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        for name, choices in (("stem", Stem), ("shortcut", Shortcut), ("initializer", Initializer)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name}={getattr(self, name)!r}: must be one of {', '.join(get_args(choices))}")
        ghost_size(self.batch_norm)
        super().__post_init__()

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Classify images; shapes as in the class."""
        return self._forward(x, train)["head"]

    def features(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The feature maps `stem` (before any max-pool) and `stage1` to `stage4`; shapes as in the class."""
        outputs = self._forward(x, train)
        del outputs["head"]
        return outputs

    @nn.compact
    def _forward(self, x: jax.Array, train: bool) -> dict[str, jax.Array]:
        conv = partial(Conv, initializer=self.initializer, dtype=self.dtype)
        norm = partial(BatchNorm, batch_norm=self.batch_norm, axis_name=self.axis_name, dtype=self.dtype)
        x = self._stem(x, train, conv, norm)
        outputs = {"stem": x}
        if self.stem != "small":
            x = max_pool(x)
        for i, blocks in enumerate(self.stage_sizes):
            for j in range(blocks):
                x = self.block(
                    self.width * 2**i,
                    strides=2 if i > 0 and j == 0 else 1,
                    shortcut=self.shortcut,
                    zero_init_last=self.zero_init_last,
                    conv=conv,
                    norm=norm,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train)
            outputs[f"stage{i + 1}"] = x
        outputs["head"] = global_avg_pool(x)
        if self.num_classes:
            outputs["head"] = Linear(self.num_classes, self.initializer, name="head")(outputs["head"])
        return outputs

    def _stem(self, x: jax.Array, train: bool, conv: ModuleDef, norm: ModuleDef) -> jax.Array:
        if self.stem == "imagenet":
            x = conv(self.width, 7, strides=2, name="stem_conv")(x)
        elif self.stem == "small":
            x = conv(self.width, 3, name="stem_conv")(x)
        else:
            x = conv(self.width // 2, 3, strides=2, name="stem_conv1")(x)
            x = nn.relu(norm(name="stem_norm1")(x, train))
            x = conv(self.width // 2, 3, name="stem_conv2")(x)
            x = nn.relu(norm(name="stem_norm2")(x, train))
            x = conv(self.width, 3, name="stem_conv")(x)
        return nn.relu(norm(name="stem_norm")(x, train))


ResNet18 = partial(ResNet, stage_sizes=(2, 2, 2, 2), block=BasicBlock)
ResNet34 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BasicBlock)
ResNet50 = partial(ResNet, stage_sizes=(3, 4, 6, 3), block=BottleneckBlock)
ResNet101 = partial(ResNet, stage_sizes=(3, 4, 23, 3), block=BottleneckBlock)
ResNet152 = partial(ResNet, stage_sizes=(3, 8, 36, 3), block=BottleneckBlock)
