"""Every network by name: its constructor and what is known of it. Adding a variant is adding a line here."""

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from flax import linen as nn

from flax_resnets.errors import UserError
from flax_resnets.models.resnet import ResNet, ResNet18, ResNet34, ResNet50, ResNet101, ResNet152


@dataclass(frozen=True)
class ModelEntry:
    """A network's constructor and facts.

    Attributes:
        constructor: makes the module; takes the module's attributes as keywords.
        parameters: how many there are at 1,000 classes and three input channels.
        input_size: pixels of a side the network was designed for.
        source: the paper and the code whose graph it is.
    """

    constructor: Callable[..., nn.Module]
    parameters: int
    input_size: int
    source: str


_TORCHVISION = "He et al. 2015, arXiv:1512.03385, table 1; torchvision's graph (v1.5)"
_XRESNET = "He et al. 2018, arXiv:1812.01187, section 4.2; fastai's xresnet, timm's resnet*d"

# fastai's own start: its initialisation, and each block as the identity.
_d = partial(partial, stem="deep", shortcut="avg_pool", zero_init_last=True, initializer="fastai")

MODELS: dict[str, ModelEntry] = {
    "resnet18": ModelEntry(ResNet18, 11_689_512, 224, _TORCHVISION),
    "resnet34": ModelEntry(ResNet34, 21_797_672, 224, _TORCHVISION),
    "resnet50": ModelEntry(ResNet50, 25_557_032, 224, _TORCHVISION),
    "resnet101": ModelEntry(ResNet101, 44_549_160, 224, _TORCHVISION),
    "resnet152": ModelEntry(ResNet152, 60_192_808, 224, _TORCHVISION),
    "resnet18d": ModelEntry(_d(ResNet18), 11_708_744, 224, _XRESNET),
    "resnet34d": ModelEntry(_d(ResNet34), 21_816_904, 224, _XRESNET),
    "resnet50d": ModelEntry(_d(ResNet50), 25_576_264, 224, _XRESNET),
    "resnet101d": ModelEntry(_d(ResNet101), 44_568_392, 224, _XRESNET),
    "resnet152d": ModelEntry(_d(ResNet152), 60_212_040, 224, _XRESNET),
}

# What a user may set by keyword. `stage_sizes` and `block` are what a name stands for; a network with others of
# them is `ResNet(...)`, not a variant of this one.
_OPTIONS = {
    name: annotation
    for name, annotation in ResNet.__annotations__.items()
    if name not in ("stage_sizes", "block", "name", "parent")
}


def list_models(pattern: str = "*") -> list[str]:
    """The names `create_model` knows that match a shell pattern, in the registry's order.

    Example:
        >>> list_models("resnet*d")
        ['resnet18d', 'resnet34d', 'resnet50d', 'resnet101d', 'resnet152d']
    """
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def create_model(name: str, num_classes: int = 1000, **overrides: Any) -> nn.Module:
    """The network of that name, as an unbound linen module.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of the head; 0 gives pooled features.
        **overrides: attributes of the module, such as `stem="small"` or `dtype=jnp.bfloat16`.

    Raises:
        UserError: no such network, or no such attribute, or a value the attribute cannot have; with the nearest names.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> model = create_model("resnet18", num_classes=10, stem="small")
        >>> shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.ones((1, 28, 28, 1)))
        >>> shapes["params"]["head"]["kernel"].shape
        (512, 10)
    """
    if name not in MODELS:
        raise UserError(f"model={name!r}: no such model; {_nearest(name, list(MODELS))}")
    for option in overrides:
        if option not in _OPTIONS:
            raise UserError(f"{option}={overrides[option]!r}: {name} has no such option; {_nearest(option, _OPTIONS)}")
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise UserError(f"num_classes={num_classes!r}: must be a whole number, 0 for pooled features")
    try:
        return MODELS[name].constructor(num_classes=num_classes, **overrides)
    except ValueError as error:  # an attribute's value, named where the module checks it
        raise UserError(f"{name}: {error}") from error


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
