"""Draws the images of one training step: as they are stored, and after augmentation.

    flax-resnets show-batch --config quickstart

Below each image is its augmented version, with the classes and shares that mixing gives it. Crops, rotations, colours
and mixing are exactly those of training, because every random draw is a function of the seed and the step. The picture
undoes the normalisation, and clips values below black and above white. Nothing is trained. If the picture exists,
show_batch-2.png and so on are written.
"""

import argparse
from pathlib import Path

from flax_resnets.cli.output import check_directory, make_directory, write_new
from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded

_MOST = 128  # images in a picture; with so many it is 6,000 pixels high


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_config()
    parser.add_argument("--step", type=whole_number(0), default=0, metavar="N", help="counted from 0; default 0")
    parser.add_argument(
        "--images", type=whole_number(1), default=16, metavar="N", help=f"images to draw, at most {_MOST}; default 16"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="of the picture; default show_batch in train's workdir"
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the picture and prints its path.

    Raises:
        UserError: the recipe, the data, the step or the directory cannot be used.
    """
    if arguments.images > _MOST:
        raise UserError(f"show-batch: --images={arguments.images}: must be at most {_MOST}")
    from flax_resnets.data.source import open_split
    from flax_resnets.training import show_batch as shower
    from flax_resnets.training.completion import completed
    from flax_resnets.training.default_workdir import default_workdir
    from flax_resnets.training.devices import start_jax
    from flax_resnets.training.display import Display
    from flax_resnets.training.pretrained import start_of
    from flax_resnets.training.recipes import load_config, run_name
    from flax_resnets.training.splits import load_split
    from flax_resnets.training.tpu.libtpu import expect_no_tpu

    config = load_config(arguments.config, arguments.overrides)
    directory = arguments.output or default_workdir(arguments.config, config) / "show_batch"
    directory = expanded(directory, "show-batch: --output")
    check_directory("show-batch", directory)
    expect_no_tpu()
    start_jax()
    display = Display()
    weights = start_of(config)
    train, num_classes = load_split(config, "train", display)
    names = open_split(config, "train").class_names
    statistics = weights(train.channels, names).statistics if weights else None
    config = completed(config, train, num_classes, statistics=statistics, display=display)
    batch = shower.show_batch(config, train, num_classes, arguments.step)
    make_directory("show-batch", directory)  # after all checks
    picture = shower.draw(batch, config, names, run_name(arguments.config), arguments.images)
    print(*write_new("show-batch", directory, "show_batch", {".png": picture}))
