"""Lists the networks that `create_model` knows, each with its native image size and number of classes.

    flax-resnets models
    flax-resnets models 'resnet*d'

GMACs are 1e9 multiply-adds of convolutions and linear layers for one image.
"""

import argparse

from flax_resnets.cli.table import table
from flax_resnets.errors import UserError
from flax_resnets.models.registry import MODELS, list_models


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("pattern", nargs="?", default="*", help="names to list, such as 'resnet*d'; all by default")


def run(arguments: argparse.Namespace) -> None:
    """Prints the list.

    Raises:
        UserError: no name matches.
    """
    names = list_models(arguments.pattern)
    if not names:
        raise UserError(f"models: no name matches {arguments.pattern}; without a pattern, all are listed")
    rows = []
    for name in names:
        entry = MODELS[name]
        image = f"{entry.input_size} x {entry.input_size} x {entry.channels}"
        gmacs = f"{entry.multiply_adds / 1e9:#.3g}"
        rows.append([name, image, f"{entry.num_classes:,}", f"{entry.parameters:,}", gmacs])
    print(table(["name", "image", "classes", "parameters", "GMACs"], rows, left=2))
