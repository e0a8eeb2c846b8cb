"""torch's side of `input_pipeline.py`: DataLoader and torchvision.transforms.v2. Needs torch and torchvision."""

import os
from pathlib import Path

import torch
import torchvision
from torchvision.transforms import v2


def prepare(folder, decoder, workers, batch, size, use_cores):
    """Prepares a contender; see `flax_resnets/cli/bench/child.py`.

    Args:
        folder: a folder with one folder of JPEGs for each class.
        decoder: `torchvision`, into uint8 tensors, or `PIL`; `decoded` for images that are decoded beforehand.
        workers: number of the DataLoader's workers; 0 for none.
        batch: images in a batch.
        size: side of the crop, in pixels.
        use_cores: how many cores of the machine to use.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:use_cores])
    torch.set_num_threads(use_cores if not workers else 1)
    for path in Path(folder).glob("*/*.jpg"):
        path.read_bytes()  # into the system's file cache, as a first epoch does
    transform = v2.Compose(
        [
            *([v2.PILToTensor()] if decoder == "PIL" else []),
            v2.RandomResizedCrop(size, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    options = {} if decoder == "PIL" else {"loader": _decode}
    dataset = torchvision.datasets.ImageFolder(folder, transform, **options)
    if decoder == "decoded":
        dataset = _Decoded(dataset.samples, transform)
    sampler = torch.utils.data.RandomSampler(dataset)
    loader = torch.utils.data.DataLoader(
        dataset, batch, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )

    def repeat(n):
        # An epoch of n batches. In a longer one, workers would prepare further batches during other contenders' turns.
        sampler._num_samples = n * batch
        for _ in loader:
            pass

    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    return repeat, {"cores": use_cores, "versions": versions}


class _Decoded(torch.utils.data.Dataset):
    """Images in memory, transformed each time."""

    def __init__(self, samples, transform):
        self.images = [(_decode(path), label) for path, label in samples]
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = self.images[index]
        return self.transform(image), label


def _decode(path):
    return torchvision.io.decode_image(path, torchvision.io.ImageReadMode.RGB)
