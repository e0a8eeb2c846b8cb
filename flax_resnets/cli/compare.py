"""Compares runs: settings that differ, results, and whether the accuracies really differ.

    flax-resnets compare runs/lenet runs/lenet_bn
    flax-resnets compare runs/lenet_seed* runs/lenet_bn_seed* --output comparison.html

Runs that differ in nothing but the seed are one group, with the mean and the standard deviation of their accuracies.
Each group is compared with the first: on the same validation images, image by image, and over the seeds. Runs on other
data, or whose network or images are not at hand, are compared without the images. --output writes a page with the
curves.
"""

import argparse
import json
from typing import TYPE_CHECKING

from flax_resnets.cli.output import new_file, progress_of_images, write_file
from flax_resnets.cli.parser import Parser
from flax_resnets.cli.predict import add_choice_of_weights, chosen_weights, start_devices
from flax_resnets.cli.table import table
from flax_resnets.errors import UserError, printable

if TYPE_CHECKING:
    from flax_resnets.inference.compare import Comparison


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("sources", nargs="+", metavar="RUN", help="a run's workdir; at least two")
    parser.add_argument("--data_dir", "--data-dir", metavar="DIR", help="directory of the dataset; default each run's")
    add_choice_of_weights(parser)
    parser.set_defaults(checkpoint="last")
    parser.add_argument("--output", metavar="FILE", help="write a page with tables and curves (HTML)")
    parser.add_argument("--force", action="store_true", help="replace the --output file if there is one")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints the tables, and writes the page.

    Raises:
        UserError: there are fewer than two runs, one of them cannot be read, or the page cannot be written.
    """
    if len(arguments.sources) < 2:
        raise UserError(
            f"compare: {arguments.sources[0]}: one run cannot be compared; name another, or see it by "
            f"`flax-resnets report {arguments.sources[0]}`"
        )
    target = None if arguments.output is None else new_file("compare", arguments.output, arguments.force)
    from flax_resnets.inference.compare import compare
    from flax_resnets.inference.compare_page import comparison_page

    start_devices()
    with progress_of_images() as progress:
        comparison = compare(
            arguments.sources, data_dir=arguments.data_dir, progress=progress, **chosen_weights(arguments)
        )
    if not arguments.json:
        print(_in_words(comparison), flush=True)
    page = None
    try:  # when the tables are printed, which a full disk shall not take away
        if target is not None:
            write_file("compare", target, comparison_page(comparison).encode())
            page = str(target)
    finally:
        if arguments.json:
            print(json.dumps(comparison.as_dict() | {"page": page}))
    if page is not None and not arguments.json:
        print(f"\n{printable(page)}")


def _in_words(comparison: "Comparison") -> str:
    from flax_resnets.inference.compare_page import (
        DIFFERENCE_COLUMNS,
        METHODS,
        difference_rows,
        result_columns,
        result_rows,
    )

    parts = [_table(["group", *result_columns(comparison.groups)], result_rows(comparison.groups))]
    if comparison.settings:
        header = ["setting", *(group.label for group in comparison.groups)]
        rows = [[name, *(value[:60] for value in values)] for name, values in comparison.settings.items()]
        parts.append(_table(header, rows, left=len(header)))
    base = comparison.differences[0].base.label
    parts.append(_table([f"from {base}", *DIFFERENCE_COLUMNS], difference_rows(comparison)))
    parts.append("\n".join(METHODS))
    if comparison.notes:
        parts.append("\n".join(map(printable, comparison.notes)))
    return "\n\n".join(parts)


def _table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    return table([printable(each) for each in header], [[printable(each) for each in row] for row in rows], left=left)
