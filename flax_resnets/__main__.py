"""`python -m flax_resnets <command>`; the commands are in `flax_resnets.cli`."""

import sys

from flax_resnets.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
