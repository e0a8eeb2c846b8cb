"""Says which of the package's extras a library belongs to that is not installed."""

import importlib
from types import ModuleType

from flax_resnets.errors import UserError


def require(library: str, extra: str, dataset: str) -> ModuleType:
    """Imports a library, or raises UserError, which names the extra that installs it."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        name = library.partition(".")[0]
        raise UserError(
            f"dataset={dataset!r}: needs {name}, which is not installed: pip install 'flax_resnets[{extra}]'"
        ) from error
