"""Loading: named tensors into a network's variables, all or nothing."""

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flax_resnets.errors import UserError
from flax_resnets.models.layers import Linear
from flax_resnets.models.resnet import ResNet
from flax_resnets.weights.mismatch import Mismatch
from flax_resnets.weights.names import Path, head_names, is_pointwise, leaves, linen_order, nested, torch_name
from flax_resnets.weights.sources import open_source
from flax_resnets.weights.stored import FLOATS, Stored

# load_weights' default: where its caller says no more, how many channels images have is the file's to say.
_NOT_SAID = (224, 224, 3)

# More are nobody's images; the network such a file asks for could be of any size.
_MOST_CHANNELS = 1024


class FreshHeadWarning(UserWarning):
    """The file classifies into another number of classes: the network's head keeps random weights."""


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    image_shape: Sequence[int] = _NOT_SAID,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """A network's variables with weights from torchvision or timm.

    Tensors are matched by name, in torchvision's and timm's layouts. Either everything fits, or nothing is returned
    and one error lists all that does not. Only `.pth` and `.pt` need torch.

    - Where the file's head has another number of classes than the model, the head is fresh, and a `FreshHeadWarning`
      says so. A model with `num_classes=0` has no head; the file's is left out without a word.
    - Without `image_shape`, images have as many channels as the file's stem. Where it names other than the file's
      three, the stem's kernels are summed (one channel), or repeated and scaled by 3 / channels, so that the sum over
      equal channels stays the same, as timm does.
    - float16, bfloat16 and float64 become float32. Wholes, NaN and infinities are refused.

    Args:
        model: a `ResNet`.
        source: path of a `.safetensors`, `.npz`, `.pth` or `.pt` file; `hf-hub:owner/name`, its `model.safetensors`;
            or a mapping of names to arrays, which are float, shaped as torch has them (kernels `(O, I, H, W)`).
        image_shape: `(H, W, C)` of the images; only C matters to the weights. Left out, `(224, 224, 3)`, or the
            file's number of channels if that is another.
        seed: of a fresh head.

    Returns:
        `{"params": ..., "batch_stats": ...}`, float32 and with the same structure as `model.init` gives.

    Raises:
        UserError: the source cannot be read, or does not fit the model.

    Example:
        >>> import flax_resnets
        >>> from flax_resnets.weights import export_state_dict
        >>> model = flax_resnets.ResNet(stage_sizes=(1,), width=8, num_classes=10)
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
        >>> weights = export_state_dict(model, jax.tree.map(jnp.ones_like, shapes))
        >>> variables = load_weights(model, weights)
        >>> variables["params"]["stem_conv"]["kernel"].shape
        (7, 7, 3, 8)
        >>> del weights["conv1.weight"]
        >>> load_weights(model, weights)
        Traceback (most recent call last):
        ...
        flax_resnets.errors.UserError: source: does not fit the model: 1 missing: 'conv1.weight'
    """
    if not isinstance(model, ResNet):
        raise UserError(f"model={type(model).__name__}: only a ResNet has names in torchvision and timm")
    if model.batch_norm == "folded":
        raise UserError(
            "batch_norm='folded': files have norms; load into the network without that, then fold_batch_norm"
        )
    check_image_shape(image_shape)
    label, tensors = open_source(source)
    channels = _stem_channels(model, tensors)
    expected = expected_shapes(
        model, (*image_shape[:2], channels) if image_shape is _NOT_SAID and channels else image_shape
    )
    new_head = _take_head_away(model, expected, tensors)
    mismatch = Mismatch()
    for name in tensors.keys() - {torch_name(model, path) for path in expected}:
        mismatch.extra.append(name)
    loaded: dict[Path, np.ndarray] = {}
    for path, shape in expected.items():
        name = torch_name(model, path)
        if name not in tensors:
            mismatch.missing.append(name)
        elif (value := _fitted(tensors[name], name, shape, mismatch, stem=path[1].startswith("stem"))) is not None:
            loaded[path] = value
    if channels not in (None, 3, image_shape[2]) and image_shape is not _NOT_SAID:
        right = (*image_shape[:2], channels)
        mismatch.advice = f"it is for images of {channels} channel{'s' * (channels > 1)}, as image_shape={right} says"
    mismatch.raise_if_any(label)
    # Copies: on a CPU jax might otherwise share memory with the arrays of a caller, who may write to them.
    variables = nested({path: jnp.array(value) for path, value in loaded.items()})
    if new_head is not None:
        channels, classes = new_head
        warnings.warn(
            f"{label} has {classes} classes, the model {model.num_classes}: its head starts from random weights",
            FreshHeadWarning,
            stacklevel=2,
        )
        head = Linear(model.num_classes, model.initializer)
        variables["params"]["head"] = head.init(jax.random.key(seed), jnp.zeros((1, channels)))["params"]
    return variables


def expected_shapes(model: ResNet, image_shape: Sequence[int]) -> dict[Path, tuple[int, ...]]:
    """The shape of every tensor of a network's variables, by path; nothing is computed.

    Raises:
        UserError: `image_shape` is not the shape of an image.

    Example:
        >>> expected_shapes(ResNet(stage_sizes=(1,)), (64, 64, 3))["params", "stem_conv", "kernel"]
        (7, 7, 3, 64)
    """
    check_image_shape(image_shape)
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return {path: leaf.shape for path, leaf in leaves(jax.eval_shape(model.init, jax.random.key(0), images))}


def check_image_shape(image_shape: Sequence[int]) -> None:
    """Raises UserError unless that is the shape of an image."""
    if len(image_shape) != 3 or not all(isinstance(side, int) and side > 0 for side in image_shape):
        raise UserError(f"image_shape={image_shape!r}: must be height, width and channels, such as (224, 224, 3)")


def _stem_channels(model: ResNet, tensors: dict[str, Stored]) -> int | None:
    """How many channels the images of a file's network have; None where its stem does not say."""
    first = "stem_conv1" if model.stem == "deep" else "stem_conv"
    kernel = tensors.get(torch_name(model, ("params", first, "kernel")))
    if kernel is None or len(kernel.shape) != 4 or not 0 < kernel.shape[1] <= _MOST_CHANNELS:
        return None
    return kernel.shape[1]


def _take_head_away(
    model: ResNet, expected: dict[Path, tuple[int, ...]], tensors: dict[str, Stored]
) -> tuple[int, int] | None:
    """Takes the head out of what is expected and of what there is, where the model wants none or a new one.

    Returns the new head's channels and how many classes the old one had.
    """
    weight, bias = (tensors.get(name) for name in head_names(model))
    kernel = ("params", "head", "kernel")
    if not model.num_classes:
        new_head = None
    elif weight and bias and bias.shape != (model.num_classes,) and _is_head(weight, bias, expected[kernel][0]):
        new_head = expected[kernel][0], bias.shape[0]
        del expected[kernel], expected["params", "head", "bias"]
    else:
        return None
    for name in head_names(model):
        tensors.pop(name, None)
    return new_head


def _is_head(weight: Stored, bias: Stored, channels: int) -> bool:
    return len(bias.shape) == 1 and weight.shape in ((*bias.shape, channels), (*bias.shape, channels, 1, 1))


def _fitted(stored: Stored, name: str, shape: tuple[int, ...], mismatch: Mismatch, stem: bool) -> np.ndarray | None:
    """The tensor in linen's shape and float32; None, and a note, where it does not fit."""
    wanted = _torch_shape(shape)
    # What is fully connected here may be a 1x1 convolution there.
    allowed = {wanted, (*wanted, 1, 1)} if len(shape) == 2 else {wanted}
    adapt = stem and len(wanted) == 4 and stored.shape == (wanted[0], 3, *wanted[2:]) and wanted[1] != 3
    if stored.shape not in allowed and not adapt:
        mismatch.misshaped.append(
            f"{name!r} is {stored.shape}, not {(*wanted, 1, 1) if is_pointwise(name) else wanted}"
        )
        return None
    if stored.dtype not in FLOATS:
        mismatch.unfit.append(f"{name!r} is {stored.dtype}, not float")
        return None
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is found so
        value = stored.read().astype(np.float32)
    if not np.isfinite(value).all():
        mismatch.unfit.append(f"{name!r} has NaN or infinity")
        return None
    if name.endswith("running_var") and (value < 0).any():
        mismatch.unfit.append(f"{name!r} has variances below 0")
        return None
    if adapt:
        value = _adapt_channels(value, wanted[1])
    return linen_order(value.reshape(wanted))


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]


def _adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """`(O, 3, H, W)` to `(O, channels, H, W)`: a grey image gives what it gave, as with timm's `adapt_input_conv`."""
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    return np.tile(kernel, (1, math.ceil(channels / 3), 1, 1))[:, :channels] * np.float32(3 / channels)
