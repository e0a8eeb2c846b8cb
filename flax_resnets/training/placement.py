"""The mesh of all devices; how batches are split over it, and whether weights are split or replicated."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_resnets.data.batches import Batch

Tree = TypeVar("Tree")

_WEIGHTS = "weights"
# Smaller arrays are replicated: gathering them would cost more than the memory they take.
_SMALLEST_SPLIT = 2**12


def make_mesh(weight_shards: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """All devices along one axis, `data`; or, with split weights, along two axes, `data` and `weights`.

    The axes are Auto. JAX's default is Explicit, with which the gradient of a cross-entropy with integer labels fails
    to compile on jax 0.12.

    Args:
        weight_shards: number of devices over which each large weight is split; must divide the number of devices.
        devices: devices to use; None for all.
    """
    count = jax.device_count() if devices is None else len(devices)
    axes = {"data": count // weight_shards, _WEIGHTS: weight_shards} if weight_shards > 1 else {"data": count}
    shape, names, types = tuple(axes.values()), tuple(axes), (AxisType.Auto,) * len(axes)
    if devices is None:
        return jax.make_mesh(shape, names, types)
    return Mesh(np.array(devices).reshape(shape), names, axis_types=types)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding that splits the leading axis over all devices of the mesh."""
    return NamedSharding(mesh, P(mesh.axis_names) if splits_weights(mesh) else P("data"))


def per_device(function: Callable[..., Any], mesh: Mesh, split: Sequence[bool]) -> Callable[..., Any]:
    """The function computed by each device on its own share of the batch: `jax.shard_map`.

    Args:
        function: takes the mesh's axes as the keyword `axis_names`, and averages its results over them.
        mesh: of all devices.
        split: for each positional argument, whether its leading axis is split over the devices.
    """
    share = batch_sharding(mesh).spec
    in_specs = tuple(share if each else P() for each in split)
    return jax.shard_map(partial(function, axis_names=mesh.axis_names), mesh=mesh, in_specs=in_specs, out_specs=P())


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding with a whole copy on every device."""
    return NamedSharding(mesh, P())


def splits_weights(mesh: Mesh) -> bool:
    """Whether large weights are split over the mesh."""
    return _WEIGHTS in mesh.axis_names


def weight_sharding(shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """The sharding of an array of the training state: split along its longest divisible axis, or replicated.

    Only arrays of two or more dimensions, such as kernels, are split. Vectors, such as BatchNorm's statistics, are
    replicated.

    This is fully sharded data parallelism: Zhao et al. 2023, arXiv:2304.11277. Each device holds a part of the
    parameters, of the optimizer's state and of the weights' average; arrays are gathered where they are used.

    Args:
        shape: of the array.
        mesh: as `make_mesh` returns it.
    """
    if splits_weights(mesh) and len(shape) > 1 and math.prod(shape) >= _SMALLEST_SPLIT:
        shards = mesh.shape[_WEIGHTS]
        can_be_split = [axis for axis, size in enumerate(shape) if size % shards == 0]
        if can_be_split:
            longest = max(can_be_split, key=lambda axis: shape[axis])
            return NamedSharding(mesh, P(*(_WEIGHTS if axis == longest else None for axis in range(len(shape)))))
    return replicated(mesh)


def weight_shardings(tree: Any, mesh: Mesh) -> Any:
    """`weight_sharding` of every leaf."""
    return jax.tree.map(lambda leaf: weight_sharding(leaf.shape, mesh), tree)


def split_weights(tree: Tree, mesh: Mesh) -> Tree:
    """Inside a compiled function: places the tree's arrays as `weight_sharding` says."""
    return jax.lax.with_sharding_constraint(tree, weight_shardings(tree, mesh)) if splits_weights(mesh) else tree


def whole_weights(tree: Tree, mesh: Mesh) -> Tree:
    """Inside a compiled function: gathers the tree's arrays, so that every device has a whole copy."""
    return jax.lax.with_sharding_constraint(tree, replicated(mesh)) if splits_weights(mesh) else tree


def to_devices(batch: Batch[np.ndarray], mesh: Mesh) -> Batch[jax.Array]:
    """Makes global arrays, split over the mesh, from this process's share of a global batch."""
    sharding = batch_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(sharding, array) for array in batch))


def own_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
    """The rows of a global batch that belong to this process's devices.

    Args:
        mesh: as `make_mesh` returns it.
        batch_size: rows of the global batch; a multiple of the number of devices.

    Returns:
        int64, in rising order, from 0 to below `batch_size`.

    Example:
        >>> own_rows(make_mesh(devices=jax.devices()[:1]), 4).tolist()
        [0, 1, 2, 3]
    """
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[index] for index in slices if index is not None]))


def on_host(tree: Any) -> Any:
    """The tree's arrays as whole numpy arrays, in every process."""

    def fetch(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(jax.device_get(leaf))

    return jax.tree.map(fetch, tree)
