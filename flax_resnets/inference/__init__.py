"""What becomes of a trained network: it is loaded from a run, classifies images, and is saved for others.

Nothing here imports the trainer. These names are imported when they are first used.

Example:
    >>> from flax_resnets.inference import Prediction
    >>> print(Prediction("Sneaker", 7, 0.97))
    Sneaker 97.0 %
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_resnets.inference.classifier import Classifier, Prediction
    from flax_resnets.inference.load import load_classifier

__all__ = ["Classifier", "Prediction", "load_classifier"]

# The module of each name. The type checker reads the imports above instead.
_MODULES = {"Classifier": "classifier", "Prediction": "classifier", "load_classifier": "load"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"flax_resnets.inference.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'flax_resnets.inference' has no attribute {name!r}")
