"""`python train.py --config configs/quickstart.py` is `python -m flax_resnets train --config quickstart`."""

import sys

from flax_resnets import cli

if __name__ == "__main__":
    cli.start(["train", *sys.argv[1:]], "train.py")
