"""Which checkpoints a run has."""

from pathlib import Path

from flax_resnets import storage
from flax_resnets.errors import UserError


def saved_steps(checkpoints: Path) -> list[int]:
    """The steps in a run's `checkpoints/`, in order; none if there is no such directory. A checkpoint may be damaged.

    Example:
        >>> saved_steps(Path("no/such/directory"))
        []

    Raises:
        UserError: the directory cannot be read.
    """
    try:
        names = storage.names(checkpoints) or ()
    except OSError as error:
        raise UserError(f"{checkpoints}: {error.strerror}; whoever reads the run must be allowed to") from error
    # Orbax adds a suffix to the name of one that is not complete.
    steps = (name for name in names if name.isascii() and name.isdecimal() and len(name) < 20)
    return sorted(int(name) for name in steps if storage.is_bucket(checkpoints) or (checkpoints / name).is_dir())
