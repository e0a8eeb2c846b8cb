"""The recipes that come with the package.

In a checkout these are the files of `configs/`; in a wheel they are in this directory. Another recipe can build on one
of them by importing it:

    import dataclasses

    from flax_resnets.configs.rn18_imagenette import get_config as rn18_imagenette


    def get_config():
        return dataclasses.replace(rn18_imagenette(), epochs=20)
"""

import ast
from collections.abc import Mapping
from pathlib import Path

_HERE = Path(__file__).parent
_CHECKOUT = _HERE.parents[1] / "configs"

if not (_HERE / "quickstart.py").exists():
    __path__.append(str(_CHECKOUT))


def recipes() -> Mapping[str, Path]:
    """The files of the recipes by name, sorted by name.

    Example:
        >>> recipes()["quickstart"].name
        'quickstart.py'
    """
    files = [path for directory in map(Path, __path__) for path in directory.glob("*.py")]
    return {path.stem: path for path in sorted(files) if path.stem != "__init__"}


def headline(path: Path) -> str:
    """The first line of a recipe's docstring, read without running the recipe."""
    try:
        return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"(does not parse: {error})"
