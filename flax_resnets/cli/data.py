"""Tells what a dataset holds: classes and how many images each has, sizes, damaged and repeated images, mean and std.

    flax-resnets data fashion_mnist_sample
    flax-resnets data imagenette/160px-v2 --data_dir DIR --check --picture classes.png

All records are read. Damaged images are found with --check, which decodes every image. Mean and standard deviation are
those that a run with mean=none and std=none computes at the same store_size: from all training images, or from 10,000
of them, evenly spaced. The picture shows images of each class. --config.FIELD=VALUE sets a field of the dataset, such
as --config.validation_split=test or --config.store_size=128.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from flax_resnets.cli.output import is_file_or_new, write_file
from flax_resnets.cli.parser import Parser, nearest
from flax_resnets.cli.table import table
from flax_resnets.errors import UserError, printable
from flax_resnets.paths import expanded

if TYPE_CHECKING:
    from flax_resnets.data.config import DataConfig
    from flax_resnets.data.contents import Contents
    from flax_resnets.data.source import Source

_LARGEST, _SMALLEST = 10, 5  # classes of a long list that are shown
_SIDES = ("shorter_side", "longer_side")
_PAIRS = 3  # of equal images that are named
_COLUMNS = 8  # images of a class in the picture
_SHOWN = 120  # pixels of an image in the picture
_SIDE = 224  # to which larger images are resized for their mean, unless store_size is set


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("dataset", help="as the field `dataset` of a recipe, such as imagenette/160px-v2")
    parser.add_argument("--data_dir", metavar="DIR", help="of the dataset; default TFDS's own")
    parser.add_argument("--check", action="store_true", help="decode every image, and list the damaged ones")
    parser.add_argument("--picture", metavar="FILE.png", help="draw images of each class into this file")
    parser.add_argument("--force", action="store_true", help="overwrite the picture if it exists")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_fields()


def run(arguments: argparse.Namespace) -> None:
    """Prints what the dataset holds, and draws the picture.

    Raises:
        UserError: there is no such dataset or field, or the picture cannot be written.
    """
    from flax_resnets.data.contents import contents_of, sampled_statistics
    from flax_resnets.data.source import open_split
    from flax_resnets.data.statistics import MOST_IMAGES
    from flax_resnets.training.display import Display

    config = _config(arguments)
    picture = _picture_file(arguments)
    display = Display(silent=arguments.json)
    lacking = ""
    # What is said while a dataset is prepared must not stand beside the line of JSON.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        sources: dict[str, Source] = {"train": open_split(config, "train")}
        try:
            sources["validation"] = open_split(config, "validation")
        except UserError as error:
            if config.validation_split is not None:  # asked for in words
                raise
            lacking = str(error)
    contents: dict[str, Contents] = {}
    for split, source in sources.items():
        with display.bar(f"reading {source.dataset} {source.split}", len(source), "images/s") as bar:
            contents[split] = contents_of(source, arguments.check, bar.to)
    train = sources["train"]
    sides = contents["train"].shorter_side
    size = config.store_size or min(sides[1] if sides else _SIDE, _SIDE)
    with display.bar("mean and std of the training images", min(len(train), MOST_IMAGES), "images/s") as bar:
        statistics, broken = sampled_statistics(train, size, config.resize, bar.to)
    report = _report(sources, contents)
    report["lacking"] = lacking
    if statistics is not None:
        report.update(statistics._asdict(), mean_at={"size": size, "resize": config.resize})
    if broken and not arguments.check:
        number = f"{len(broken):,} of the {min(len(train), MOST_IMAGES):,} images read for mean and std are damaged"
        report["remarks"].append(f"{number}; --check finds all")
    print(json.dumps(report) if arguments.json else _in_words(report, train))
    if picture is not None:
        write_file("data", picture, _draw(train, contents["train"]))
        if not arguments.json:
            print(picture)


def _config(arguments: argparse.Namespace) -> "DataConfig":
    """The dataset's configuration, from the command line."""
    from flax_resnets.data.config import DataConfig
    from flax_resnets.fields import field_types, parsed

    types = field_types(DataConfig)
    given = {"dataset": arguments.dataset}
    for name, text in arguments.overrides.items():
        if name not in types:
            raise UserError(f"data: --config.{name}: no such field of a dataset; {nearest(name, types)}")
        given[name] = parsed(name, text, types[name])
    if arguments.data_dir is not None:
        given["data_dir"] = arguments.data_dir
    return DataConfig(**given)


def _picture_file(arguments: argparse.Namespace) -> Path | None:
    """The file of the picture; raises before minutes are spent on what cannot be written."""
    if arguments.picture is None:
        return None
    path = expanded(arguments.picture, "data: --picture")
    if path.suffix.lower() != ".png":
        raise UserError(f"data: --picture={path}: must be a file whose name ends in .png")
    if not is_file_or_new(path) or (os.path.lexists(path) and not arguments.force):
        raise UserError(f"data: --picture={path}: is there already; name another, or --force overwrites a file")
    if not os.path.isdir(path.parent):
        raise UserError(f"data: --picture={path}: no such directory as {path.parent}")
    return path


def _report(sources: Mapping[str, "Source"], contents: Mapping[str, "Contents"]) -> dict[str, Any]:
    """What the command tells, as it is printed with --json; without mean and std."""
    from flax_resnets.data.identity import identity_of

    train, validation = sources["train"], sources.get("validation")
    identity = identity_of(train, validation or train)
    counts = {split: each.class_counts for split, each in contents.items()}
    remarks = list(dict.fromkeys(note for source in sources.values() for note in source.notes))
    remarks += dataclasses.replace(identity, class_counts=counts).remarks()
    in_both = None
    for split, each in contents.items():
        if each.repeated:
            source = sources[split]
            remarks.append(f"copies in {source.split}, byte by byte: {_pairs(each.repeated, source, source)}")
    if validation is not None:
        pairs = contents["validation"].also_in(contents["train"])
        in_both = len(pairs)
        if pairs:
            remarks.append(
                f"{in_both:,} of the {len(validation):,} validation images are training images too, byte by byte; on "
                f"them the accuracy says nothing about new images: {_pairs(pairs, validation, train)}"
            )
    return {
        "dataset": identity.dataset,
        "version": identity.version,
        "directory": str(train.directory),
        "fingerprint": identity.fingerprint if validation else train.fingerprint,
        "channels": train.channels,
        "class_names": train.class_names,
        "splits": {
            split: {
                "name": sources[split].split,
                "images": len(sources[split]),
                "class_counts": each.class_counts,
                **({} if each.labels_per_image is None else {"labels_per_image": each.labels_per_image}),
                "shorter_side": each.shorter_side,
                "longer_side": each.longer_side,
                "repeated": len(each.repeated),
                "broken": each.broken,
                "checked": each.checked,
            }
            for split, each in contents.items()
        },
        "in_both": in_both,
        "remarks": remarks,
    }


def _pairs(pairs: Sequence[tuple[int, int]], of: "Source", first: "Source") -> str:
    """Names the first pairs of equal images."""
    root = os.path.join(os.path.commonpath([of.directory, first.directory]), "")
    shown = [(of.image_name(one), first.image_name(other)) for one, other in pairs[:_PAIRS]]
    names = [" = ".join(printable(name.removeprefix(root))[-80:] for name in pair) for pair in shown]
    return ", ".join(names) + (f" and {len(pairs) - _PAIRS:,} more" if pairs[_PAIRS:] else "")


def _in_words(report: Mapping[str, Any], train: "Source") -> str:
    """The report as text."""
    splits = report["splits"]
    colour = "grey" if report["channels"] == 1 else "colour"
    name = f"{report['dataset']} {report['version']}".rstrip()
    several = ", any number of them an image" if train.multilabel else ""
    first = f"{name} in {report['directory']}: {train.num_classes:,} classes{several}, {colour}"
    rows = [
        ["split", *(each["name"] for each in splits.values())],
        ["images", *(f"{each['images']:,}" for each in splits.values())],
        *([side.replace("_", " "), *(_sides(each[side]) for each in splits.values())] for side in _SIDES),
        *([["labels an image", *(_labels(each) for each in splits.values())]] if train.multilabel else []),
        ["copies of others", *(f"{each['repeated']:,}" for each in splits.values())],
        ["damaged", *(_damaged(each) for each in splits.values())],
    ]
    shown = _chosen(splits["train"]["class_counts"])
    classes: list[list[str]] = []
    for label in shown:
        if classes and len(shown) < train.num_classes and len(classes) == _LARGEST:
            classes.append([f"... {train.num_classes - len(shown):,} more", *("" for _ in splits)])
        classes.append([_class_name(train, label), *(f"{each['class_counts'][label]:,}" for each in splits.values())])
    lines = [first, "", table(["", *splits], rows, left=1), "", table(["class", *splits], classes, left=1), ""]
    if "mean" in report:
        mean, std = (",".join(f"{number:.4f}" for number in report[name]) for name in ("mean", "std"))
        at = report["mean_at"]
        lines.append(f"mean {mean}, std {std}, at {at['size']} px ({at['resize']})")
    lines.append(f"fingerprint {report['fingerprint']}")
    if report["lacking"]:
        lines.append(f"no validation split: {report['lacking']}")
    lines += report["remarks"]
    lines += [message for each in splits.values() for message in each["broken"]]
    return "\n".join(lines)


def _sides(sides: Sequence[int] | None) -> str:
    if sides is None:
        return "unknown"
    least, median, most = sides
    return f"{least} px" if least == most else f"{least} to {most} px, median {median}"


def _labels(split: Mapping[str, Any]) -> str:
    least, mean, most = split["labels_per_image"]
    return f"{least} to {most}, mean {mean:.2f}"


def _damaged(split: Mapping[str, Any]) -> str:
    return f"{len(split['broken']):,}" if split["checked"] or split["broken"] else "not checked"


def _chosen(counts: Sequence[int]) -> list[int]:
    """The classes to show, the largest first: all, or of a long list the largest and the smallest."""
    order = sorted(range(len(counts)), key=lambda label: -counts[label])
    return order if len(order) <= _LARGEST + _SMALLEST else order[:_LARGEST] + order[-_SMALLEST:]


def _class_name(source: "Source", label: int) -> str:
    return printable(source.class_names[label])[:60]


def _draw(source: "Source", contents: "Contents") -> bytes:
    """Draws images of each class that is shown, evenly spaced among those of the class; returns a PNG."""
    from flax_resnets.data.labels import classes_of, has_class
    from flax_resnets.data.statistics import evenly_spaced
    from flax_resnets.figures import new_figure, png

    shown = _chosen(contents.class_counts)
    width, height = (1.2, 1.45) if not source.multilabel else (1.5, 2.2)  # with lines for the other classes
    figure = new_figure(width * _COLUMNS, height * len(shown))
    grid = figure.subplots(len(shown), _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, label in zip(grid, shown, strict=True):
        title = f"{_class_name(source, label)} ({contents.class_counts[label]:,})"
        row[0].set_title(title, fontsize=9, loc="left", parse_math=False)
        images = np.flatnonzero(has_class(contents.labels, label))
        for axes, index in zip(row, images[evenly_spaced(len(images), _COLUMNS)], strict=False):
            try:
                pixels = source.image(int(index))
            except UserError:
                continue  # it is damaged, which --check tells
            picture = Image.fromarray(pixels[..., 0] if source.channels == 1 else pixels)
            picture.thumbnail((_SHOWN, _SHOWN))
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
            others = [_class_name(source, other)[:20] for other in classes_of(contents.labels[index]) if other != label]
            text = "\n".join(f"+ {other}" for other in (others[:3] if others[4:] else others[:4]))
            text += f"\n+ {len(others) - 3} more" if others[4:] else ""
            axes.text(0, -0.04, text, transform=axes.transAxes, va="top", fontsize=7, color="0.3", parse_math=False)
    return png(figure)
