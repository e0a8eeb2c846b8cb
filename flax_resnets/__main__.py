"""`python -m flax_resnets <command>`; the commands are in `flax_resnets.cli`."""

import sys

from flax_resnets.cli import main
from flax_resnets.errors import plain_warnings

if __name__ == "__main__":
    plain_warnings("flax_resnets")
    sys.exit(main(sys.argv[1:]))
