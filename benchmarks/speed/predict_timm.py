"""The other side of `predict.py`: timm classifies a folder. Runs in an environment with torch and timm."""

import csv
import sys
from pathlib import Path

import timm
import torch
from timm.data import create_dataset, create_transform, resolve_data_config


def main(saved: str, pictures: str, output: str, workers: int) -> None:
    """Classifies the folder's pictures and writes the three most probable classes of each."""
    model = timm.create_model(f"local-dir:{saved}", pretrained=True).eval().to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_data_config(model.pretrained_cfg))
    dataset = create_dataset("", root=pictures, transform=transform, class_map={"": 0})
    loader = torch.utils.data.DataLoader(dataset, batch_size=64, num_workers=workers)
    names = dataset.filenames(basename=True)
    with torch.inference_mode(), Path(output).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "rank", "index", "probability"])
        done = 0
        for images, _ in loader:
            chances = model(images.to(memory_format=torch.channels_last)).softmax(-1)
            for probabilities, indices in zip(*(each.tolist() for each in chances.topk(3)), strict=True):
                for rank, (probability, index) in enumerate(zip(probabilities, indices, strict=True), start=1):
                    writer.writerow([names[done], rank, index, f"{probability:.6g}"])
                done += 1


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
