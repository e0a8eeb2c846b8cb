"""ResNets in JAX and Flax.

Networks are linen modules: `create_model(name)` or the classes themselves. Training lives in `flax_resnets.training`,
data in `flax_resnets.data`; neither is imported from here, so that a program which only wants a network pays for
nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_resnets.models.folding import fold_batch_norm
    from flax_resnets.models.registry import create_model, list_models
    from flax_resnets.models.resnet import (
        BasicBlock,
        BottleneckBlock,
        ResNet,
        ResNet18,
        ResNet34,
        ResNet50,
        ResNet101,
        ResNet152,
    )
    from flax_resnets.speed import speed_up_cpu
    from flax_resnets.weights import export_state_dict, load_weights

__version__ = "0.1.0"

__all__ = [
    "BasicBlock",
    "BottleneckBlock",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "create_model",
    "export_state_dict",
    "fold_batch_norm",
    "list_models",
    "load_weights",
    "speed_up_cpu",
]

_HOMES = {
    "models.folding": ("fold_batch_norm",),
    "models.registry": ("create_model", "list_models"),
    "models.resnet": ("BasicBlock", "BottleneckBlock", *(f"ResNet{depth}" for depth in ("", 18, 34, 50, 101, 152))),
    "speed": ("speed_up_cpu",),
    "weights": ("export_state_dict", "load_weights"),
}


def __getattr__(name: str) -> Any:
    """Imports what is public when it is first used: `speed_up_cpu` comes before JAX."""
    for home, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
            return value
    if name in ("errors", "models", "weights"):  # and the modules in them, as in flax_resnets.models.layers
        for home in _HOMES:
            importlib.import_module(f"{__name__}.{home}")
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
