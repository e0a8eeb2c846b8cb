"""This package as a contender: the compiled step of `train.py` on a uint8 batch, normalisation and checks included."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from flax_resnets import ResNet, create_model, fold_batch_norm
from flax_resnets.data.batches import Batch
from flax_resnets.training.compilation import for_speed, keep_compiled_programs, quick_to_compile
from flax_resnets.training.config import Config
from flax_resnets.training.network import DTYPES, Precision
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.placement import replicated, to_devices
from flax_resnets.training.schedule import make_schedules
from flax_resnets.training.state import TrainState, create_state
from flax_resnets.training.step import make_train_step

CLASSES = 1000


def prepare(
    network: str,
    work: Literal["train", "inference"],
    batch: int,
    size: int,
    precision: Precision = "float32",
) -> tuple[Callable[[int], None], Callable[[], dict[str, Any]]]:
    """Prepares a contender; see `child.py`.

    Args:
        network: a name that `create_model` knows.
        work: `train` for a training step with SGD, `inference` for logits.
        batch: images in a batch.
        size: side of an image, in pixels.
        precision: of the computation; parameters are float32.
    """
    keep_compiled_programs()
    repeat = {"train": _train, "inference": _inference}[work](network, batch, size, precision)
    versions = {library: version(library) for library in ("jax", "flax", "optax")}
    about = {"batch": batch, "size": size, "precision": precision, "versions": versions}
    return repeat, lambda: about | {"device": jax.devices()[0].device_kind, **memory()}


def memory() -> dict[str, int]:
    """What the device has for this process, and the most it has held, in bytes; empty where it does not say."""
    stats = jax.devices()[0].memory_stats() or {}
    names = {"memory_peak_bytes": "peak_bytes_in_use", "memory_limit_bytes": "bytes_limit"}
    return {ours: stats[theirs] for ours, theirs in names.items() if theirs in stats}


def _train(network: str, batch: int, size: int, precision: Precision) -> Callable[[int], None]:
    step, state, data = training_step(network, batch, size, precision)

    def repeat(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = step(state, data)
        jax.block_until_ready(state)

    return repeat


def training_step(
    network: str, batch: int, size: int, precision: Precision
) -> tuple[Callable[[TrainState, Batch[jax.Array]], tuple[TrainState, Any]], TrainState, Batch[jax.Array]]:
    """The compiled step on one device, the state before the first, and a batch; arguments as `prepare`'s."""
    config = Config(
        model=network,
        dataset="none: the batch is made here",
        image_size=size,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        crop_scale=(1.0, 1.0),
        flip=False,
        batch_size=batch,
        epochs=1,
        optimizer="sgd",
        schedule="constant",
        learning_rate=1e-3,  # small, so that nothing overflows in long training on random labels
        momentum=(0.9, 0.9),
        weight_decay=0.0,
        precision=precision,
    )
    model = create_model(config.model, CLASSES, dtype=DTYPES[config.precision])
    optimizer = make_optimizer(config, *make_schedules(config, steps=1))
    mesh = _one_device()
    step = make_train_step(model, optimizer, config, mesh)
    state = jax.jit(
        lambda: create_state(model, optimizer, (size, size, 3), config.seed),
        out_shardings=replicated(mesh),
        compiler_options=quick_to_compile(mesh),
    )()
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    labels = random.integers(0, CLASSES, batch, np.int32)
    return step, state, to_devices(Batch(images, labels), mesh)


def _inference(network: str, batch: int, size: int, precision: Precision) -> Callable[[int], None]:
    model = create_model(network, CLASSES, dtype=DTYPES[precision])
    assert isinstance(model, ResNet)  # so it can be folded
    images = jax.random.normal(jax.random.key(0), (batch, size, size, 3))
    model, variables = fold_batch_norm(model, jax.jit(model.init)(jax.random.key(0), images[:1]))
    forward = jax.jit(
        lambda variables, images: model.apply(variables, images, train=False),
        compiler_options=for_speed(_one_device()),
    )

    def repeat(steps: int) -> None:
        logits = jnp.zeros(())
        for _ in range(steps):
            logits = forward(variables, images)
        jax.block_until_ready(logits)

    return repeat


def _one_device() -> Mesh:
    """A mesh of one device, since the other contenders use one; `make_mesh` takes all devices."""
    return jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=jax.devices()[:1])
