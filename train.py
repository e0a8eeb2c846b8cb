"""`python train.py --config configs/quickstart.py` is `flax-resnets train --config quickstart`, in a checkout."""

import sys

from flax_resnets import cli


def main(arguments: list[str]) -> int:
    """Runs one command line of `train` in this process; returns the exit code."""
    return cli.main(["train", *arguments], "train.py")


if __name__ == "__main__":
    cli.start(["train", *sys.argv[1:]], "train.py")
