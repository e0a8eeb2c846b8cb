"""Compiles ResNet-50's training step for a TPU: this package's step and a plain linen one.

    python -m benchmarks.speed.tpu_step
    python -m benchmarks.speed.tpu_step --topology v6e:2x2 --images-per-chip 128 --only plain:global ours:global

No TPU is needed: `pip install -e ".[train,tpu]"` installs the compiler. A step takes minutes to compile. The script
prints a JSON line for each step, and a table of all at the end. `bare` is this package's step without random-resized
crops, on images stored at the size at which they are used. The plain step gets normalised images, so `bare` is the step
to compare it with if only the network counts.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from flax_resnets.cli.bench.plain_linen import BottleneckBlock, ResNet
from flax_resnets.cli.table import table
from flax_resnets.training.placement import batch_sharding, replicated
from flax_resnets.training.recipes import load_config
from flax_resnets.training.tpu.chips import parse_topology
from flax_resnets.training.tpu.compile_only import compile_only, figures, topology_mesh

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "rn50_imagenet.py"
VARIANTS = ("plain:global", "ours:global", "bare:global", "plain:device", "ours:device", "bare:device")
FIGURES = ("bytes_accessed", "temp_bytes", "flops", "all_reduces")


def compile_plain(topology: str, batch_size: int, batch_norm: str) -> dict[str, Any]:
    """The figures of the plain step: forward, backward, Nesterov SGD with weight decay; its images are normalised."""
    jax.config.update("jax_platforms", "cpu")
    mesh = topology_mesh(parse_topology(topology))
    model = ResNet((3, 4, 6, 3), BottleneckBlock, jnp.bfloat16)
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.4, 0.9, nesterov=True))

    def gradients(params, stats, images, labels):
        def loss_and_stats(params):
            logits, updates = model.apply(
                {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates["batch_stats"]

        return jax.value_and_grad(loss_and_stats, has_aux=True)(params)

    if batch_norm == "device":
        own = gradients

        def gradients(params, stats, images, labels):
            params, stats = jax.lax.pcast((params, stats), "data", to="varying")
            return jax.lax.pmean(own(params, stats, images, labels), "data")

        gradients = jax.shard_map(
            gradients, mesh=mesh, in_specs=(P(), P(), P("data"), P("data")), out_specs=((P(), P()), P())
        )

    def step(params, stats, opt_state, images, labels):
        (loss, stats), grads = gradients(params, stats, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, loss

    images = jax.ShapeDtypeStruct((batch_size, 224, 224, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 224, 224, 3)), train=False))
    params, stats = variables["params"], variables["batch_stats"]
    one, split = replicated(mesh), batch_sharding(mesh)
    jitted = jax.jit(step, donate_argnums=(0, 1, 2), in_shardings=(one, one, one, split, split), out_shardings=one)
    lowered = jitted.lower(params, stats, jax.eval_shape(optimizer.init, params), images, labels)
    started = time.perf_counter()
    compiled = lowered.compile()
    return {**figures(compiled), "compile_seconds": round(time.perf_counter() - started, 1)}


def compile_ours(topology: str, batch_size: int, batch_norm: str, bare: bool) -> dict[str, Any]:
    """The figures of the recipe's step."""
    config = dataclasses.replace(load_config(RECIPE), batch_size=batch_size, batch_norm=batch_norm)
    if bare:
        config = dataclasses.replace(config, store_size=config.image_size, crop_scale=(1.0, 1.0), flip=False)
    return compile_only(config, topology)


def main() -> None:
    """Compiles the requested steps, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--images-per-chip", type=int, default=256)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=VARIANTS)
    arguments = parser.parse_args()
    batch_size = arguments.images_per_chip * parse_topology(arguments.topology).devices

    results: dict[str, dict[str, Any]] = {}
    for variant in arguments.only:
        kind, batch_norm = variant.split(":")
        print(f"compiling {variant}", file=sys.stderr)
        if kind == "plain":
            result = compile_plain(arguments.topology, batch_size, batch_norm)
        else:
            result = compile_ours(arguments.topology, batch_size, batch_norm, bare=kind == "bare")
        results[variant] = result
        print(json.dumps({"step": variant, "topology": arguments.topology, "batch_size": batch_size, **result}))
        sys.stdout.flush()

    rows = []
    for variant, result in results.items():
        plain = results.get(f"plain:{variant.split(':')[1]}")
        ratios = [f"{result[name] / plain[name]:.3f}" if plain else "-" for name in FIGURES[:2]]
        gigabytes = [f"{result[name] / 1e9:.2f}" for name in FIGURES[:2]]
        rows.append([variant, *gigabytes, *ratios, f"{result['flops'] / 1e12:.3f}", f"{result['all_reduces']}"])
    header = ["step", "GB moved", "GB temp", "moved/plain", "temp/plain", "TFLOP", "all-reduces"]
    print(table(header, rows, left=1))


if __name__ == "__main__":
    main()
