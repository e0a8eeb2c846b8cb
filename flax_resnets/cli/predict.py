"""Classifies images with a trained network.

    flax-resnets predict runs/quickstart shoe.png photos/
    find photos -name '*.jpg' | flax-resnets predict runs/quickstart - --csv --output classes.csv

The network is a run's workdir, a folder that was saved from one, hf-hub:owner/name, or a name of timm's weights such as
resnet50.a1_in1k. Each image gets a row with its most probable classes. Images are prepared as in the run's evaluation.
An image that cannot be read gets a row with the error, the others follow, and the exit code is 1.
"""

import argparse
import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flax_resnets.cli.output import new_file, progress_of_images, whole_file
from flax_resnets.cli.parser import Parser, share, whole_number
from flax_resnets.errors import UserError, printable
from flax_resnets.inference.whole_number import MOST_IN_A_STEP

if TYPE_CHECKING:
    from flax_resnets.inference.classifier import Classifier, Prediction
    from flax_resnets.inference.images import Item


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    add_source(parser)
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="a file or a folder; - reads paths from standard input, one a line"
    )
    parser.add_argument("--top-k", type=whole_number(1), default=3, metavar="K", help="classes an image; default 3")
    parser.add_argument(
        "--batch-size",
        type=whole_number(1, MOST_IN_A_STEP),
        metavar="N",
        help="images in a step; default up to 64, by their number",
    )
    add_choice_of_classifier(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a line of JSON for each image")
    form.add_argument("--csv", action="store_true", help="print a line of CSV for each class of each image")
    parser.add_argument("--output", metavar="FILE", help="write the rows into a file instead of printing them")
    parser.add_argument("--force", action="store_true", help="replace the --output file if there is one")


def add_source(parser: Parser) -> None:
    """Adds the argument that names the network; `load` reads it."""
    parser.add_argument(
        "source", help="a run's workdir, a saved folder, hf-hub:owner/name, or a name such as resnet50.a1_in1k"
    )


def add_choice_of_weights(parser: Parser) -> None:
    """Adds the arguments that `load` reads: which of a run's weights, and the names of their classes."""
    parser.add_argument(
        "--checkpoint",
        default="best",
        metavar="WHICH",
        help="of a run: best, last or the number of a step; default %(default)s",
    )
    parser.add_argument(
        "--average", action="store_true", help="of a run that keeps it: the average of the weights (EMA)"
    )
    parser.add_argument(
        "--class-names", metavar="NAMES", help="a file with a name in each line, or a,b,c; default the run's"
    )


def add_choice_of_classifier(parser: Parser) -> None:
    """Adds the arguments that `load` reads: those of `add_choice_of_weights`, and the size of the images."""
    add_choice_of_weights(parser)
    parser.add_argument(
        "--image-size", type=whole_number(1), metavar="N", help="side of the images, in pixels; default as in training"
    )
    parser.add_argument(
        "--crop-pct",
        type=share,
        metavar="P",
        help="share of a side that the network sees, from the centre; default as the run was evaluated",
    )


def load(arguments: argparse.Namespace) -> "Classifier":
    """The classifier that a command line asks for.

    Raises:
        UserError: see `load_classifier` and `Classifier.at_size`.
    """
    from flax_resnets.inference.load import load_classifier

    start_devices()
    classifier = load_classifier(arguments.source, **chosen_weights(arguments))
    if arguments.image_size is None and arguments.crop_pct is None:
        return classifier
    return classifier.at_size(arguments.image_size, arguments.crop_pct)


def start_devices() -> None:
    """Makes JAX look for the devices on which a trained network is to run.

    Raises:
        UserError: see `start_jax`.
    """
    from flax_resnets.training.devices import start_jax
    from flax_resnets.training.tpu.libtpu import expect_no_tpu

    expect_no_tpu()
    start_jax()


def chosen_weights(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load_classifier` that `add_choice_of_weights` has added to the command line.

    Raises:
        UserError: the names of the classes cannot be read.
    """
    from flax_resnets.inference.class_names import given_names

    which = arguments.checkpoint
    if which.isascii() and which.isdecimal() and len(which) < 20:
        which = int(which)
    names = None if arguments.class_names is None else given_names(arguments.class_names)
    return {"checkpoint": which, "average": arguments.average or None, "class_names": names}


def run(arguments: argparse.Namespace) -> int:
    """Prints a row for each image; returns the exit code.

    Raises:
        UserError: the network cannot be loaded, or the output cannot be written.
    """
    done = failed = 0
    target = None if arguments.output is None else new_file("predict", arguments.output, arguments.force)
    classifier = load(arguments)
    with (
        contextlib.nullcontext(sys.stdout) if target is None else _whole(target) as out,
        progress_of_images(out) as progress,
    ):
        width = max(map(len, map(printable, classifier.words)), default=0)
        form = _as_json if arguments.json else _as_csv if arguments.csv else _Table(width)
        if arguments.csv:
            out.write("image,rank,class_name,index,probability,error\n")
        items = _items(arguments.images)
        for item, result in classifier.each_prediction(items, arguments.top_k, batch_size=arguments.batch_size):
            done += 1
            failed += isinstance(result, UserError)
            out.write(form(item.name, result))
            if progress is not None:
                progress(done, None)
    if failed:
        print(f"{arguments.program}: {failed:,} of {done:,} images cannot be read; their rows say why", file=sys.stderr)
    return 1 if failed else 0


def _items(arguments: Iterable[str]) -> "Iterator[Item]":
    """The images that the command line names; what is no image becomes one that cannot be read."""
    from flax_resnets.inference.images import each_image, unreadable

    for argument in arguments:
        for path in _lines() if argument == "-" else [argument]:
            try:
                yield from each_image(path)
            except UserError as error:  # a folder without images
                yield unreadable(path, error)


def _lines() -> Iterator[str]:
    """The lines of standard input: paths, whose bytes need not be text."""
    for line in sys.stdin.buffer:
        if path := line.rstrip(b"\r\n"):
            yield os.fsdecode(path)


def _as_json(name: str, result: "list[Prediction] | UserError") -> str:
    if isinstance(result, UserError):
        return json.dumps({"image": name, "error": _reason(name, result)}) + "\n"
    return json.dumps({"image": name, "predictions": [each._asdict() for each in result]}) + "\n"


def _reason(name: str, error: UserError) -> str:
    """The error without the image's name, which has a column of its own."""
    return str(error).removeprefix(f"{printable(name)}: ")


class _Line:
    """Takes what a `csv.writer` writes."""

    text = ""

    def write(self, text: str) -> None:
        self.text += text


def _as_csv(name: str, result: "list[Prediction] | UserError") -> str:
    line = _Line()
    writer = csv.writer(line, lineterminator="\n")
    if isinstance(result, UserError):
        writer.writerow([printable(name), "", "", "", "", _reason(name, result)])
    else:
        for rank, (class_name, index, probability) in enumerate(result, start=1):
            writer.writerow([printable(name), rank, printable(class_name), index, f"{probability:.6g}", ""])
    return line.text


class _Table:
    """Rows with aligned columns, although the later rows are not known yet.

    Args:
        width: of the longest class name.
    """

    def __init__(self, width: int):
        self._width = min(width, 30)
        self._name_width = 0

    def __call__(self, name: str, result: "list[Prediction] | UserError") -> str:
        self._name_width = max(self._name_width, len(printable(name)))
        if isinstance(result, UserError):
            return f"{printable(name):<{self._name_width}}  error: {_reason(name, result)}\n"
        cells = [f"{each.probability:>6.1%} {printable(each.class_name):<{self._width}}" for each in result]
        return f"{printable(name):<{self._name_width}}  {'  '.join(cells)}".rstrip() + "\n"


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[TextIO]:
    """Yields a file that gets its name when it is whole."""
    try:
        with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise UserError(f"predict: --output={target}: {error.strerror or error}; name another file") from None
