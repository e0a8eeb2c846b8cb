"""Reads `.npz` files: zip archives of `.npy` members, each of which is a small header and the numbers.

`numpy.load` would allocate the memory that a member's header claims, even if the numbers are missing. Here the headers
are checked first, and a member's numbers are read only when they are asked for. Arrays of objects, which would be
pickles, are refused by their dtype.
"""

import math
import zipfile
from pathlib import Path

import numpy as np

from flax_resnets.errors import UserError
from flax_resnets.weights.stored import Stored

_END_RECORD = 22  # bytes, for an archive without a comment


def read_npz(path: Path) -> dict[str, Stored]:
    """The tensors of an archive that `numpy.savez` wrote, by name.

    Args:
        path: path of an existing file.

    Raises:
        UserError: the file is not such an archive, or one of its members is not an array of numbers.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "model.npz")
        ...     np.savez(path, **{"fc.bias": np.float32([1, 2])})
        ...     read_npz(path)["fc.bias"].read().tolist()
        [1.0, 2.0]
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # zipfile trusts the lengths in an entry: an entry that claims a long comment hides the entries after it.
            if any(each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for each in members):
                raise UserError(f"{path}: not a whole .npz file: compressed by other means than numpy's")
            if len(members) != _claimed_members(path):
                raise UserError(f"{path}: not a whole .npz file: its list of members is damaged")
            stored = {member.filename.removesuffix(".npy"): _header(path, archive, member) for member in members}
    except UserError:
        raise
    except Exception as error:  # zipfile and numpy raise many types of error for damaged files
        raise UserError(f"{path}: not a whole .npz file ({type(error).__name__})") from error
    if len(stored) < len(members):
        raise UserError(f"{path}: not a whole .npz file: a name occurs twice")
    return stored


def _claimed_members(path: Path) -> int:
    """The number of members in the record at the end of the archive. numpy writes nothing after that record."""
    with path.open("rb") as file:
        file.seek(-_END_RECORD, 2)
        return int.from_bytes(file.read()[10:12], "little")


def _header(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Stored:
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        # Later versions are for records with many fields; their headers may claim 4 GB.
        if version != (1, 0):
            raise ValueError(f"version {version} of .npy")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or start + size != member.file_size:
        raise UserError(f"{path}: {member.filename[:80]!r} is not an array of numbers of the size it claims")

    def read() -> np.ndarray:
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member.filename) as file:
                # Everything is read from the start, and one byte beyond the end, or zipfile would not check the CRC.
                file.read(start)
                content = file.read(size + 1)
            return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")
        except Exception as error:
            raise UserError(f"{path}: {member.filename[:80]!r} is damaged ({type(error).__name__})") from error

    return Stored(shape, dtype.name, read)
