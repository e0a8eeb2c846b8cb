"""The data that a run begins or goes on with: opened, and compared with what the run has recorded of it."""

from collections.abc import Callable
from pathlib import Path

from flax_resnets.data.identity import Identity, identity_of, is_prepared, newest_version
from flax_resnets.data.source import Source
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.config import Config
from flax_resnets.training.splits import open_split
from flax_resnets.training.workdir import check_data, other_data, recorded_data


def record_data(data: Identity, workdir: Path, step: int, say: Callable[[str], None]) -> None:
    """Keeps what a run trains on with it, in `data.json`, unless it is there already.

    Args:
        data: what it is.
        workdir: of the run.
        step: of the run; beyond the first, the run is from before there was such a record, and `say` is told.
        say: see `step`.
    """
    if recorded_data(workdir) is not None:
        return
    write_whole(workdir / "data.json", data.to_json().encode())
    if step:
        counts = " and ".join(f"{count:,} {split}" for split, count in data.counts.items())
        say(f"{workdir}: had no record of its data; taken to be {data.dataset} {data.version}, {counts} images")


def open_data(config: Config, workdir: Path, say: Callable[[str], None]) -> tuple[Source, Source, Identity]:
    """Training and validation split, nothing of them decoded yet, and what they are.

    TFDS opens the newest version where a name has none. A run that goes on takes its own, if that is still there.

    Args:
        config: the run.
        workdir: of the run; need not exist.
        say: told where the run has another version than TFDS would open.

    Raises:
        UserError: there is no such data, or it is not what the run began with.
    """
    recorded, dataset = recorded_data(workdir), config.dataset
    if recorded is not None and dataset == recorded.dataset:
        newest = newest_version(dataset, config.data_dir)
        if newest != recorded.version:
            if not is_prepared(recorded.pinned, config.data_dir):
                raise other_data(recorded, f"version {newest}", config, workdir)
            say(f"{workdir}: going on with {dataset} {recorded.version}, as it began; {newest} is there too")
            dataset = recorded.pinned
    train, validation = open_split(config, "train", dataset), open_split(config, "validation", dataset)
    found = identity_of(train, validation)
    check_data(found, config, workdir)
    return train, validation, found
