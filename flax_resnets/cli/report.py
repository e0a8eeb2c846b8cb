"""Writes a page about a run: curves, accuracy, mistakes with their pictures, configuration, data and environment.

    flax-resnets report runs/quickstart
    flax-resnets report runs/quickstart --output quickstart.html

The page is one HTML file that needs no network. It is RUN/report.html, unless --output names another file. The network
is evaluated on the run's validation split; if its images or its checkpoint are not at hand, the page says so and has
the rest. The run may be under way. A folder that was saved from a run, hf-hub:owner/name, or a name of timm's weights
such as resnet50.a1_in1k, gets a page without curves. With --dataset it is evaluated on other images.
"""

import argparse
import os
from pathlib import Path

from flax_resnets.cli.output import new_file, progress_of_images, size_in_words, write_file
from flax_resnets.cli.parser import Parser
from flax_resnets.cli.predict import add_choice_of_weights, add_source, chosen_weights, start_devices
from flax_resnets.errors import printable

_NAME = "report.html"


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    add_source(parser)
    parser.add_argument("--dataset", metavar="NAME", help="as in a recipe; default the run's own")
    parser.add_argument("--data_dir", "--data-dir", metavar="DIR", help="directory of the dataset; default the run's")
    add_choice_of_weights(parser)
    parser.add_argument("--output", metavar="FILE", help=f"the page; default {_NAME} in the run's workdir")
    parser.add_argument("--force", action="store_true", help="replace the page if it exists")


def run(arguments: argparse.Namespace) -> None:
    """Writes the page and prints its path.

    Raises:
        UserError: there is no such run, or the page cannot be written.
    """
    target = new_file("report", arguments.output or _default(arguments.source), arguments.force)
    from flax_resnets.inference.report import report

    start_devices()
    with progress_of_images() as progress:
        page = report(
            arguments.source,
            dataset=arguments.dataset,
            data_dir=arguments.data_dir,
            progress=progress,
            **chosen_weights(arguments),
        )
    write_file("report", target, page.encode())
    print(f"{printable(str(target))}: {size_in_words(len(page.encode()))}")


def _default(source: str) -> str:
    """In the workdir; for a network in a bucket or on the hub, in the current directory."""
    directory = Path(os.path.expanduser(source))
    return str(directory / _NAME) if os.path.isdir(directory) else _NAME
