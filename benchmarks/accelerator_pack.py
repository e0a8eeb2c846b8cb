"""Packs what accelerator.py needs on a machine without a network.

    python benchmarks/accelerator_pack.py --data_dir DIR --output packed

It makes three folders of at most 60 MB. Each is complete, so only one of them is copied to the machine:

- `wheels`: for the parts `correct` and `fast`, which need no data;
- `imagenette`: the same wheels, and in `data/` Imagenette as JPEGs of 128 px, which is read as `imagenette/160px-v2`;
- `fashion_mnist`: the same wheels, and in `data/` Fashion-MNIST, unchanged.

The wheels are for Python 3.12 on Linux, x86-64. They are the packages that the trainer imports and that are missing on
a machine with jax, flax, optax, orbax-checkpoint, einops, numpy, pillow, matplotlib and rich. pip downloads them. On
the other machine this command installs them:

    python -m pip install --no-index --no-deps --find-links FOLDER/wheels -r FOLDER/requirements.txt

`--data_dir` is the directory in which TFDS has prepared `fashion_mnist` and `imagenette/160px-v2`; by default TFDS's
own. `--only` packs one of the three. A folder that exists already is not changed. This and other mistakes give one line
and exit code 2.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks.on_accelerator.results import PACKED  # noqa: E402
from benchmarks.on_accelerator.rows import Parser  # noqa: E402
from flax_resnets.errors import UserError  # noqa: E402

# What is needed to import the trainer, to open a dataset and to stream it, found by trying. It leaves out dependencies
# of TFDS that are not used, such as pyarrow (49 MB), requests, googleapis-common-protos and psutil. So pip must not
# resolve dependencies.
WHEELS = (
    "array_record",
    "cloudpickle",
    "dm-tree",
    "grain",
    "immutabledict",
    "importlib_resources",
    "portpicker",
    "promise",
    "simplejpeg",
    "six",
    "tensorboardX",
    "tensorflow-datasets",
    "tensorflow-metadata",
    "toml",
    "tqdm",
    "wrapt",
)
_PYTHON = "3.12"
# pip requires an exact match with one of these.
_PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)), "manylinux2014_x86_64")

MOST_BYTES = 60_000_000
SIDE, QUALITY = 128, 65
"""Side of the packed images in pixels, and their JPEG quality: the best with which images and wheels fit into 60 MB."""

_DIFFERENCE = f"JPEGs of {SIDE} px and quality {QUALITY}, each picture of the 160 px ones squashed to that square"
IMAGENETTE, FASHION = "imagenette/160px-v2", "fashion_mnist"


def download_wheels(folder: Path) -> None:
    """Downloads the wheels with pip, and builds those of packages that have none.

    Raises:
        UserError: pip fails; the message has its last line.
    """
    folder.mkdir(parents=True)
    target = ["--python-version", _PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    target += [f"--platform={platform}" for platform in _PLATFORMS]
    for name in WHEELS:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        done = subprocess.run(
            [*pip, "download", "--no-deps", *target, f"--dest={folder}", name], capture_output=True, text=True
        )
        if done.returncode:  # there is no wheel; a package in pure Python can be built on any machine
            done = subprocess.run(
                [*pip, "wheel", "--no-deps", f"--wheel-dir={folder}", name], capture_output=True, text=True
            )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{name}: pip gets no wheel of it: {reason[:300]}")
    for path in folder.iterdir():
        if not path.name.endswith(("-none-any.whl", "_x86_64.whl")):
            raise UserError(f"{path.name}: not a wheel for Linux on x86-64; pack on such a machine")


def pack_imagenette(data_dir: Path | None, data: Path, quality: int = QUALITY) -> None:
    """Writes Imagenette with smaller images, as a dataset that TFDS reads under the same name.

    Args:
        data_dir: directory in which TFDS has prepared `imagenette/160px-v2`.
        data: the `data_dir` of the packed dataset.
        quality: quality of the JPEGs.

    Raises:
        UserError: the dataset is missing, or one of its images is broken.
    """
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    from flax_resnets.data.cache import resized
    from flax_resnets.data.source import open_source

    sizes: dict[str, tuple[int, int]] = {}
    target = data / "imagenette" / "160px-v2"
    for split in ("train", "validation"):
        source = open_source(IMAGENETTE, split, data_dir)  # type: ignore[arg-type]
        directory = target / source.directory.name
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"imagenette-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")  # as TFDS writes it
        written = 0
        for index in range(len(source)):
            file = io.BytesIO()
            image = Image.fromarray(resized(source.image(index), SIDE, "squash"))
            image.save(file, "JPEG", quality=quality, optimize=True, progressive=True)
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(file.getvalue())
            example.features.feature["label"].int64_list.value.append(source.label(index))
            record = example.SerializeToString()
            writer.write(record)
            written += len(record)
        writer.close()
        sizes[split] = len(source), written
        for name in ("features.json", "label.labels.txt"):
            shutil.copyfile(source.directory / name, directory / name)
        info = json.loads((source.directory / "dataset_info.json").read_text())
    info["description"] = f"{info['description']}\n\nPacked: {_DIFFERENCE}."
    for each in info["splits"]:
        count, written = sizes[each["name"]]
        each |= {"numBytes": str(written), "shardLengths": [str(count)]}
    (directory / "dataset_info.json").write_text(json.dumps(info, indent=2) + "\n")
    _describe(data / "imagenette", {IMAGENETTE: {"differs": _DIFFERENCE, "fields": {"store_size": str(SIDE)}}})


def pack_fashion_mnist(data_dir: Path | None, data: Path) -> None:
    """Copies Fashion-MNIST as TFDS has prepared it; for arguments and errors see `pack_imagenette`."""
    from flax_resnets.data.source import open_source

    source = open_source(FASHION, "train", data_dir)
    shutil.copytree(source.directory, data / FASHION / source.directory.name, copy_function=shutil.copyfile)
    _describe(data / FASHION, {FASHION: {"differs": None, "fields": {}}})


def _describe(directory: Path, sets: dict[str, Any]) -> None:
    (directory / PACKED).write_text(json.dumps(sets, indent=2) + "\n")


PACKS = {"wheels": None, "imagenette": pack_imagenette, "fashion_mnist": pack_fashion_mnist}


def pack(names: list[str], data_dir: Path | None, output: Path) -> dict[str, int]:
    """Makes the folders; returns their sizes in bytes.

    Args:
        names: keys of `PACKS`.
        data_dir: directory of TFDS's datasets.
        output: directory in which the folders are made. A folder gets its final name when it is complete.

    Raises:
        UserError: a folder exists already or is too large, or its content cannot be downloaded or read.
    """
    if found := [name for name in names if (output / name).exists()]:
        raise UserError(f"--output={output}: has {found[0]} already; delete it, or name another directory")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output={output}: {error.strerror}; name a directory that can be written") from None
    made = {}
    with tempfile.TemporaryDirectory(dir=output, prefix="half-made-") as scratch:
        wheels = Path(scratch, "all-wheels")
        download_wheels(wheels)
        for name in names:
            folder = Path(scratch, name)
            shutil.copytree(wheels, folder / "wheels")
            (folder / "requirements.txt").write_text("".join(f"{each}\n" for each in WHEELS))
            if packed := PACKS[name]:
                packed(data_dir, folder / "data")
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if size > MOST_BYTES:
                raise UserError(f"{name}: {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}")
            folder.rename(output / name)
            made[name] = size
    return made


def main(arguments: list[str]) -> int:
    """Runs one command line; returns the exit code."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, metavar="DIR", help="where TFDS has the datasets prepared")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "accelerator", metavar="DIR")
    parser.add_argument("--only", action="append", choices=PACKS, help="pack only this folder")
    try:
        parsed = parser.parse_args(arguments)
        for name, size in pack(parsed.only or list(PACKS), parsed.data_dir, parsed.output).items():
            print(f"{parsed.output / name}: {size / 1e6:.1f} MB")
    except (UserError, OSError) as error:
        print(f"accelerator_pack.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
