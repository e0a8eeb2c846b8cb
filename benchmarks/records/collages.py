"""Makes the pictures of several labels on which docs/data.md has figures: collages of Imagenette's pictures.

    python -m benchmarks.records.collages collages --data_dir ~/tensorflow_datasets

Each collage has four quarters. None to four of them hold a picture, each of another class; `images.csv` lists the
classes. The pictures are from a third of each of Imagenette's splits, so no picture is in both splits of the collages.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from flax_resnets.data.source import open_source
from flax_resnets.inference.class_names import in_words

_SIDE = 96  # pixels
_NUMBERS = {"train": 1500, "validation": 500}


def make(directory: Path, data_dir: str | None) -> None:
    """Writes the collages and `images.csv` into a new directory."""
    directory.mkdir()
    rows = [("path", "label", "split")]
    for seed, (split, number) in enumerate(_NUMBERS.items()):
        source, random = open_source("imagenette/160px-v2", split, data_dir), np.random.default_rng(seed)
        names = [in_words(name).removeprefix("English ").lower() for name in source.class_names]
        indices = np.arange(0, len(source), 3)
        labels = np.array([source.label(int(index)) for index in indices])
        for collage in range(number):
            classes = random.permutation(len(names))[: random.integers(0, 5)]
            picture = Image.new("RGB", (_SIDE, _SIDE), tuple(random.integers(0, 256, 3).tolist()))
            for place, label in zip(random.permutation(4), classes, strict=False):
                index = int(random.choice(indices[labels == label]))
                quarter = Image.fromarray(source.image(index)).resize((_SIDE // 2, _SIDE // 2))
                picture.paste(quarter, (_SIDE // 2 * (int(place) % 2), _SIDE // 2 * (int(place) // 2)))
            path = f"{split}-{collage:04}.jpg"
            picture.save(directory / path, quality=90)
            rows.append((path, ";".join(names[label] for label in classes), split))
    with (directory / "images.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="is made")
    parser.add_argument("--data_dir", help="of TFDS's datasets; default TFDS's own")
    arguments = parser.parse_args()
    make(arguments.directory, arguments.data_dir)
