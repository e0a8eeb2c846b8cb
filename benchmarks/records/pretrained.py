"""Writes the table of timm's trained weights for our networks, and ImageNet's class names, from an installed timm.

    PYTHONPATH=. torch_env/bin/python -m benchmarks.records.pretrained results-imagenet.csv

It runs where timm and torchvision are installed, asks no server, and replaces flax_resnets/models/pretrained.csv and
flax_resnets/inference/imagenet.csv. The file is results/results-imagenet.csv of timm's own repository, which has the
accuracies; those of torchvision's own weights that it lacks are torchvision's. timm's textbook networks of the same
name as ours are others (`vgg11`); they are left out. `benchmarks.records.pretrained_page` writes docs/pretrained.md
from the table.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import timm
import torchvision
from timm.data import ImageNetInfo
from timm.models import get_pretrained_cfg

from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import ResNet

ROOT = Path(__file__).resolve().parents[2] / "flax_resnets"


def main() -> None:
    """Writes both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="timm's results/results-imagenet.csv")
    with parser.parse_args().results.open(newline="", encoding="utf-8") as file:
        published = {row["model"]: row for row in csv.DictReader(file)}
    rows = []
    for name in MODELS:
        if not isinstance(MODELS[name].constructor(num_classes=1000), ResNet):
            continue
        for full in sorted(timm.list_models(f"{name}.*", pretrained=True)):
            cfg: Any = get_pretrained_cfg(full)
            if cfg.hf_hub_id and cfg.num_classes:
                side, test = cfg.input_size[-1], (cfg.test_input_size or cfg.input_size)[-1]
                crop = cfg.test_crop_pct or cfg.crop_pct
                top1, top5 = accuracies(full, published, test, crop)
                rows.append([full, cfg.hf_hub_id, cfg.num_classes, side, test, crop, cfg.license, top1, top5])
    header = ["name", "repository", "classes", "size", "test_size", "test_crop_pct", "licence", "top1", "top5"]
    write(ROOT / "models" / "pretrained.csv", header, rows)
    info = ImageNetInfo("imagenet-1k")
    names = [[name, info.label_name_to_description(name, detailed=False)] for name in info.label_names()]
    write(ROOT / "inference" / "imagenet.csv", ["name", "words"], names)
    print(f"timm {timm.__version__}: {len(rows)} sets of weights, {len(names)} classes")


def accuracies(name: str, published: dict[str, dict[str, str]], size: int, crop: float) -> tuple[str, str]:
    """Top-1 and top-5 in percent at that size and crop, as the sources write them; empty where they have none."""
    if name in published:
        row = published[name]
        if (int(row["img_size"]), float(row["crop_pct"])) != (size, round(crop, 3)):
            measured = f"{row['img_size']} px, crop {row['crop_pct']}"
            raise SystemExit(f"{name}: measured at {measured}, while timm evaluates it at {size} px, crop {crop}")
        return row["top1"], row["top5"]
    network, _, tag = name.partition(".")
    if tag == "tv_in1k":
        weights = torchvision.models.get_model_weights(network)["IMAGENET1K_V1"]
        metrics = weights.meta["_metrics"]["ImageNet-1K"]
        return f"{metrics['acc@1']:.3f}", f"{metrics['acc@5']:.3f}"
    return "", ""


def write(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    """Writes a table."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
