"""Training: configuration, state, schedule, step, metrics, checkpoints, and the loop that runs them.

`run` trains a `Config`, which `load_config` reads from a recipe; a `Callback` watches the run. These names are imported
when they are first used.

Example:
    >>> from flax_resnets.training import load_config
    >>> load_config("quickstart").model
    'resnet18'
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_resnets.training.callbacks import Callback
    from flax_resnets.training.config import Config
    from flax_resnets.training.csv_logger import CSVLogger
    from flax_resnets.training.early_stopping import EarlyStopping
    from flax_resnets.training.loop import run
    from flax_resnets.training.recipes import load_config
    from flax_resnets.training.weights_and_biases import WandB

__all__ = ["CSVLogger", "Callback", "Config", "EarlyStopping", "WandB", "load_config", "run"]

# The module of each name. The type checker reads the imports above instead.
_MODULES = {
    "CSVLogger": "csv_logger",
    "Callback": "callbacks",
    "Config": "config",
    "EarlyStopping": "early_stopping",
    "WandB": "weights_and_biases",
    "load_config": "recipes",
    "run": "loop",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"flax_resnets.training.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'flax_resnets.training' has no attribute {name!r}")
