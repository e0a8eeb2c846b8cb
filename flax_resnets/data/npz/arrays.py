"""Finds the arrays of the splits in `.npz` files, and reads them."""

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flax_resnets.data.config import DataConfig
from flax_resnets.data.found import other_kind
from flax_resnets.data.shares import choose_splits
from flax_resnets.errors import UserError

EXPECTED: str = (
    "a directory with one .npz file, or with train.npz and one of val.npz, valid.npz, validation.npz and test.npz; in "
    "it images (uint8) and labels, or for each split arrays such as train_images and train_labels, or x_train, y_train"
)
_IMAGES, _LABELS = ("images", "x"), ("labels", "y")


class Arrays(NamedTuple):
    """The arrays of a split.

    Attributes:
        file: the file that has them.
        images, labels: their names in it.
    """

    file: Path
    images: str
    labels: str

    @property
    def where(self) -> str:
        """The images, for messages."""
        return f"{self.file}, {self.images}"


def find_arrays(root: Path, config: DataConfig) -> tuple[dict[str, Arrays], tuple[str, str]]:
    """The arrays of each split; no array is read.

    Args:
        root: the directory.
        config: may name the arrays and the splits.

    Returns:
        The arrays by split, and the names of the training and the validation split; the second is empty if that is to
        be a share of the first.

    Raises:
        UserError: there are no such files or arrays, or no such splits.
    """
    files = sorted(path for path in _listed(root) if path.suffix == ".npz" and path.name[0] != ".")
    if not files:
        raise UserError(f"{root}: has no .npz file; {other_kind(root, 'npz') or f'expected is {EXPECTED}'}")
    words = tuple(
        (key,) if (key := getattr(config, field)) is not None else usual
        for field, usual in (("image_key", _IMAGES), ("label_key", _LABELS))
    )
    found: dict[str, Arrays] = {}
    for file in files:
        own = _in_file(file, *words)
        if len(files) > 1 and set(own) != {""}:
            raise UserError(
                f"{root}: has {len(files)} .npz files, of which {file.name} names its splits itself; put it into a "
                "directory of its own"
            )
        found.update({(name or ("all" if len(files) == 1 else file.stem)): each for name, each in own.items()})
    if [*found] == ["all"] and config.train_split is None and config.validation_split is None:
        return found, ("all", "")
    return found, choose_splits(found, config, str(files[0] if len(files) == 1 else root))


def _listed(root: Path) -> list[Path]:
    try:
        return list(root.iterdir())
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}; expected is {EXPECTED}") from None


def _in_file(file: Path, images: tuple[str, ...], labels: tuple[str, ...]) -> dict[str, Arrays]:
    """The arrays in a file, by the names of the splits; the empty name for arrays that name none."""
    names = names_in(file)
    of_images, of_labels = (_by_split(names, words) for words in (images, labels))
    shared = [split for split in of_images if split in of_labels]
    for key, found in (("image_key", of_images), ("label_key", of_labels)):
        for several in (found[split] for split in shared if len(found[split]) > 1):
            raise UserError(f"{file}: has {' and '.join(several[:3])[:200]}; {key} names one of them")
    both = {split: Arrays(file, of_images[split][0], of_labels[split][0]) for split in shared}
    if not both:
        there = ", ".join(names[:8])[:150] or "nothing"
        raise UserError(
            f"{file}: has {there}; needs {' or '.join(images)} and {' or '.join(labels)}, alone or with a split's "
            f"name, such as train_{images[0]}; image_key and label_key name other arrays"
        )
    return both


def _by_split(names: list[str], words: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        if (split := _split_of(name, words)) is not None:
            found.setdefault(split, []).append(name)
    return found


def _split_of(name: str, words: tuple[str, ...]) -> str | None:
    """The split in an array's name; empty if it names none; None if it has another meaning.

    Example:
        >>> [_split_of(name, ("images", "x")) for name in ("images", "val_images", "x_train", "index")]
        ['', 'val', 'train', None]
    """
    for word in words:
        if name == word:
            return ""
        if name.endswith(f"_{word}") or name.startswith(f"{word}_"):
            return name.removesuffix(f"_{word}") if name.endswith(f"_{word}") else name.removeprefix(f"{word}_")
    return None


@contextlib.contextmanager
def _damage_is_named(file: Path, name: str = "") -> Iterator[None]:
    where = f"{file}, {name}" if name else f"{file}"
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from None
    except MemoryError:
        raise UserError(f"{where}: does not fit into memory") from None
    except Exception as error:  # zipfile, zlib, and NumPy with Python's tokenizer raise many kinds
        raise UserError(f"{where}: cannot be read ({str(error)[:200]}); must be what numpy.savez wrote") from None


def names_in(file: Path) -> list[str]:
    """The names of the arrays in a file, in order.

    Raises:
        UserError: it is no `.npz` file.
    """
    with _damage_is_named(file), zipfile.ZipFile(file) as members:
        return [name.removesuffix(".npy") for name in members.namelist() if name.endswith(".npy")]


def read_array(file: Path, name: str) -> np.ndarray:
    """An array in a file.

    Raises:
        UserError: it is damaged, does not fit into memory, or holds Python objects.
    """
    with _damage_is_named(file, name), zipfile.ZipFile(file) as members, members.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _header(file: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array, which is not read."""
    with _damage_is_named(file, name), zipfile.ZipFile(file) as members, members.open(f"{name}.npy") as member:
        old = np.lib.format.read_magic(member) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(member)
        return shape, dtype


def image_shape(arrays: Arrays) -> tuple[int, int, int, int]:
    """`(N, H, W, C)` of a split's images, of which `(N, H, W)` is a form too. They are not read.

    Raises:
        UserError: they are no uint8 images of 1 or 3 channels.
    """
    shape, dtype = _header(arrays.file, arrays.images)
    if dtype != np.uint8:
        raise UserError(
            f"{arrays.where}: is {dtype}; must be uint8, from 0 to 255; of numbers from 0 to 1: "
            "(255 * x).round().astype('uint8')"
        )
    whole = (*shape, 1) if len(shape) == 3 else shape
    if len(whole) != 4 or whole[3] not in (1, 3) or 0 in whole:
        first = len(shape) == 4 and shape[1] in (1, 3)
        right = "x.transpose(0, 2, 3, 1) brings the channels to the end" if first else "C must be 1 or 3"
        raise UserError(f"{arrays.where}: has the shape {shape}; must be (N, H, W) or (N, H, W, C); {right}")
    return whole
