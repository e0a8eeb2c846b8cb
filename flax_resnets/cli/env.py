"""Prints what a report of a bug needs: versions, the machine, JAX's devices, and settings that change what it does.

    flax-resnets env

Look at it before you publish it: it has the directory that the package is imported from, and the variables that it
prints may have other directories and hosts.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import flax_resnets
from flax_resnets.cli.table import table
from flax_resnets.errors import UserError
from flax_resnets.machine import describe_machine, library_versions
from flax_resnets.training.devices import devices_in_words, idle_accelerator, start_jax
from flax_resnets.training.tpu.libtpu import expect_no_tpu

# Whatever the extras install; those that are not installed are left out.
_OPTIONAL = (
    "grain", "array_record", "tensorflow-datasets", "tensorflow", "pillow", "simplejpeg", "pillow-heif", "pyarrow",
    "huggingface_hub", "gcsfs", "onnx", "onnxruntime", "torch", "wandb", "libtpu", "jax-cuda12-plugin",
    "jax-cuda13-plugin",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prints the facts; that JAX cannot start is one of them."""
    facts = environment()
    if arguments.json:
        print(json.dumps(facts))
        return
    rows = [[name, str(value)] for name, value in facts.items() if not isinstance(value, dict)]
    rows += [[name, str(value)] for each in facts.values() if isinstance(each, dict) for name, value in each.items()]
    print(table(["", ""], rows, left=2).lstrip())


def environment() -> dict[str, Any]:
    """The facts by name: strings and numbers, and `versions` and `environment` as dicts."""
    machine, settings = describe_machine(), _own_settings()
    expect_no_tpu()  # sets variables that no user set
    try:
        start_jax()
        devices, idle = devices_in_words(), idle_accelerator()
    except UserError as error:
        devices, idle = f"none: {error}", None
    return {
        "flax_resnets": flax_resnets.__version__,
        "imported from": str(Path(flax_resnets.__file__).parent),
        "python": f"{platform.python_implementation()} {machine['python']}",
        "platform": machine["platform"],
        "cpu": machine["cpu"],
        "cores": machine["cores"],
        "devices": devices,
        **({"warning": idle} if idle else {}),
        "versions": library_versions() | library_versions(_OPTIONAL),
        "environment": {**machine["environment"], **settings},
    }


def _own_settings() -> dict[str, str]:
    """Further variables that decide what a command does, if they are set."""
    names = ("FLAX_RESNETS_", "CUDA_VISIBLE_DEVICES", "SLURM_NTASKS", "HF_HUB_OFFLINE", "NO_COLOR")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(names)}
