"""A folder of pictures as a dataset: `dataset=folder`, as a `flax_resnets.data.source.Kind`.

`data_dir` holds either `train/` and one of `val/`, `valid/`, `validation/` and `test/`, in each a directory for each
class; or the classes' directories alone, of which a share becomes the validation split; or `images.csv`, which lists
the pictures. Pictures have 3 channels: grey ones are converted.
"""

import os
from typing import TYPE_CHECKING

import numpy as np

from flax_resnets.data.config import DataConfig, Part, data_directory
from flax_resnets.data.folder.layout import EXPECTED, find_layout, pictures
from flax_resnets.data.folder.table import TABLE, read_table
from flax_resnets.data.shares import part_of

if TYPE_CHECKING:
    from flax_resnets.data.source import Source

__all__ = ["EXPECTED", "is_prepared", "metadata", "newest_version", "open_split"]


def open_split(config: DataConfig, split: Part) -> "Source":
    """See `flax_resnets.data.source.open_source`."""
    from flax_resnets.data.folder.source import FolderSource

    root = data_directory(config, EXPECTED)
    if os.path.lexists(root / TABLE):
        table = read_table(root, config)
        found, class_names, names = table.pictures, table.class_names, table.names
        rows = np.flatnonzero(table.splits == ((split == "validation" and names[1]) or names[0]))
    else:
        layout = find_layout(root, config)
        class_names, names, rows = layout.class_names, layout.names, None
        own = (split == "validation" and layout.validation) or layout.train
        found = pictures(own, class_names, is_train=own == layout.train)
    chosen, name = part_of(found.labels if rows is None else found.labels[rows], names, config, split, str(root))
    if chosen is not None:
        rows = chosen if rows is None else rows[chosen]
    return FolderSource(config.dataset, name, class_names, found, rows, is_share=chosen is not None)


def metadata(config: DataConfig) -> tuple[int, int, bool]:
    """Number of classes, and 3 channels. No picture is looked at."""
    root = data_directory(config, EXPECTED)
    found = read_table(root, config) if os.path.lexists(root / TABLE) else find_layout(root, config)
    return len(found.class_names), 3, config.label_separator is not None


def newest_version(config: DataConfig) -> str:
    """Folders have no versions."""
    return ""


def is_prepared(config: DataConfig) -> bool:
    """There is nothing to prepare."""
    return True
