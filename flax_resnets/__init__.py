"""ResNets in JAX and Flax.

Networks are linen modules. `create_model(name)` makes one; the classes can also be used directly. Training is in
`flax_resnets.training`, datasets are in `flax_resnets.data`, and `load_classifier` loads what was trained. Importing
this package imports nothing else, not even JAX: a module is imported when one of its names is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_resnets.cpu import fast_cpu
    from flax_resnets.inference import Classifier, Prediction, load_classifier
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
    from flax_resnets.weights import export_state_dict, load_weights

__version__ = "0.2.0"

__all__ = [
    "BasicBlock",
    "BottleneckBlock",
    "Classifier",
    "Prediction",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "create_model",
    "export_state_dict",
    "fast_cpu",
    "fold_batch_norm",
    "list_models",
    "load_classifier",
    "load_weights",
]

# The module of each name. The type checker reads the imports above instead.
_RESNET = "flax_resnets.models.resnet"
_MODULES = {
    "BasicBlock": _RESNET,
    "BottleneckBlock": _RESNET,
    "Classifier": "flax_resnets.inference.classifier",
    "Prediction": "flax_resnets.inference.classifier",
    "ResNet": _RESNET,
    "ResNet18": _RESNET,
    "ResNet34": _RESNET,
    "ResNet50": _RESNET,
    "ResNet101": _RESNET,
    "ResNet152": _RESNET,
    "create_model": "flax_resnets.models.registry",
    "export_state_dict": "flax_resnets.weights",
    "fast_cpu": "flax_resnets.cpu",
    "fold_batch_norm": "flax_resnets.models.folding",
    "list_models": "flax_resnets.models.registry",
    "load_classifier": "flax_resnets.inference.load",
    "load_weights": "flax_resnets.weights",
}
_SUBPACKAGES = ("augment", "configs", "data", "errors", "inference", "models", "training", "weights")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
        globals()[name] = value  # so that Python finds it next time without calling this function
        return value
    if name in _SUBPACKAGES:
        return importlib.import_module(f"flax_resnets.{name}")
    raise AttributeError(f"module 'flax_resnets' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES})
