"""Downloads and prepares a dataset of TFDS, so that no run has to wait for it.

    flax-resnets prepare imagenette/160px-v2 --data_dir data

`flax-resnets train` does the same when it needs a dataset that is not there. A dataset that is prepared already, as
array_record or tfrecord, is left as it is. The command prints where the dataset is, and the numbers of its examples.
"""

import argparse
import contextlib
import json
import sys

from flax_resnets.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("dataset", help="TFDS's name, such as cifar10, imagenette/160px-v2 or mnist:3.0.1")
    parser.add_argument("--data_dir", metavar="DIR", help="an existing directory; default TFDS's own")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")


def run(arguments: argparse.Namespace) -> None:
    """Prepares the dataset and prints what is there.

    Raises:
        UserError: TFDS has no such dataset, or it cannot be downloaded or prepared.
    """
    from flax_resnets.data import tfds
    from flax_resnets.data.config import DataConfig
    from flax_resnets.data.source import check_data_dir, kind_of

    if kind_of(arguments.dataset) is not tfds:
        raise UserError(f"prepare: {arguments.dataset}: is no dataset of TFDS, and needs no preparation")
    check_data_dir(DataConfig(dataset=arguments.dataset, data_dir=arguments.data_dir))
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        prepared = tfds.prepare_dataset(arguments.dataset, arguments.data_dir)
    if arguments.json:
        print(json.dumps(prepared._asdict()))
        return
    what = "was prepared already" if prepared.before else "is prepared"
    print(f"{prepared.name}: {what}, as {prepared.file_format} in {prepared.directory}")
    for name, examples in prepared.splits.items():
        print(f"  {name}: {examples:,} examples")
