"""Saves a classifier by Hugging Face transformers and loads it here: whether both see and say the same of pictures.

    python -m benchmarks.parity.transformers_folder docs/*.png

Run it where torch and transformers are installed beside this package with its extra `train`. For each picture and each
kind of image processor it prints the difference of what the networks see, in levels of 0 to 255, and the largest
difference of the logits, divided by the largest logit.
"""

import sys
import tempfile

import numpy as np
import torch
import transformers
from PIL import Image

from flax_resnets import load_classifier

SIDE = 96
PROCESSORS = (
    transformers.ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=0.875, resample=3),
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}, resample=2),
)


def network() -> transformers.ResNetForImageClassification:
    """A ResNet-18 for ten classes, with random weights and statistics."""
    torch.manual_seed(0)
    names = {number: f"class {number}" for number in range(10)}
    config = transformers.ResNetConfig(
        layer_type="basic",
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    made = transformers.ResNetForImageClassification(config).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return made


def main() -> None:
    """See the module."""
    theirs = network()
    for processor in PROCESSORS:
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            processor.save_pretrained(folder)
            ours = load_classifier(folder)
        levels = np.array(ours.settings.std) * 255
        for path in sys.argv[1:]:
            picture = Image.open(path).convert("RGB")
            x = processor(picture, return_tensors="pt")["pixel_values"]
            seen = np.abs(np.asarray(ours.preprocess([picture])) - x.permute(0, 2, 3, 1).numpy()) * levels
            with torch.no_grad():
                expected = theirs(pixel_values=x).logits.numpy()
            error = np.abs(ours.logits([picture]) - expected).max() / np.abs(expected).max()
            name = type(processor).__name__
            print(f"{name} {path}: {seen.mean():.2f} levels, at most {seen.max():.0f}; logits {error:.0e}", flush=True)


if __name__ == "__main__":
    main()
