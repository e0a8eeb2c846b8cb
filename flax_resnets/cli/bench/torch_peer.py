"""torchvision's ResNet as a contender: channels last, on all cores or on CUDA.

It imports neither jax nor this package, because its environment may not have them. It does less than this package: its
batch is normalised beforehand, and it does not check whether its loss is finite.
"""

import importlib
import os
from collections.abc import Callable
from typing import Any

CLASSES = 1000


def prepare(
    network: str, work: str, batch: int, size: int, precision: str = "float32", compiled: bool = False
) -> tuple[Callable[[int], None], Callable[[], dict[str, Any]]]:
    """Prepares a contender; arguments as of `ours.prepare`. `compiled` puts the network through `torch.compile`."""
    # Imported here, so that tests can import this file for its docstrings in an environment without torch.
    torch, torchvision = importlib.import_module("torch"), importlib.import_module("torchvision")
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = torchvision.models.get_model(network, weights=None, num_classes=CLASSES)
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(device, memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,)).to(device)
    model.train(work == "train")
    forward = torch.compile(model) if compiled else model
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True)

    def train() -> None:
        optimizer.zero_grad()
        with autocast:
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()

    @torch.inference_mode()
    def inference() -> None:
        with autocast:
            forward(images)

    step = {"train": train, "inference": inference}[work]

    def repeat(steps: int) -> None:
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    about = {"versions": versions, "device": name, "threads": torch.get_num_threads(), "compiled": compiled}

    def facts() -> dict[str, Any]:
        return about | ({"memory_peak_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {})

    return repeat, facts
