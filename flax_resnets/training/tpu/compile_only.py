"""Compiles the training step for TPUs that are not attached, and reports the compiler's figures."""

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
from flax_resnets.data.labels import new_labels
from flax_resnets.data.source import metadata_of
from flax_resnets.errors import UserError
from flax_resnets.training.build import build_steps, check_devices
from flax_resnets.training.completion import placeholder
from flax_resnets.training.config import Config
from flax_resnets.training.network import make_model
from flax_resnets.training.placement import batch_sharding, make_mesh
from flax_resnets.training.splits import check_channels, check_classes
from flax_resnets.training.timeline import Timeline
from flax_resnets.training.tpu.chips import Topology, parse_topology, roofline
from flax_resnets.training.tpu.libtpu import expect_no_tpu


def compile_only(config: Config, topology: str, num_slices: int = 1) -> dict[str, Any]:
    """Compiles the training step for a TPU topology; needs no TPU, no data and no workdir.

    The step is the one that `run` takes, for the largest images of the run: augmentation, forward pass, backward pass
    and update over a mesh of the topology's chips. Call this in a process that computes nothing else, because it tells
    JAX not to use any accelerator of this machine.

    Args:
        config: the run; the dataset need not be prepared.
        topology: such as `v5e:4x4`, see `flax_resnets.training.tpu.chips`.
        num_slices: number of slices of this topology, connected by the data centre's network.

    Returns:
        The figures of `figures`, and `topology`, `devices` (of all slices), `compile_seconds`, `chip_memory_bytes`,
        `fits` (whether the step fits into that memory), and `estimate` (see `roofline`). If the compiler refuses
        the step as too large, the figures that are then unknown are None, and `memory_bytes` is what the step's
        temporary values alone would need.

    Raises:
        UserError: there is no such topology or dataset, the devices do not divide the batch, the network does not take
            images of this shape, or libtpu is not installed.
    """
    where = parse_topology(topology)
    devices = num_slices * where.devices
    check_devices(config, devices)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # or `compile_seconds` may be that of reading a file
    mesh = topology_mesh(where, config.weight_shards, num_slices)
    metadata = metadata_of(config)
    check_channels(config, metadata.channels)
    check_classes(config, metadata)
    config = placeholder(config, metadata.channels, metadata.num_classes)  # which numbers makes no difference here

    # The length of the schedule is a constant in the program, and any length will do.
    model = make_model(config, metadata.num_classes)
    steps = build_steps(config, model, mesh, metadata.channels, Timeline(1))
    side = config.store_size or config.image_size
    labels = new_labels(metadata, config.batch_size)
    abstract: Any = jax.ShapeDtypeStruct  # the step is annotated for arrays only
    batch = Batch(
        abstract((config.batch_size, side, side, metadata.channels), jnp.uint8, sharding=batch_sharding(mesh)),
        abstract(labels.shape, labels.dtype, sharding=batch_sharding(mesh)),
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
    """The first size in the compiler's error message, in bytes: `(101.34G) exceeds available HBM (15.75G)`."""
    size = re.search(r"\b([\d.]+)([KMGT])\b", message)
    return int(float(size[1]) * 2 ** (10 * (1 + "KMGT".index(size[2])))) if size else None


def topology_mesh(topology: Topology, weight_shards: int = 1, num_slices: int = 1) -> Mesh:
    """The mesh that `make_mesh` returns on the chips themselves.

    Raises:
        UserError: libtpu is not installed, or does not know these TPUs.
    """
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise UserError('--compile_only: needs libtpu, the TPU compiler; install it with pip install -e ".[train,tpu]"')
    expect_no_tpu(even_here=True)
    try:
        options = {**topology.chip.options, **({"num_slices": num_slices} if num_slices > 1 else {})}
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology.name, **options)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology.name}: this libtpu refuses it: {error}") from error
    return make_mesh(weight_shards, described.devices)


FIGURES = ("flops", "bytes_accessed", "temp_bytes", "argument_bytes", "memory_bytes", "all_reduces")


def figures(compiled: jax.stages.Compiled) -> dict[str, int]:
    """The compiler's figures of a program, for one device.

    Args:
        compiled: a program over any number of devices.

    Returns:
        A dict with the keys `FIGURES`: `flops` and `bytes_accessed` by the compiler's cost analysis; `temp_bytes`,
        memory besides arguments and results; `argument_bytes`; `memory_bytes`, the sum of all memory; and
        `all_reduces`, the number of all-reduces.

    Example:
        >>> add = jax.jit(lambda x: x + 1).lower(jnp.zeros(1000)).compile()
        >>> figures(add)["flops"], figures(add)["argument_bytes"], figures(add)["all_reduces"]
        (1000, 4000, 0)
    """
    cost: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    arguments, temp = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes  # aliased results use the memory of an argument
    return {
        "flops": int(cost["flops"]),
        "bytes_accessed": int(cost["bytes accessed"]),
        "temp_bytes": temp,
        "argument_bytes": arguments,
        "memory_bytes": arguments + results + temp + memory.generated_code_size_in_bytes,
        # An all-reduce is one operation, or a start and a done; only the start is counted.
        "all_reduces": len(re.findall(r" all-reduce(?:-start)?\(", compiled.as_text() or "")),
    }


def in_words(result: dict[str, Any]) -> str:
    """The result of `compile_only` as one line of text."""
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
