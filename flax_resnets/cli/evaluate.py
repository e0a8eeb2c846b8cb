"""Evaluates a trained network on a labelled set: accuracies, figures of each class, calibration, and pictures.

    flax-resnets evaluate runs/quickstart
    flax-resnets evaluate runs/quickstart --dataset fashion_mnist --tta flip --output report

The network is a run's workdir, a folder that was saved from one, hf-hub:owner/name, or a name of timm's weights such as
resnet50.a1_in1k. Without --dataset it is the validation split of the run's own dataset, and accuracies and loss are
exactly those in its metrics.jsonl. --output gets the confusion matrix, the worst mistakes, the reliability diagram
(PNG) and all figures (evaluation.json). If an image may have any number of classes, it gets the figures of each class
in place of confusion matrix and diagram.
"""

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flax_resnets.cli.output import check_directory, is_file_or_new, make_directory, progress_of_images, write_file
from flax_resnets.cli.parser import Parser, whole_number
from flax_resnets.cli.predict import add_choice_of_classifier, add_source, load
from flax_resnets.cli.table import table
from flax_resnets.errors import UserError, printable
from flax_resnets.inference.whole_number import MOST_IN_A_STEP
from flax_resnets.paths import expanded

if TYPE_CHECKING:
    from flax_resnets.inference.evaluation import Evaluation
    from flax_resnets.inference.multilabel_evaluation import MultilabelEvaluation

_SHOWN = 30  # classes in the table; of more, those with the lowest F1
_MISTAKES = 5
_LISTED = 100  # mistakes in evaluation.json
_FILES = ("confusion.png", "classes.png", "mistakes.png", "reliability.png", "evaluation.json")


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    add_source(parser)
    parser.add_argument("--dataset", metavar="NAME", help="as in a recipe; default the run's own")
    parser.add_argument("--data_dir", "--data-dir", metavar="DIR", help="directory of the dataset; default the run's")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="validation or train, as training takes them, all, or the dataset's own name of a split, such as test; "
        "default validation, and all images of a folder that is not the run's and has no validation split",
    )
    parser.add_argument(
        "--tta", choices=("none", "flip", "five_crop"), help="test-time augmentation; default as the run was evaluated"
    )
    parser.add_argument(
        "--batch-size", type=whole_number(1, MOST_IN_A_STEP), metavar="N", help="images in a step; default the run's"
    )
    parser.add_argument("--skip-broken", action="store_true", help="leave out images that cannot be decoded")
    add_choice_of_classifier(parser)
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parser.add_argument("--output", metavar="DIR", help="directory for the pictures and all figures")
    parser.add_argument("--force", action="store_true", help="replace these files in --output if they are there")


def run(arguments: argparse.Namespace) -> None:
    """Prints the figures, and writes the files.

    Raises:
        UserError: the network or the data cannot be used, or the output cannot be written.
    """
    directory = None if arguments.output is None else _directory(arguments.output, arguments.force)
    classifier = load(arguments)
    with progress_of_images() as progress:
        try:
            evaluation = classifier.evaluate(
                arguments.dataset,
                arguments.split,
                data_dir=arguments.data_dir,
                batch_size=arguments.batch_size,
                tta=arguments.tta,
                broken_images="skip" if arguments.skip_broken else None,
                progress=progress,
            )
        except UserError as error:
            message = str(error).replace("broken_images=skip leaves", "--skip-broken leaves")
            raise UserError(f"--{message}" if message.startswith("split=") else message) from None
    if not arguments.json:
        print(f"{printable(arguments.source)} on {_in_words(evaluation)}", flush=True)
    files = []
    try:  # when the figures are printed, which a full disk shall not take away
        files = [] if directory is None else _write(evaluation, directory)
    finally:
        if arguments.json:
            print(json.dumps(evaluation.as_dict() | {"files": [str(path) for path in files]}))
    if files and not arguments.json:
        print(f"\nin {directory}: {', '.join(path.name for path in files)}")


def _in_words(evaluation: "Evaluation | MultilabelEvaluation") -> str:
    from flax_resnets.inference.evaluation import Evaluation

    tta = f", with a test-time augmentation ({evaluation.tta})" if evaluation.tta else ""
    crop = f", centre crop {evaluation.crop_pct:.3g}" if evaluation.crop_pct != 1 else ""
    head = (
        f"{evaluation.dataset}: {evaluation.images:,} images of {len(evaluation.class_names):,} classes, "
        f"{evaluation.image_size} px{crop}{tta}"
    )
    of_images = isinstance(evaluation, Evaluation)
    rows, confused = (_of_images if of_images else _of_classes)(cast(Any, evaluation))
    width = max(len(row[0]) for row in rows)
    figures = "\n".join(f"{name:<{width}}  {value:>7.4f}  {what}".rstrip() for name, value, what in rows)
    columns = ["precision", "recall", "F1"] if of_images else ["AP", "precision", "recall", "F1"]
    classes = [each for each in evaluation.per_class if each.support]
    few = sorted(classes, key=lambda each: each.f1)[:_SHOWN] if len(classes) > _SHOWN else classes
    of_classes = table(
        ["class", "images", *columns],
        [[printable(each.class_name)[:40], f"{each.support:,}", *(f"{x:.3f}" for x in each[2:])] for each in few],
        left=1,
    )
    note = f"the {_SHOWN} classes with the lowest F1 of {len(classes):,}:\n" if len(few) < len(classes) else ""
    return f"{head}\n\n{figures}\n\n{note}{of_classes}{confused}"


def _of_images(evaluation: "Evaluation") -> tuple[list[tuple[str, float, str]], str]:
    """The figures of a set whose images have one class each, and its most frequent mistakes."""
    lower, upper = evaluation.accuracy_interval
    rows = [
        ("accuracy", evaluation.accuracy, f"95 % interval {lower:.4f} to {upper:.4f}"),
        *([("top-5 accuracy", evaluation.top5_accuracy, "")] if len(evaluation.class_names) > 5 else []),
        ("balanced accuracy", evaluation.balanced_accuracy, "mean recall of the classes"),
        ("F1", evaluation.macro_f1, "mean of the classes"),
        ("loss", evaluation.loss, "cross-entropy in nats"),
        ("calibration error", evaluation.calibration_error, "mean distance of confidence and accuracy"),
    ]
    confused = "".join(
        f"\n{count:>6,}  {printable(name)[:40]} → {printable(predicted)[:40]}"
        for name, predicted, count in evaluation.most_confused(_MISTAKES)
    )
    return rows, f"\n\nmost frequent mistakes: class → predicted{confused}" if confused else ""


def _of_classes(evaluation: "MultilabelEvaluation") -> tuple[list[tuple[str, float, str]], str]:
    """The figures of a set whose images may have any number of classes; nothing is confused there."""
    rows = [
        ("mean average precision", evaluation.mean_average_precision, "mean of the classes (AP)"),
        ("F1", evaluation.f1, "mean of the classes; predicted is what has a probability above 0.5"),
        ("micro F1", evaluation.micro_f1, "of all decisions together"),
        ("accuracy", evaluation.accuracy, "share of right decisions: images times classes"),
        ("exact match", evaluation.exact_match, "share of images with right decisions alone"),
        ("loss", evaluation.loss, "binary cross-entropy in nats"),
    ]
    return rows, ""


def _directory(path: str, force: bool) -> Path:
    """The directory of the output; it is checked before the network is loaded."""
    directory = expanded(path, "evaluate: --output")
    for name in _FILES:
        if not is_file_or_new(directory / name):
            raise UserError(f"evaluate: --output={directory}: its {name} is no file; name another directory")
    there = [name for name in _FILES if os.path.lexists(directory / name)]
    if there and not force:
        raise UserError(
            f"evaluate: --output={directory}: has {there[0]}; name another directory, or replace it with --force"
        )
    check_directory("evaluate", directory)
    return directory


def _write(evaluation: "Evaluation | MultilabelEvaluation", directory: Path) -> list[Path]:
    """Writes the pictures and all figures; returns the paths."""
    from flax_resnets.inference import evaluation_figures

    make_directory("evaluate", directory)
    worst = [each.as_dict() for each in evaluation.worst(_LISTED)]
    figures = json.dumps(evaluation.as_dict() | {"worst_mistakes": worst}, indent=2)
    contents = {**evaluation_figures.pictures(evaluation), "evaluation.json": f"{figures}\n".encode()}
    for name, content in contents.items():
        write_file("evaluate", directory / name, content)
    return [directory / name for name in contents]
