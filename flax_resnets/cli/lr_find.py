"""Finds learning rates to try, by a short run of a recipe at a rising learning rate.

    flax-resnets lr-find --config quickstart

The command does not touch the run itself. The learning rate rises exponentially over the first steps of a run. The
search ends early once the smoothed loss is four times its lowest value (Smith 2015, arXiv:1506.01186, section 3.3, as
in fastai's lr_find). The command prints the rate at which the loss falls fastest, and the rate in the middle of its
longest descent, which is usually the more cautious one. lr_find.png shows the curve; lr_find.json holds its points, the
configuration and the versions of the libraries. If these files exist, lr_find-2 and so on are written.
"""

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path

from flax_resnets.cli.output import check_directory, make_directory, write_new
from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_config()
    parser.add_argument("--start", type=_positive, default=1e-7, metavar="RATE", help="of the first step; default 1e-7")
    parser.add_argument("--end", type=_positive, default=10.0, metavar="RATE", help="of the last step; default 10")
    parser.add_argument("--steps", type=whole_number(10), default=100, metavar="N", help="at least 10; default 100")
    parser.add_argument("--output", type=Path, metavar="DIR", help="of the files; default lr_find in train's workdir")


def run(arguments: argparse.Namespace) -> None:
    """Runs the search, writes both files and prints both rates.

    Raises:
        UserError: the recipe, the data or the directory cannot be used, or the losses suggest no rate.
    """
    if not arguments.start < arguments.end:
        raise UserError(f"lr-find: --end={arguments.end:g}: must be above --start={arguments.start:g}")
    import jax

    from flax_resnets.data.batches import steps_per_epoch
    from flax_resnets.data.source import open_split
    from flax_resnets.training import lr_find as finder
    from flax_resnets.training.build import check_devices
    from flax_resnets.training.compilation import keep_compiled_programs
    from flax_resnets.training.completion import completed
    from flax_resnets.training.default_workdir import default_workdir
    from flax_resnets.training.devices import start_jax
    from flax_resnets.training.display import Display
    from flax_resnets.training.network import make_model
    from flax_resnets.training.pretrained import start_of
    from flax_resnets.training.recipes import load_config, run_name
    from flax_resnets.training.splits import load_split
    from flax_resnets.training.tpu.libtpu import expect_no_tpu

    config = load_config(arguments.config, arguments.overrides)
    directory = arguments.output or default_workdir(arguments.config, config) / "lr_find"
    directory = expanded(directory, "lr-find: --output")
    check_directory("lr-find", directory)
    expect_no_tpu()
    start_jax()
    keep_compiled_programs()
    check_devices(config, jax.device_count())
    make_model(config, num_classes=10)  # reports a misspelt name before the data is loaded
    weights = start_of(config)
    display = Display()
    train, num_classes = load_split(config, "train", display)
    steps_per_epoch(len(train), config.batch_size)  # raises if the images that are left do not fill one batch
    start = weights(train.channels, open_split(config, "train").class_names) if weights else None
    config = completed(config, train, num_classes, statistics=start.statistics if start else None, display=display)
    make_directory("lr-find", directory)  # after all checks, and before minutes are spent
    options = {"start": arguments.start, "end": arguments.end, "steps": arguments.steps}
    with display.bar("searching", arguments.steps, "images/s", config.batch_size) as bar:
        model, pretrained = make_model(config, num_classes), start.variables if start else None
        test = finder.lr_find(model, config, train, **options, progress=bar.to, pretrained=pretrained)
    suggestions = finder.suggest(test, arguments.steps)

    record = {
        **options,
        "suggestions": suggestions._asdict() if suggestions else None,
        **test._asdict(),
        "config": json.loads(config.to_json()),
        "versions": {library: version(library) for library in ("jax", "flax", "optax")},
    }
    picture = finder.draw(
        test, suggestions, f"{run_name(arguments.config)}, {config.optimizer}, batch {config.batch_size}"
    )
    if test.stopped != "end":
        what = {"diverged": "the loss diverged", "not finite": "the loss or gradient was not finite"}[test.stopped]
        at = f" at {finder.short(test.rates[-1])}" if test.rates else ""
        print(f"{what} after {len(test.rates)} of {arguments.steps} steps{at}")
    if suggestions is not None:
        print(", ".join(f"{name} {finder.short(rate)}" for name, rate in suggestions._asdict().items()))
    text = (json.dumps(record, indent=2) + "\n").encode()
    png, beside = write_new("lr-find", directory, "lr_find", {".png": picture, ".json": text})
    files = f"{png} and {beside.name}"
    if suggestions is None:
        right = "a lower --start or more --steps" if test.stopped != "end" else "a higher --end, or look at the curve"
        raise UserError(f"lr-find: no rate to suggest from {len(test.rates)} losses, in {files}; try {right}")
    print(files)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 0 < number < math.inf:
        return number
    raise argparse.ArgumentTypeError(f"={text}: must be a number above 0")
