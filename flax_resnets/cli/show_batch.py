"""Draws what a recipe's network is shown in one training step: the images as stored, and as augmentation leaves them.

    python -m flax_resnets show-batch --config configs/quickstart.py

    --config.FIELD=VALUE     changes one field of the recipe, as in train.py

Below each image stands what became of it in that step, with the classes and shares that mixing gives it: cropped,
turned, coloured and mixed exactly as in training, where every draw is a function of the seed and the step. The network
gets it normalised; that is taken back, and what lies outside black to white is cut off. Nothing is trained. Where the
picture is there already, show_batch-2.png and so on are written.
"""

import argparse
from pathlib import Path

from flax_resnets.cli import Parser, whole_number
from flax_resnets.cli.output import free_names, make_directory
from flax_resnets.errors import UserError

_MOST = 128  # images in a picture, which is then 6,000 pixels high


def add_arguments(parser: Parser) -> None:
    """The command's arguments."""
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the recipe")
    parser.add_overrides("--config.")
    parser.add_argument("--step", type=whole_number(0), default=0, metavar="N", help="counted from 0; 0")
    parser.add_argument(
        "--images", type=whole_number(1), default=16, metavar="N", help=f"of the batch, at most {_MOST}; 16"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="for the picture; runs/<recipe's name>/show_batch")


def run(arguments: argparse.Namespace) -> None:
    """Writes the picture and prints where it lies.

    Raises:
        UserError: the recipe, the data, the step or the directory cannot be used.
    """
    if arguments.images > _MOST:
        raise UserError(f"show-batch: --images={arguments.images}: must be at most {_MOST}")
    try:
        from flax_resnets.data.source import open_source
        from flax_resnets.training import show_batch as shower
        from flax_resnets.training.config import load_config
        from flax_resnets.training.display import Display
        from flax_resnets.training.libtpu import expect_no_tpu, has_tpu
        from flax_resnets.training.splits import check_splits, load_split
    except ModuleNotFoundError as error:
        raise UserError(f'show-batch: {error}; the trainer needs `pip install -e ".[train]"`') from None

    config = load_config(arguments.config, arguments.overrides)
    directory = arguments.output or Path("runs") / arguments.config.stem / "show_batch"
    if not has_tpu():
        expect_no_tpu()  # as in train.py
    check_splits(config, validation=False)
    train, num_classes = load_split(config, "train", Display())
    names = open_source(config.dataset, "train", config.data_dir).class_names
    batch = shower.show_batch(config, train, num_classes, arguments.step)
    make_directory("show-batch", directory)  # once the request is found right
    print(_write(directory, shower.draw(batch, config, names, arguments.config.stem, arguments.images)))


def _write(directory: Path, picture: bytes) -> Path:
    """Writes under the first name that is free."""
    for name in free_names("show_batch"):
        path = directory / f"{name}.png"
        try:
            with path.open("xb") as file:
                file.write(picture)
        except FileExistsError:
            continue
        return path
    raise AssertionError("names do not end")
