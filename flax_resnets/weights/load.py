"""Loading: named tensors into a network's variables. Either all of them fit, or nothing is loaded."""

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
from flax_resnets.models.shapes import variable_shapes
from flax_resnets.weights.causes import cause_of
from flax_resnets.weights.fit import Fit, find_fit
from flax_resnets.weights.layouts import LAYOUTS
from flax_resnets.weights.mismatch import Mismatch, short_label, shown_name
from flax_resnets.weights.names import (
    Path,
    features_of,
    first_conv,
    leaves,
    linen_order,
    nested,
    padded_shape,
    torch_shape,
)
from flax_resnets.weights.sources import open_source
from flax_resnets.weights.stored import FLOATS, Stored

# Default of `image_shape` in `load_weights`. It is recognised by identity: then the file gives the number of channels.
_DEFAULT_IMAGE_SHAPE = (224, 224, 3)

# A file that claims more channels is refused: no images have so many, and the network would take too much memory.
_MOST_CHANNELS = 1024


class WeightsNote(UserWarning):
    """What `load_weights` took of a source, where that is not all of it, or was not the only choice."""


class FreshHeadWarning(UserWarning):
    """The file has another number of classes than the network, whose head therefore keeps its random weights."""


def load_weights(
    model: nn.Module,
    source: str | os.PathLike[str] | Mapping[str, Any],
    image_shape: Sequence[int] = _DEFAULT_IMAGE_SHAPE,
    *,
    average: bool = True,
    seed: int = 0,
) -> dict[str, Any]:
    """Loads weights from torchvision, timm and other libraries into a network's variables.

    Tensors are matched by their names, which may be those of several libraries: docs/weights.md lists them. The names
    may have any prefix, such as `module.` or `backbone.`, and may be in a nested mapping, such as `state_dict`. If not
    all tensors of the network are there, or others are among them, one error counts those that do not fit, names the
    first of each kind and the likeliest cause, and nothing is loaded. Only files that `torch.save` wrote need torch.

    - If the file's head has another number of classes than the model, the head is initialised at random, with a
      `FreshHeadWarning`. A model with `num_classes=0` has no head, and the file's head is ignored.
    - Without `image_shape`, the model takes images with as many channels as the file's stem. If `image_shape` has
      another number and the file's stem has three, the stem's kernels are summed (for one channel), or repeated and
      multiplied by 3 / channels. A grey image then gives the same output, as in timm.
    - float16, bfloat16 and float64 are converted to float32. Integers, NaN and infinities are refused.

    Args:
        model: a `ResNet`.
        source: path of a `.safetensors`, `.npz` or `.msgpack` file, of the `.safetensors.index.json` of several, or of
            a file that `torch.save` wrote (`.pth`, `.pt`, `.bin`, `.ckpt`, `.pth.tar`), which may be
            `gs://BUCKET/PATH`; or `hf-hub:owner/name` for the weights there; or a name of trained weights, such as
            `resnet50.a1_in1k`; or a mapping from names to float arrays in torch's shapes (kernels `(O, I, H, W)`).
        image_shape: `(H, W, C)` of the images; only C matters to the weights. By default C is the number of channels of
            the file's stem.
        average: if the source has the network twice, whether to take the average of the weights (`state_dict_ema`,
            `model_ema`, DINO's `teacher`) or the weights themselves. timm takes the average too.
        seed: seed of the head, if it is initialised at random.

    Returns:
        `{"params": ..., "batch_stats": ...}`, float32, in the structure that `model.init` gives.

    Raises:
        UserError: the source cannot be read or does not fit the model.

    Warns:
        WeightsNote: what was taken of the source, if there was a choice, or if something was left out.
        FreshHeadWarning: see above.

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
        flax_resnets.weights.mismatch.Misfit: source: does not fit the model: 1 missing: 'conv1.weight'
    """
    if not isinstance(model, ResNet):
        raise UserError(f"model={type(model).__name__}: only a ResNet has names in torchvision and timm")
    if model.batch_norm == "folded":
        raise UserError(
            "batch_norm='folded': weight files have norms; load into the network that is not folded, "
            "then call fold_batch_norm"
        )
    check_image_shape(image_shape)
    label, tensors = open_source(source)
    variables, notes, fresh = fitted_weights(model, label, tensors, image_shape, average=average, seed=seed)
    for note in notes:
        warnings.warn(f"{short_label(label)}: {note}", WeightsNote, stacklevel=2)
    if fresh:
        warnings.warn(f"{short_label(label)} {fresh}", FreshHeadWarning, stacklevel=2)
    return variables


def fitted_weights(
    model: ResNet,
    label: str,
    tensors: Mapping[str, Stored],
    image_shape: Sequence[int],
    *,
    average: bool = True,
    seed: int = 0,
) -> tuple[dict[str, Any], list[str], str | None]:
    """Loads the tensors of an open source; arguments as in `load_weights`.

    Returns:
        The variables; what was chosen and left out, for the user; and why the head is initialised at random, if it is.
    """
    given_shape = image_shape is not _DEFAULT_IMAGE_SHAPE
    expected = expected_shapes(model, image_shape)
    try:
        fit = find_fit(model, expected, tensors, average)
    except UserError as error:
        raise UserError(f"{label}: {error}") from None
    stem = first_conv(model)
    channels = _input_channels(fit.tensors.get(fit.names[stem]))
    if channels and not given_shape:
        height, width, _, outputs = expected[stem]
        expected[stem] = height, width, channels, outputs
    classes = _pop_head(model, expected, fit)
    mismatch = Mismatch()
    loaded = _matched(fit, expected, mismatch, adapt=True)
    if channels not in (None, 3, image_shape[2]) and given_shape:
        right = (*image_shape[:2], channels)
        mismatch.cause = f"it is for images of {channels} channel{'s' * (channels > 1)}", f"give image_shape={right}"
    elif mismatch:
        mismatch.cause = cause_of(model, expected, fit.head, fit.tensors, mismatch)
    mismatch.raise_if_any(label)
    variables = nested(loaded)
    fresh = None
    if classes is not None:
        fresh = f"has {classes} classes, the model {model.num_classes}: its head starts from random weights"
        head = Linear(model.num_classes, model.initializer)
        variables["params"]["head"] = head.init(jax.random.key(seed), jnp.zeros((1, features_of(model))))["params"]
    return variables, fit.notes(model), fresh


def load_exactly(
    model: nn.Module, source: str | os.PathLike[str] | Mapping[str, Any], image_shape: Sequence[int]
) -> dict[str, Any]:
    """Like `load_weights`, for weights that were saved from this very network: neither head nor stem is adapted.

    Args:
        model: any network. If it is no `ResNet`, its tensors have the names of linen, such as `params.head.bias`, and
            axes as torch has them.
        source: path of a `.safetensors` file, or see `load_weights`.
        image_shape: `(H, W, C)` of the images.

    Raises:
        UserError: the file cannot be read, or does not fit the model.
    """
    label, tensors = open_source(source)
    expected = expected_shapes(model, image_shape)
    mismatch = Mismatch()
    if isinstance(model, ResNet):
        fit = find_fit(model, expected, tensors)
        mismatch.extra.extend(fit.left_out)
    else:
        names = {path: ".".join(path) for path in expected}
        fit = Fit(LAYOUTS[0], "", names, ("", ""), dict(tensors), [], [])
    loaded = _matched(fit, expected, mismatch, adapt=False)
    mismatch.raise_if_any(label)
    return {"params": {}, "batch_stats": {}, **nested(loaded)}


def _matched(
    fit: Fit, expected: Mapping[Path, tuple[int, ...]], mismatch: Mismatch, adapt: bool
) -> dict[Path, jax.Array]:
    """The tensors that fit, by their place in the network; notes all others. `adapt`: whether a stem may be adapted."""
    names = {path: fit.names[path] for path in expected}
    mismatch.extra.extend(fit.tensors.keys() - set(names.values()))
    loaded: dict[Path, jax.Array] = {}
    for path, name in names.items():
        stem = adapt and path[1].startswith("stem")
        if name not in fit.tensors:
            mismatch.missing.append(name)
        elif (value := _converted(fit.tensors[name], name, path, expected[path], mismatch, stem)) is not None:
            loaded[path] = value
    return loaded


def expected_shapes(model: nn.Module, image_shape: Sequence[int]) -> dict[Path, tuple[int, ...]]:
    """The shape of each tensor of a network's variables, by path. Nothing is computed.

    Raises:
        UserError: `image_shape` is not the shape of an image.

    Example:
        >>> expected_shapes(ResNet(stage_sizes=(1,)), (64, 64, 3))["params", "stem_conv", "kernel"]
        (7, 7, 3, 64)
    """
    check_image_shape(image_shape)
    return {path: leaf.shape for path, leaf in leaves(variable_shapes(model, image_shape))}


def check_image_shape(image_shape: Sequence[int]) -> None:
    """Raises UserError unless `image_shape` is `(H, W, C)`, all above 0."""
    if len(image_shape) != 3 or not all(isinstance(side, int) and side > 0 for side in image_shape):
        raise UserError(f"image_shape={image_shape!r}: must be height, width and channels, such as (224, 224, 3)")


def _input_channels(kernel: Stored | None) -> int | None:
    """The number of input channels of the file's stem; None if it is missing or not a convolution's kernel."""
    if kernel is None or len(kernel.shape) != 4 or not 0 < kernel.shape[1] <= _MOST_CHANNELS:
        return None
    return kernel.shape[1]


def _pop_head(model: ResNet, expected: dict[Path, tuple[int, ...]], fit: Fit) -> int | None:
    """Removes the head from what is expected and from the tensors, if the model has no head or needs a new one.

    Returns:
        The number of classes of the file's head, if the model needs a new one.
    """
    weight, bias = (fit.tensors.get(name) for name in fit.head)
    classes = None
    if model.num_classes:
        if not (weight and bias and bias.shape != (model.num_classes,) and _is_head(weight, bias, features_of(model))):
            return None
        classes = bias.shape[0]
        del expected["params", "head", "kernel"], expected["params", "head", "bias"]
    for name in fit.head:
        fit.tensors.pop(name, None)
    return classes


def _is_head(weight: Stored, bias: Stored, channels: int) -> bool:
    return len(bias.shape) == 1 and weight.shape in ((*bias.shape, channels), (*bias.shape, channels, 1, 1))


def _converted(
    stored: Stored, name: str, path: Path, shape: tuple[int, ...], mismatch: Mismatch, stem: bool
) -> jax.Array | None:
    """The tensor in linen's shape, as float32, on the device. If it does not fit: None, and `mismatch` has why."""
    wanted = torch_shape(shape)
    # timm stores some fully connected layers as 1x1 convolutions.
    allowed = {wanted, padded_shape(name, wanted), *([(*wanted, 1, 1)] if len(shape) == 2 else [])}
    adapt = stem and len(wanted) == 4 and stored.shape == (wanted[0], 3, *wanted[2:]) and wanted[1] != 3
    if stored.shape not in allowed and not adapt:
        mismatch.misshaped.append(f"{shown_name(name)} is {stored.shape}, not {padded_shape(name, wanted)}")
        return None
    if stored.dtype not in FLOATS:
        mismatch.unfit.append(f"{shown_name(name)} is {stored.dtype}, not float")
        return None
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes infinite, which is refused below
        value = stored.read().astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        mismatch.unfit.append(f"{shown_name(name)} has NaN or infinity")
        return None
    if path[-1] == "var" and (value < 0).any():
        mismatch.unfit.append(f"{shown_name(name)} has variances below 0")
        return None
    if adapt:
        value = _adapt_channels(value, wanted[1])
    # A copy, because on a CPU a jax array may share memory with the caller's array, to which the caller may write. Made
    # here, one by one, so that no second copy of all is in memory.
    return jnp.array(linen_order(value.reshape(wanted)))


def _adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """`(O, 3, H, W)` to `(O, channels, H, W)`; a grey image gives the same output, as in timm's `adapt_input_conv`."""
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    return np.tile(kernel, (1, math.ceil(channels / 3), 1, 1))[:, :channels] * np.float32(3 / channels)
