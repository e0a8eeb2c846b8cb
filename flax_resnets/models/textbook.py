"""The plain networks of two textbooks, in the order of the books.

`fcn`, `resblock_net` and `resblock_net_deep` are from Howard and Gugger, *Deep Learning for Coders with fastai and
PyTorch*, chapter 14. The others are from Zhang, Lipton, Li and Smola, *Dive into Deep Learning* (d2l), chapters 7
(LeNet) and 8; each has a section there. The book trains them on Fashion-MNIST: one channel, ten classes.

Weights are initialised as in the books: d2l draws kernels from Xavier's uniform distribution, the other book uses
fastai's defaults. Images are flattened in the order H, W, C. A fully connected layer that was trained on NCHW, as in
torch, therefore needs its inputs reordered.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.typing import Dtype

from flax_resnets.models.attributes import check_outputs, check_share, check_whole
from flax_resnets.models.convolution import Conv, convolve, has_known_size
from flax_resnets.models.initializers import scaled
from flax_resnets.models.inputs import check_call
from flax_resnets.models.layers import Dropout, Linear, global_avg_pool, max_pool, perturbed, sum_pool
from flax_resnets.models.normalization import BatchNorm, ghost_size
from flax_resnets.models.resnet import BasicBlock

_Step = Callable[[str, jax.Array], jax.Array]


class Textbook(nn.Module):
    """Base class of the textbook networks. It can return the output of every step.

    Args of the call:
        x: `(N, H, W, C)`, any float dtype.
        train: apply dropout, with random numbers from the `dropout` stream, and normalise by this batch's statistics.

    Returns:
        Logits `(N, num_classes)`, float32; with `num_classes=0` the input of the missing last layer, `(N, features)`.
        With `method="layers"` a dict of the outputs of all steps, in order, as the books print their shapes. An
        activation function is part of the step before it. (Under `jax.jit` a dict comes back sorted by name.)

    Raises:
        ValueError: the image is smaller than a window of the network. When the network is made: an attribute has a
            value that is not allowed.

    Attributes:
        num_classes: number of outputs; 0 for no last layer.
        dtype: dtype of the computation up to the last layer; parameters stay float32.

    Example:
        >>> model = LeNet()
        >>> x = jnp.ones((1, 28, 28, 1))
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), x)  # shapes alone: nothing is computed
        >>> jax.eval_shape(model.apply, variables, x).shape
        (1, 10)
        >>> steps = jax.eval_shape(lambda variables: model.apply(variables, x, method="layers"), variables)
        >>> steps["pool2"].shape, steps["flatten"].shape
        ((1, 5, 5, 16), (1, 400))
    """

    num_classes: int = 10
    dtype: Dtype = jnp.float32

    def __post_init__(self):
        check_outputs(self.num_classes, self.dtype)
        super().__post_init__()

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Classifies images; shapes as in the class."""
        check_call(self, x, train)
        return list(self.layers(x, train).values())[-1]

    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """The outputs of all steps, by name and in order; the last one is what a call returns."""
        raise NotImplementedError

    def _steps(self) -> tuple[dict[str, jax.Array], _Step]:
        """An empty dict, and a function that adds the output of a step to it, by its name, and returns the output."""
        out = {}

        def step(name: str, x: jax.Array) -> jax.Array:
            out[name] = perturbed(self, name, x)
            return out[name]

        return out, step


class NormedTextbook(Textbook):
    """A `Textbook` network that has batch normalisation.

    Attributes:
        batch_norm, axis_name: see `BatchNorm`.
    """

    batch_norm: str = "global"
    axis_name: str | None = None

    def __post_init__(self):
        ghost_size(self.batch_norm)
        super().__post_init__()

    def _norm(self, name: str | None = None) -> BatchNorm:
        return BatchNorm(batch_norm=self.batch_norm, axis_name=self.axis_name, dtype=self.dtype, name=name)


_XAVIER_UNIFORM = scaled(1.0, "fan_avg", "uniform")  # the same as torch's xavier_uniform_, which d2l calls


def _conv(features: int, size: int, strides: int = 1, padding: int = 0, *, dtype: Dtype, name: str) -> nn.Conv:
    """The convolution of d2l's networks: with a bias, and padding in pixels."""
    return nn.Conv(
        features,
        (size, size),
        strides,
        padding=((padding, padding), (padding, padding)),
        kernel_init=_XAVIER_UNIFORM,
        dtype=dtype,
        conv_general_dilated=_convolve,
        name=name,
    )


def _convolve(lhs: jax.Array, rhs: jax.Array, window_strides: Any, padding: Any, **_: Any) -> jax.Array:
    """Takes the place of `jax.lax.conv_general_dilated` in linen's `Conv`: `convolve` is faster on CPUs."""
    return convolve(lhs, rhs, window_strides[0], padding[0][0])


def _dense(features: int, *, dtype: Dtype = jnp.float32, name: str) -> nn.Dense:
    """The fully connected layer of d2l's networks. The last layer of a network keeps the default dtype, float32."""
    return nn.Dense(features, kernel_init=_XAVIER_UNIFORM, dtype=dtype, name=name)


def _pool(x: jax.Array, size: int, strides: int, *, average: bool = False) -> jax.Array:
    """A pool without padding. Rows and columns that do not fill a window are left out. An average needs `size=2`."""
    if any(side < size for side in x.shape[1:3] if isinstance(side, int)):
        raise ValueError(f"the image is too small: {x.shape[1]} x {x.shape[2]} is left for a window of {size} x {size}")
    if average:
        return sum_pool(x, strides) / 4
    return max_pool(x, strides, size, padding=0)


def _flatten(x: jax.Array) -> jax.Array:
    if not has_known_size(x):
        raise ValueError(
            "images of symbolic height or width: a fully connected layer has weights for one size; export with numbers "
            "for height and width (the batch may be symbolic)"
        )
    return x.reshape(x.shape[0], -1)


def _fastai_conv(*shape: Any, name: str, **settings: Any) -> Conv:
    """The convolution of fastai's `ConvLayer`. Its initializer depends on what follows: a ReLU, or a block's sum."""
    followed_by_relu = name in ("conv", "conv1")
    return Conv(*shape, **settings, initializer=_KAIMING_UNIFORM if followed_by_relu else _TORCH_DEFAULT, name=name)


# Initializers: that of He et al. 2015, arXiv:1502.01852, section 2.2, and torch's default for a Conv2d, which has a
# sixth of its variance. fastai's init_linear chooses between them (fastai/layers.py), and its `_get_norm` initialises β
# with 1e-3.
_KAIMING_UNIFORM = scaled(2.0, "fan_in", "uniform")
_TORCH_DEFAULT = scaled(1 / 3, "fan_in", "uniform")
_FASTAI_BETA = nn.initializers.constant(1e-3)


class ConvLayer(nn.Module):
    """fastai's `ConvLayer`: a 3x3 convolution without bias, batch normalisation, ReLU.

    `(N, H, W, C)` to `(N, ceil(H / strides), ceil(W / strides), features)`.

    Attributes:
        features: output channels.
        strides: stride of the convolution.
        conv, norm: `Conv` and `BatchNorm` with the network's settings filled in.
    """

    features: int
    strides: int = 1
    conv: partial = partial(_fastai_conv)
    norm: partial = partial(BatchNorm, bias_init=_FASTAI_BETA)

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Applies the layer; shapes as in the class."""
        x = self.conv(self.features, 3, self.strides, name="conv")(x)
        return nn.relu(self.norm(name="norm")(x, train))


class FCN(NormedTextbook):
    """Five `ConvLayer`s with stride 2 and 16 to 256 channels, a global average-pool and a linear layer.

    It is fully convolutional and takes images of any size: *Deep Learning for Coders*, chapter 14, "Going Back to
    Imagenette". With `blocks` above 0 it is the network of "Building a Modern CNN: ResNet" in the same chapter: each
    stage consists of residual blocks. These are `BasicBlock`s with an average-pooled shortcut, whose last γ is
    initialised with 0.

    Attributes:
        blocks: residual blocks in each stage, of which the first has stride 2; 0 for one `ConvLayer` in each stage.

    Example:
        >>> model = FCN(blocks=1)
        >>> logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), jnp.ones((1, 128, 96, 3)))
        >>> logits.shape, sorted(variables["params"])[:2]
        ((1, 10), ['head', 'stage1_block1'])
    """

    blocks: int = 0

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`stage1` to `stage5`, `pool`, `head`."""
        conv = partial(_fastai_conv, dtype=self.dtype)
        norm = partial(
            BatchNorm,
            batch_norm=self.batch_norm,
            axis_name=self.axis_name,
            bias_init=_FASTAI_BETA,
            dtype=self.dtype,
        )
        residual = partial(BasicBlock, shortcut="avg_pool", zero_init_last=True, conv=conv, norm=norm)
        out, step = self._steps()
        for i, features in enumerate((16, 32, 64, 128, 256), start=1):
            if self.blocks == 0:
                x = ConvLayer(features, strides=2, conv=conv, norm=norm, name=f"stage{i}")(x, train)
            for j in range(self.blocks):
                x = residual(features, strides=2 if j == 0 else 1, name=f"stage{i}_block{j + 1}")(x, train)
            x = step(f"stage{i}", x)
        x = step("pool", global_avg_pool(x))
        if self.num_classes:
            step("head", Linear(self.num_classes, name="head")(x))
        return out


ResBlockNet = partial(FCN, blocks=1)
ResBlockNetDeep = partial(FCN, blocks=2)


class LeNet(Textbook):
    """Two 5x5 convolutions with sigmoids and average-pools, and three fully connected layers: d2l, section 7.6.

    LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", figure 2. For images of 28 pixels.

    Attributes:
        padding: padding of the first convolution, in pixels.
    """

    padding: int = 2

    def __post_init__(self):
        check_whole("padding", self.padding, least=0)
        super().__post_init__()

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`conv1`, `pool1`, `conv2`, `pool2`, `flatten`, `dense1`, `dense2`, `head`."""
        conv, dense = partial(_conv, dtype=self.dtype), partial(_dense, dtype=self.dtype)
        out, step = self._steps()
        x = step("conv1", nn.sigmoid(self._normed(conv(6, 5, 1, self.padding, name="conv1")(x), "norm1", train)))
        x = step("pool1", _pool(x, 2, 2, average=True))
        x = step("conv2", nn.sigmoid(self._normed(conv(16, 5, name="conv2")(x), "norm2", train)))
        x = step("pool2", _pool(x, 2, 2, average=True))
        x = step("flatten", _flatten(x))
        x = step("dense1", nn.sigmoid(self._normed(dense(120, name="dense1")(x), "norm3", train)))
        x = step("dense2", nn.sigmoid(self._normed(dense(84, name="dense2")(x), "norm4", train)))
        if self.num_classes:
            step("head", _dense(self.num_classes, name="head")(x))
        return out

    def _normed(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return x


class LeNetBN(LeNet, NormedTextbook):
    """`LeNet` with batch normalisation before each sigmoid: d2l, section 8.5.

    The code in that section also has no padding in the first convolution; `padding=0` gives that network.
    """

    def _normed(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return self._norm(name)(x, train)


class AlexNet(Textbook):
    """Five convolutions and three fully connected layers: d2l, section 8.1. For images of 224 pixels.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.5, on one
    device and without local response normalisation.

    Attributes:
        dropout: share of the outputs of both hidden layers that training drops.
    """

    dropout: float = 0.5

    def __post_init__(self):
        check_share("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`conv1`, `pool1`, `conv2`, `pool2`, `conv3` to `conv5`, `pool3`, `flatten`, `dense1`, `dense2`, `head`."""
        conv = partial(_conv, dtype=self.dtype)
        out, step = self._steps()
        x = step("conv1", nn.relu(conv(96, 11, 4, 1, name="conv1")(x)))
        x = step("pool1", _pool(x, 3, 2))
        x = step("conv2", nn.relu(conv(256, 5, 1, 2, name="conv2")(x)))
        x = step("pool2", _pool(x, 3, 2))
        x = step("conv3", nn.relu(conv(384, 3, 1, 1, name="conv3")(x)))
        x = step("conv4", nn.relu(conv(384, 3, 1, 1, name="conv4")(x)))
        x = step("conv5", nn.relu(conv(256, 3, 1, 1, name="conv5")(x)))
        x = step("pool3", _pool(x, 3, 2))
        _two_hidden_layers(x, self, train, step)
        return out


class VGG(Textbook):
    """Blocks of 3x3 convolutions, and AlexNet's fully connected layers. Each block halves the image.

    d2l, section 8.2; Simonyan and Zisserman 2014, arXiv:1409.1556, table 1. The default is column A of the table,
    VGG-11.

    Attributes:
        stages: for each block, its number of convolutions and their channels.
        dropout: see `AlexNet`.
    """

    stages: Sequence[tuple[int, int]] = ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512))
    dropout: float = 0.5

    def __post_init__(self):
        check_share("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`block1` to `block5`, `flatten`, `dense1`, `dense2`, `head`."""
        out, step = self._steps()
        for i, (convolutions, features) in enumerate(self.stages, start=1):
            for j in range(convolutions):
                x = nn.relu(_conv(features, 3, 1, 1, dtype=self.dtype, name=f"block{i}_conv{j + 1}")(x))
            x = step(f"block{i}", _pool(x, 2, 2))
        _two_hidden_layers(x, self, train, step)
        return out


def _two_hidden_layers(x: jax.Array, network: AlexNet | VGG, train: bool, step: _Step) -> None:
    """The end of AlexNet and VGG: two fully connected layers of 4,096 outputs with dropout, and the head."""
    x = step("flatten", _flatten(x))
    for name in ("dense1", "dense2"):
        x = nn.relu(_dense(4096, dtype=network.dtype, name=name)(x))
        x = step(name, Dropout(network.dropout, deterministic=not train)(x))
    if network.num_classes:
        step("head", _dense(network.num_classes, name="head")(x))


class NiN(Textbook):
    """Network in network: blocks of one convolution and two 1x1 convolutions. For images of 224 pixels.

    d2l, section 8.3; Lin et al. 2013, arXiv:1312.4400, figure 2. There is no fully connected layer. The last block has
    one channel for each class, and the mean of that channel is the logit. As in the book, a ReLU comes before the mean.

    Attributes:
        dropout: share of the third block's outputs that training drops.
    """

    dropout: float = 0.5

    def __post_init__(self):
        check_share("dropout", self.dropout)
        super().__post_init__()

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`block1`, `pool1`, `block2`, `pool2`, `block3`, `pool3`, `head_block`, `head`."""
        out, step = self._steps()
        blocks = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1))
        for i, block in enumerate(blocks, start=1):
            x = step(f"block{i}", self._block(x, *block, name=f"block{i}"))
            x = step(f"pool{i}", _pool(x, 3, 2))
        x = Dropout(self.dropout, deterministic=not train)(x)
        if self.num_classes:
            x = step("head_block", self._block(x, self.num_classes, 3, 1, 1, name="head"))
        step("head" if self.num_classes else "pool", global_avg_pool(x))
        return out

    def _block(self, x: jax.Array, features: int, size: int, strides: int, padding: int, name: str) -> jax.Array:
        conv = partial(_conv, features, dtype=self.dtype)
        x = nn.relu(conv(size, strides, padding, name=f"{name}_conv1")(x))
        x = nn.relu(conv(1, name=f"{name}_conv2")(x))
        return nn.relu(conv(1, name=f"{name}_conv3")(x))


class Inception(nn.Module):
    """Four branches side by side, with 1x1, 3x3 and 5x5 convolutions and a max-pool.

    Szegedy et al. 2014, arXiv:1409.4842, figure 2b. `(N, H, W, C)` to `(N, H, W, c1 + c2[1] + c3[1] + c4)`.

    Attributes:
        c1: channels of the first branch, a 1x1 convolution.
        c2: channels of the second branch: of its 1x1 convolution, and of the 3x3 convolution after it.
        c3: channels of the third branch: of its 1x1 convolution, and of the 5x5 convolution after it.
        c4: channels of the fourth branch, a max-pool and a 1x1 convolution.
        dtype: dtype of the computation.

    Example:
        >>> block = Inception(64, (96, 128), (16, 32), 32)
        >>> x = jnp.ones((1, 12, 12, 192))
        >>> y, variables = jax.eval_shape(block.init_with_output, jax.random.key(0), x)
        >>> y.shape
        (1, 12, 12, 256)
    """

    c1: int
    c2: tuple[int, int]
    c3: tuple[int, int]
    c4: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Apply the block; shapes as in the class."""
        conv = partial(_conv, dtype=self.dtype)
        path1 = nn.relu(conv(self.c1, 1, name="path1_conv")(x))
        path2 = nn.relu(conv(self.c2[0], 1, name="path2_conv1")(x))
        path2 = nn.relu(conv(self.c2[1], 3, padding=1, name="path2_conv2")(path2))
        path3 = nn.relu(conv(self.c3[0], 1, name="path3_conv1")(x))
        path3 = nn.relu(conv(self.c3[1], 5, padding=2, name="path3_conv2")(path3))
        path4 = nn.relu(conv(self.c4, 1, name="path4_conv")(max_pool(x, strides=1)))
        return jnp.concatenate([path1, path2, path3, path4], axis=-1)


class GoogLeNet(Textbook):
    """Nine `Inception` blocks: d2l, section 8.4. For images of 96 pixels.

    Szegedy et al. 2014, arXiv:1409.4842, table 1. As in the book, it has no local response normalisation, auxiliary
    classifiers or dropout.
    """

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`block1` to `block5` (the last is the global average-pool), and `head`."""
        conv, inception = partial(_conv, dtype=self.dtype), partial(Inception, dtype=self.dtype)
        out, step = self._steps()
        x = nn.relu(conv(64, 7, 2, 3, name="conv1")(x))
        x = step("block1", max_pool(x))
        x = nn.relu(conv(64, 1, name="conv2_reduce")(x))
        x = nn.relu(conv(192, 3, padding=1, name="conv2")(x))
        x = step("block2", max_pool(x))
        x = inception(64, (96, 128), (16, 32), 32, name="inception3a")(x)
        x = inception(128, (128, 192), (32, 96), 64, name="inception3b")(x)
        x = step("block3", max_pool(x))
        x = inception(192, (96, 208), (16, 48), 64, name="inception4a")(x)
        x = inception(160, (112, 224), (24, 64), 64, name="inception4b")(x)
        x = inception(128, (128, 256), (24, 64), 64, name="inception4c")(x)
        x = inception(112, (144, 288), (32, 64), 64, name="inception4d")(x)
        x = inception(256, (160, 320), (32, 128), 128, name="inception4e")(x)
        x = step("block4", max_pool(x))
        x = inception(256, (160, 320), (32, 128), 128, name="inception5a")(x)
        x = inception(384, (192, 384), (48, 128), 128, name="inception5b")(x)
        x = step("block5", global_avg_pool(x))
        if self.num_classes:
            step("head", _dense(self.num_classes, name="head")(x))
        return out


class DenseNet(NormedTextbook):
    """Blocks in which each convolution gets the outputs of all convolutions before it. For images of 96 pixels.

    d2l, section 8.7; Huang et al. 2016, arXiv:1608.06993, section 3, without bottlenecks. Between two blocks, a
    transition halves the number of channels and the image.

    Attributes:
        stages: number of convolutions in each block.
        growth: number of channels that each convolution adds.
    """

    stages: Sequence[int] = (4, 4, 4, 4)
    growth: int = 32

    @nn.compact
    def layers(self, x: jax.Array, train: bool = False) -> dict[str, jax.Array]:
        """`stem`, `block1`, `transition1` to `block4`, `pool`, `head`."""
        conv = partial(_conv, dtype=self.dtype)
        out, step = self._steps()
        x = conv(64, 7, 2, 3, name="stem_conv")(x)
        x = step("stem", max_pool(nn.relu(self._norm("stem_norm")(x, train))))
        for i, convolutions in enumerate(self.stages, start=1):
            for j in range(1, convolutions + 1):
                y = nn.relu(self._norm(f"block{i}_norm{j}")(x, train))
                y = conv(self.growth, 3, padding=1, name=f"block{i}_conv{j}")(y)
                x = jnp.concatenate([x, y], axis=-1)
            x = step(f"block{i}", x)
            if i < len(self.stages):
                x = nn.relu(self._norm(f"transition{i}_norm")(x, train))
                x = conv(x.shape[-1] // 2, 1, name=f"transition{i}_conv")(x)
                x = step(f"transition{i}", _pool(x, 2, 2, average=True))
        x = step("pool", global_avg_pool(nn.relu(self._norm("head_norm")(x, train))))
        if self.num_classes:
            step("head", _dense(self.num_classes, name="head")(x))
        return out
