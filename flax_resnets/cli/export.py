"""Writes a trained network into a file for programs that do not have this library.

    flax-resnets export runs/quickstart
    flax-resnets export runs/quickstart --output sneakers.onnx

The network is a run's workdir, a folder that was saved from one, hf-hub:owner/name, or a name of timm's weights such as
resnet50.a1_in1k. The formats:

    stablehlo    a program that needs only jax and flatbuffers, for a CPU, a GPU or a TPU; the default, unless --output
                 ends as a file of another format
    onnx         a program for onnxruntime and others
    safetensors  the weights alone, under timm's names
    saved        a folder in timm's form, which flax-resnets and timm load

Programs take uint8 images and give logits. Beside a file lies a small one, with .json added to its name: input, output
and names of the classes.
"""

import argparse
import os
from pathlib import Path

from flax_resnets.cli.output import size_in_words
from flax_resnets.cli.parser import Parser
from flax_resnets.cli.predict import add_choice_of_classifier, add_source, load
from flax_resnets.errors import printable


def add_arguments(parser: Parser) -> None:
    """Adds the command's arguments."""
    add_source(parser)
    parser.add_argument(
        "--format", help="stablehlo, onnx, safetensors or saved; default that of --output's ending, or else stablehlo"
    )
    parser.add_argument(
        "--output", metavar="PATH", help="the file, or the folder for saved; default the source's name, in this folder"
    )
    add_choice_of_classifier(parser)
    parser.add_argument("--force", action="store_true", help="replace what exists at --output")


def run(arguments: argparse.Namespace) -> None:
    """Writes the file or folder, and prints where it lies.

    Raises:
        UserError: the network cannot be loaded, or the output cannot be written.
    """
    from flax_resnets.inference.export import FORMATS, check_output, meant_format

    output = arguments.output
    named = meant_format(arguments.format, output, ("export: --output", "--format"))
    kind = FORMATS.get(named)
    if output is None:
        output = _name(arguments.source) + (kind.suffix if kind else "")
    # Before the network is loaded.
    check_output(output, named, arguments.force, ("export: --output", "export: --format", "--force"))
    classifier = load(arguments)
    written = classifier.export(output, named, arguments.force)
    print("\n".join(_line(path) for path in written))


def _name(source: str) -> str:
    """The last part of a path or of a repository's name."""
    return os.path.basename(source.rstrip("/")) if source.startswith("hf-hub:") else Path(source).resolve().name


def _line(path: Path) -> str:
    return f"{printable(str(path))}: {size_in_words(path.stat().st_size)}"
