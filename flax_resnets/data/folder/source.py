"""A split of a folder of pictures."""

import hashlib
import json
import os
import stat
from collections.abc import Sequence

import numpy as np

from flax_resnets.data.folder.hashes import file_hashes
from flax_resnets.data.folder.layout import Pictures
from flax_resnets.data.labels import Label, is_multilabel
from flax_resnets.data.source import Source


class FolderSource(Source):
    """Pictures that are files of their own.

    Args:
        dataset: the name by which the dataset was opened.
        split: name of the split.
        class_names: names of the classes.
        pictures: the files of the folder, of this split and perhaps of others.
        rows: which of the files are in this split, in order; int64; None for all.
        is_share: see `Source`.
    """

    version = ""
    channels = 3
    exif_orientation = white_background = draft = True
    labels_at_hand = True

    def __init__(
        self,
        dataset: str,
        split: str,
        class_names: Sequence[str],
        pictures: Pictures,
        rows: np.ndarray | None = None,
        is_share: bool = False,
    ):
        self.dataset = dataset
        self.split = split
        self.is_share = is_share
        self.class_names = tuple(class_names)
        self.directory = pictures.root
        hashes, sampled, note = file_hashes(pictures)
        self.notes = (*pictures.notes, note) if note else pictures.notes
        names, labels, stats = pictures.names, pictures.labels, pictures.stats
        if rows is not None:
            names, labels, stats, hashes = names.take(rows), labels[rows], stats[rows], hashes[rows]
        self._names, self._labels = names, labels
        self.multilabel = is_multilabel(labels)
        self._root = os.fsencode(self.directory) + b"/"
        digest = hashlib.sha256(json.dumps(self.class_names).encode() + b" multilabel" * self.multilabel)
        for part in (names.blob, names.ends.tobytes(), labels.tobytes(), stats[:, 0].tobytes(), hashes.tobytes()):
            digest.update(part)
        self.fingerprint = self.cache_key = digest.hexdigest()
        if sampled:
            self.cache_key = hashlib.sha256(digest.digest() + stats[:, 1].tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[bytes, Label]:
        """See `Source`; raises OSError if the file cannot be read."""
        # Opening a pipe would wait for somebody to write to it.
        with open(os.open(self._root + self._names[index], os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("not a regular file")
            return file.read(), self.label(index)

    def labels(self) -> np.ndarray:
        """See `Source`; no image is read."""
        return self._labels

    def image_name(self, index: int) -> str:
        """The path of the file."""
        return os.fsdecode(self._root + self._names[index])
