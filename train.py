"""Trains a network: `python train.py --config configs/quickstart.py`.

    --config FILE            the recipe; without it, those in configs/ are listed
    --workdir DIR            where the run lives; runs/<recipe's name> by default
    --config.FIELD=VALUE     changes one field of the recipe

The same command with the same workdir goes on from the last checkpoint. Exit codes: 0, done, or stopped by a signal
and saved; 2, something in the request is wrong, said in one line; 3, the loss was not finite.
"""

import ast
import difflib
import shlex
import sys
from pathlib import Path

from flax_resnets.errors import UserError

CONFIGS = Path(__file__).parent / "configs"


def main(arguments: list[str]) -> int:
    """Runs one command line; returns the exit code."""
    try:
        if not arguments or {"-h", "--help"} & set(arguments):
            print(usage())
            return 0
        config_path, workdir, overrides = parse(arguments)

        # Imported here, for --help and a misspelt flag need not wait for JAX.
        from flax_resnets.training.compilation import keep_compiled_programs
        from flax_resnets.training.config import load_config
        from flax_resnets.training.loop import Diverged, Stopped, run

        config = load_config(config_path, overrides)
        keep_compiled_programs()
        try:
            run(config, workdir)
        except Stopped as stop:
            print(f"stopped by {stop}; to go on: {shlex.join(['python', 'train.py', *arguments])}")
        except Diverged as error:
            print(f"train.py: {error}", file=sys.stderr)
            return 3
        except KeyboardInterrupt:
            print("train.py: interrupted; nothing since the last checkpoint is saved", file=sys.stderr)
            return 130
    except (UserError, ModuleNotFoundError) as error:
        hint = '; the trainer needs `pip install -e ".[train]"`' if isinstance(error, ModuleNotFoundError) else ""
        print(f"train.py: {error}{hint}", file=sys.stderr)
        return 2
    return 0


def usage() -> str:
    """The help text, with a line for each recipe."""
    recipes = sorted(CONFIGS.glob("*.py"))
    width = max((len(path.name) for path in recipes), default=0)
    lines = [f"    configs/{path.name:<{width}}  {headline(path)}" for path in recipes]
    return "\n".join([(__doc__ or "").strip(), "", "Recipes:", *lines])


def headline(path: Path) -> str:
    """The first line of a recipe's header, read without running it."""
    try:
        return (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"(does not parse: {error})"


def parse(arguments: list[str]) -> tuple[Path, Path, dict[str, str]]:
    """Config file, workdir and overrides of a command line."""
    values: dict[str, str] = {}
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag.startswith("--config."):
            if not equals:
                raise UserError(f"{flag}: write {flag}=VALUE")
            overrides[flag.removeprefix("--config.")] = value
        elif flag in ("--config", "--workdir"):
            if not equals and not rest:
                raise UserError(f"{flag}: needs a value")
            values[flag] = value if equals else rest.pop(0)
        else:
            close = difflib.get_close_matches(flag, ["--config", "--workdir", "--help"], n=1)
            raise UserError(f"{flag}: no such flag; " + (f"did you mean {close[0]}?" if close else "see --help"))
    if not values.get("--config"):
        raise UserError("--config=FILE is needed; `python train.py` lists the recipes")
    config_path = Path(values["--config"])
    return config_path, Path(values.get("--workdir") or Path("runs") / config_path.stem), overrides


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
