"""Makes the bundled sample again: `python -m flax_resnets.data.sample.make --data_dir DIR`."""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from flax_resnets.data.tfds.prepare import prepare
from flax_resnets.errors import UserError


def main(arguments: list[str] | None = None) -> None:
    """Makes the sample from the whole of Fashion-MNIST, in the directory where the package looks for it."""
    from flax_resnets.data.sample.builder import FashionMnistSample

    parser = argparse.ArgumentParser(description="Make the bundled sample of Fashion-MNIST.")
    parser.add_argument("--data_dir", help="where TFDS keeps fashion_mnist; downloaded there if it is not yet")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="default: inside this package")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        prepare(FashionMnistSample(full_data_dir=options.data_dir, data_dir=directory))
        made = options.output / "fashion_mnist_sample"
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(Path(directory) / "fashion_mnist_sample", made)
    print(f"wrote {made}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"{error}")
