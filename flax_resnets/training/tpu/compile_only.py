"""The training step compiled for chips that are not here, and what the compiler has to say about it."""

import importlib.util
import os
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

from flax_resnets.data.batches import Batch
from flax_resnets.data.metadata import dataset_metadata
from flax_resnets.errors import UserError
from flax_resnets.training.build import build_steps, check_devices
from flax_resnets.training.config import Config
from flax_resnets.training.network import make_model
from flax_resnets.training.placement import batch_sharding, make_mesh
from flax_resnets.training.splits import check_channels
from flax_resnets.training.tpu.chips import Topology, parse_topology, roofline
from flax_resnets.training.tpu.libtpu import expect_no_tpu


def compile_only(config: Config, topology: str, num_slices: int = 1) -> dict[str, Any]:
    """Compiles the training step for a TPU topology; no TPU, no data and no workdir are needed.

    The step is the one that `run` takes, on the largest images that it trains on: augmentation, forward, backward,
    update, over a mesh of the topology's chips. To be called in a process that computes nothing else: JAX is told to
    leave an accelerator that is here alone.

    Args:
        config: the run; the dataset need not be prepared.
        topology: such as `v5e:4x4`, see `flax_resnets.training.tpu.chips`.
        num_slices: so many of them, which meet over the data centre's network.

    Returns:
        What `figures` gives, and `topology`, `devices` (of all slices), `compile_seconds`, `chip_memory_bytes`, whether
        it `fits` into them, and the `estimate` of `roofline`. A step that the compiler refuses as too large has None
        for what is not known of it then; `memory_bytes` is what its temporary values alone would need.

    Raises:
        UserError: no such topology or dataset, a batch that the devices do not divide, a network that does not take
            such images, or libtpu is not installed.
    """
    where = parse_topology(topology)
    devices = num_slices * where.devices
    check_devices(config, devices)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # `compile_seconds` is the compiler's time, not a disk's
    mesh = topology_mesh(where, config.weight_shards, num_slices)
    metadata = dataset_metadata(config.dataset, config.data_dir)
    check_channels(config, metadata.channels)

    # The schedule's length is a constant in the program; any will do.
    model = make_model(config, metadata.num_classes)
    steps = build_steps(config, model, mesh, metadata.channels, total_steps=config.epochs)
    side = config.store_size or config.image_size
    abstract: Any = jax.ShapeDtypeStruct  # a step's annotations know arrays alone
    batch = Batch(
        abstract((config.batch_size, side, side, metadata.channels), jnp.uint8, sharding=batch_sharding(mesh)),
        abstract((config.batch_size,), jnp.int32, sharding=batch_sharding(mesh)),
    )
    train_step: Any = steps.train_step_at(max(config.train_sizes()))
    lowered = train_step.lower(steps.abstract_state, batch)
    known = {
        "topology": where.name,
        "devices": devices,
        "batch_size": config.batch_size,
        "chip_memory_bytes": int(where.chip.memory_bytes),
    }
    started = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        unknown = dict.fromkeys([*FIGURES, "estimate"])
        seconds = round(time.perf_counter() - started, 1)
        return {**known, **unknown, "memory_bytes": _first_size(str(error)), "fits": False, "compile_seconds": seconds}
    seconds = round(time.perf_counter() - started, 1)
    counted = figures(compiled)
    return {
        **known,
        **counted,
        "fits": counted["memory_bytes"] <= where.chip.memory_bytes,
        "compile_seconds": seconds,
        "estimate": roofline(counted["flops"], counted["bytes_accessed"], where.chip),
    }


def _first_size(message: str) -> int | None:
    """The first size in the compiler's complaint, in bytes: `(101.34G) exceeds available HBM (15.75G)`."""
    size = re.search(r"\b([\d.]+)([KMGT])\b", message)
    return int(float(size[1]) * 2 ** (10 * (1 + "KMGT".index(size[2])))) if size else None


def topology_mesh(topology: Topology, weight_shards: int = 1, num_slices: int = 1) -> Mesh:
    """What `make_mesh` gives on the chips themselves.

    Raises:
        UserError: libtpu is not installed, or not one that knows such TPUs.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError('--compile_only: needs libtpu, the TPU compiler; install it with pip install -e ".[train,tpu]"')
    expect_no_tpu()
    try:
        options = {**topology.chip.options, **({"num_slices": num_slices} if num_slices > 1 else {})}
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology.name}: this libtpu refuses it: {error}") from error
    return make_mesh(weight_shards, described.devices)


FIGURES = ("flops", "bytes_accessed", "temp_bytes", "argument_bytes", "memory_bytes", "all_reduces")


def figures(compiled: jax.stages.Compiled) -> dict[str, int]:
    """What the compiler counts in a program, on one device.

    Args:
        compiled: a program over any number of devices.

    Returns:
        `FIGURES`: `flops` and `bytes_accessed`, by the compiler's cost analysis; `temp_bytes`, what it needs beside
        arguments and results; `argument_bytes`; `memory_bytes`, all of it together; `all_reduces`, the meetings of the
        devices.

    Example:
        >>> add = jax.jit(lambda x: x + 1).lower(jnp.zeros(1000)).compile()
        >>> figures(add)["flops"], figures(add)["argument_bytes"], figures(add)["all_reduces"]
        (1000, 4000, 0)
    """
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    arguments, temp = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes  # aliased ones lie where an argument lay
    return {
        "flops": int(cost["flops"]),
        "bytes_accessed": int(cost["bytes accessed"]),
        "temp_bytes": temp,
        "argument_bytes": arguments,
        "memory_bytes": arguments + results + temp + memory.generated_code_size_in_bytes,
        # Started and done apart, or in one; a start counts and its done does not.
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", compiled.as_text() or "")),
    }


def in_words(result: dict[str, Any]) -> str:
    """What `compile_only` found, in a line for people."""
    generation = result["topology"].partition(":")[0]
    have = f"of the {result['chip_memory_bytes'] / 2**30:.2f} GiB that a {generation} has for it"
    need = f"{result['memory_bytes'] / 2**30:.2f}" if result["memory_bytes"] else "more"
    if not result["fits"]:
        return f"batch_size={result['batch_size']}: does not fit, needs {need} {have}; lower it, or take more chips"
    estimate = result["estimate"]
    return (
        f"fits, needs {need} {have}; at its published rates a step would take "
        f"{1000 * estimate['step_seconds']:.1f} ms, bound by {estimate['bound']} (an estimate)"
    )
