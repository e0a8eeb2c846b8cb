"""Writes the table of timm's trained weights for our networks, and ImageNet's class names, from an installed timm.

    PYTHONPATH=. torch_env/bin/python -m benchmarks.records.pretrained

It runs where timm is installed, asks no server, and replaces flax_resnets/models/pretrained.csv and
flax_resnets/inference/imagenet.csv. timm's textbook networks of the same name as ours are others (`vgg11`); they are
left out.
"""

import csv
from pathlib import Path
from typing import Any

import timm
from timm.data import ImageNetInfo
from timm.models import get_pretrained_cfg

from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import ResNet

ROOT = Path(__file__).resolve().parents[2] / "flax_resnets"


def main() -> None:
    """Writes both files."""
    rows = []
    for name in MODELS:
        if not isinstance(MODELS[name].constructor(num_classes=1000), ResNet):
            continue
        for full in sorted(timm.list_models(f"{name}.*", pretrained=True)):
            cfg: Any = get_pretrained_cfg(full)
            if cfg.hf_hub_id and cfg.num_classes:
                side, test = cfg.input_size[-1], (cfg.test_input_size or cfg.input_size)[-1]
                rows.append([full, cfg.hf_hub_id, cfg.num_classes, side, test, cfg.license])
    write(ROOT / "models" / "pretrained.csv", ["name", "repository", "classes", "size", "test_size", "licence"], rows)
    info = ImageNetInfo("imagenet-1k")
    names = [[name, info.label_name_to_description(name, detailed=False)] for name in info.label_names()]
    write(ROOT / "inference" / "imagenet.csv", ["name", "words"], names)
    print(f"timm {timm.__version__}: {len(rows)} sets of weights, {len(names)} classes")


def write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Writes a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
