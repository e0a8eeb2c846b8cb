"""BatchNorm's sums over two slices of TPUs, written in several ways: what each costs in memory, by the TPU compiler.

    python -m benchmarks.speed.slices                    # all, on one slice and on two; a minute each
    python -m benchmarks.speed.slices shard_map --slices 2

The program is the gradient of six convolutions with norms between them, 32 images of 56 x 56 x 256 on each chip of
v5e:2x2. No TPU is needed: `pip install -e ".[train,tpu]"` installs the compiler. docs/scale.md quotes it.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_resnets.training.tpu.chips import parse_topology
from flax_resnets.training.tpu.compile_only import figures, topology_mesh

CHANNELS, SIDE, IMAGES, LAYERS = 256, 56, 32, 6

# From x and the mesh, with its slices as the first axis, to the means of x and of its square.
Moments = Callable[[jax.Array, Mesh], jax.Array]


def plain(x: jax.Array, mesh: Mesh) -> jax.Array:
    """As the library has it."""
    return jnp.stack([x.mean((0, 1, 2)), jnp.square(x).mean((0, 1, 2))])


def product(x: jax.Array, mesh: Mesh) -> jax.Array:
    """A matrix product with ones."""
    pixels = x.reshape(-1, x.shape[-1])
    ones = jnp.ones(len(pixels), x.dtype)
    return jnp.stack([ones @ pixels, ones @ jnp.square(pixels)]) / len(pixels)


def barrier(x: jax.Array, mesh: Mesh) -> jax.Array:
    """The sums of a copy that nothing else is computed from."""
    return plain(jax.lax.optimization_barrier(x), mesh)


def shard_map(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Each chip's means, then one mean over all chips."""
    return _per_chip(lambda part: jax.lax.pmean(plain(part, mesh), mesh.axis_names), mesh)(x)


def slice_first(x: jax.Array, mesh: Mesh) -> jax.Array:
    """Each chip's means, then those of each slice, then those of all."""

    def of_part(part: jax.Array) -> jax.Array:
        within = jax.lax.pmean(plain(part, mesh), "chips")
        return jax.lax.pmean(jax.lax.optimization_barrier(within), "slices")

    return _per_chip(of_part, mesh)(x)


def _per_chip(function: Callable[[jax.Array], jax.Array], mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.shard_map(function, mesh=mesh, in_specs=PartitionSpec(mesh.axis_names), out_specs=PartitionSpec())


FORMULATIONS: dict[str, Moments] = {each.__name__: each for each in (plain, product, barrier, shard_map, slice_first)}


def compiled_figures(moments: Moments, slices: int) -> dict[str, int]:
    """The compiler's figures for one chip, see `flax_resnets.training.tpu.compile_only.figures`."""
    devices = np.array(topology_mesh(parse_topology("v5e:2x2"), num_slices=slices).devices).reshape(slices, -1)
    mesh = Mesh(devices, ("slices", "chips"), axis_types=(AxisType.Auto,) * 2)

    def loss(weights: list[tuple[jax.Array, jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
        for kernel, scale, bias in weights:
            layout = ("NHWC", "HWIO", "NHWC")
            y = jax.lax.conv_general_dilated(x, kernel.astype(x.dtype), (1, 1), "SAME", dimension_numbers=layout)
            mean, of_squares = moments(y.astype(jnp.float32), mesh)
            slope = jax.lax.rsqrt(of_squares - jnp.square(mean) + 1e-5) * scale
            x = jax.nn.relu(y.astype(jnp.float32) * slope + (bias - mean * slope)).astype(x.dtype)
        return x.astype(jnp.float32).mean()

    everywhere, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), (mesh.axis_names,)))
    number = jax.ShapeDtypeStruct((CHANNELS,), jnp.float32, sharding=everywhere)
    weights = [
        (jax.ShapeDtypeStruct((side, side, CHANNELS, CHANNELS), jnp.float32, sharding=everywhere), number, number)
        for side in (3, 1) * (LAYERS // 2)
    ]
    images = (IMAGES * devices.size, SIDE, SIDE, CHANNELS)
    lowered = jax.jit(jax.grad(loss)).lower(weights, jax.ShapeDtypeStruct(images, jnp.bfloat16, sharding=split))
    return figures(lowered.compile())


def main() -> None:
    """Prints a line for each formulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formulations", nargs="*", choices=[[], *FORMULATIONS])
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    for name in arguments.formulations or FORMULATIONS:
        for slices in arguments.slices:
            found = compiled_figures(FORMULATIONS[name], slices)
            temporary, moved = found["temp_bytes"] / 1e9, found["bytes_accessed"] / 1e9
            print(f"{name}, {slices} slices: {temporary:.3f} GB temporary, {moved:.2f} GB moved", flush=True)


if __name__ == "__main__":
    main()
