"""`python -m flax_resnets COMMAND`; the commands are in `flax_resnets.cli`."""

from flax_resnets.cli import console

if __name__ == "__main__":
    console()
