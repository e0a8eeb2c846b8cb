"""Finds learning rates to try: a short run of a recipe at a rising rate, and where its loss falls.

    python -m flax_resnets lr-find --config configs/quickstart.py

    --config.FIELD=VALUE     changes one field of the recipe, as in train.py

Nothing of the run itself is touched. The rate rises exponentially over a run's first steps, which end early once the
smoothed loss is four times its lowest (Smith 2015, arXiv:1506.01186, section 3.3, as fastai's lr_find has it). Printed
are the rate where the loss falls fastest and the one in the middle of its longest descent, mostly the more cautious of
the two. lr_find.png shows the curve; lr_find.json holds its points, the configuration and the libraries' versions.
Where these files are there already, lr_find-2 and so on are written.
"""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flax_resnets.cli import Parser, whole_number
from flax_resnets.cli.output import free_names, make_directory
from flax_resnets.errors import UserError


def add_arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the recipe")
    parser.add_overrides("--config.")
    parser.add_argument("--start", type=_positive, default=1e-7, metavar="RATE", help="of the first step; 1e-7")
    parser.add_argument("--end", type=_positive, default=10.0, metavar="RATE", help="of the last step; 10")
    parser.add_argument("--steps", type=whole_number(10), default=100, metavar="N", help="at least 10; 100")
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the files; runs/<recipe's name>/lr_find")


def run(arguments: argparse.Namespace) -> None:
    """Searches, writes both files and prints both rates.

    Raises:
        UserError: the recipe, the data or the directory cannot be used, or the losses suggest nothing.
    """
    if not arguments.start < arguments.end:
        raise UserError(f"lr-find: --end={arguments.end:g}: must be above --start={arguments.start:g}")
    try:
        import jax

        from flax_resnets.data.batches import steps_per_epoch
        from flax_resnets.training import lr_find as finder
        from flax_resnets.training.build import check_devices, make_model
        from flax_resnets.training.compilation import keep_compiled_programs
        from flax_resnets.training.config import load_config
        from flax_resnets.training.display import Display
        from flax_resnets.training.libtpu import expect_no_tpu, has_tpu
        from flax_resnets.training.splits import check_splits, load_split
    except ModuleNotFoundError as error:
        raise UserError(f'lr-find: {error}; the trainer needs `pip install -e ".[train]"`') from None

    config = load_config(arguments.config, arguments.overrides)
    directory = arguments.output or Path("runs") / arguments.config.stem / "lr_find"
    if not has_tpu():
        expect_no_tpu()  # as in train.py
    keep_compiled_programs()
    check_devices(config, jax.device_count())
    make_model(config, num_classes=10)  # a misspelt name need not wait for the data
    display = Display()
    check_splits(config, validation=False)
    train, num_classes = load_split(config, "train", display)
    steps_per_epoch(len(train), config.batch_size)  # raises where the images that are left do not fill one batch
    make_directory("lr-find", directory)  # once the request is found right, and before minutes are spent
    options = {"start": arguments.start, "end": arguments.end, "steps": arguments.steps}
    with display.bar("searching", arguments.steps, "images/s", config.batch_size) as bar:
        test = finder.lr_find(make_model(config, num_classes), config, train, **options, progress=bar.to)
    suggestions = finder.suggest(test, arguments.steps)

    record = {
        **options,
        "suggestions": suggestions._asdict() if suggestions else None,
        **test._asdict(),
        "config": json.loads(config.to_json()),
        "versions": {library: version(library) for library in ("jax", "flax", "optax")},
    }
    picture = finder.draw(test, suggestions, f"{arguments.config.stem}, {config.optimizer}, batch {config.batch_size}")
    files = _write(directory, record, picture)
    if test.stopped != "end":
        what = {"diverged": "the loss diverged", "not finite": "the loss or gradient was not finite"}[test.stopped]
        at = f" at {finder.short(test.rates[-1])}" if test.rates else ""
        print(f"{what} after {len(test.rates)} of {arguments.steps} steps{at}")
    if suggestions is None:
        right = "a lower --start or more --steps" if test.stopped != "end" else "a higher --end, or look at the curve"
        raise UserError(f"lr-find: no rate to suggest from {len(test.rates)} losses, in {files}; try {right}")
    print(", ".join(f"{name} {finder.short(rate)}" for name, rate in suggestions._asdict().items()))
    print(files)


def _write(directory: Path, record: dict[str, Any], picture: bytes) -> str:
    """Writes both files under the first name that is free; returns what to call them."""
    for name in free_names("lr_find"):
        png, text = directory / f"{name}.png", directory / f"{name}.json"
        if png.exists():
            continue
        try:
            with text.open("x") as file:  # fails where the file is there, and so settles who of two searches has it
                file.write(json.dumps(record, indent=2) + "\n")
        except FileExistsError:
            continue
        png.write_bytes(picture)
        return f"{png} and {text.name}"
    raise AssertionError("names do not end")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 0 < number < math.inf:
        return number
    raise argparse.ArgumentTypeError(f"{text}: must be a number above 0")
