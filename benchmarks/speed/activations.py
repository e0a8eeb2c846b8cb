"""Measures how much time and memory an activation function adds to training, by turns.

    python -m benchmarks.speed.activations
    python -m benchmarks.speed.activations --models resnet18d --batch-size 8 --image-size 64 --rounds 3

The program computes loss and gradients of one batch, compiled like the trainer's step, without optimizer and
augmentation: with ReLU, with this library's Mish, and with `jax.nn.mish` in its place. A turn begins with a repetition
that is not timed, because the system may have taken back memory that was free during other turns.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import optax

from flax_resnets import create_model
from flax_resnets.cli.bench.figures import ratios, spread
from flax_resnets.errors import UserError
from flax_resnets.machine import describe_machine
from flax_resnets.models import resnet
from flax_resnets.models.layers import mish
from flax_resnets.training.compilation import for_speed
from flax_resnets.training.placement import make_mesh

CONTENDERS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "mish": mish,
    "jax.nn.mish": jax.nn.mish,
}


def gradients_of(
    name: str, activation: Callable[[jax.Array], jax.Array], images: jax.Array
) -> tuple[Any, Callable[[], Any]]:
    """The compiled program for loss and gradients of a batch, and a function that calls it."""
    model = create_model(name, num_classes=10, activation="mish")
    labels = jnp.arange(len(images)) % 10

    def loss(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updates = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updates

    with mock.patch.dict(resnet._ACTIVATIONS, {"mish": activation}):  # read when the network is traced
        variables = jax.jit(model.init)(jax.random.key(0), images[:1])
        compiled = (
            jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=for_speed(make_mesh()))
            .lower(variables["params"], variables["batch_stats"], images)
            .compile()
        )
    return compiled, partial(compiled, variables["params"], variables["batch_stats"], images)


def measure(name: str, batch_size: int, image_size: int, rounds: int) -> dict[str, Any]:
    """Times all activations in one network; returns rows of the table."""
    images = jax.random.normal(jax.random.key(1), (batch_size, image_size, image_size, 3))
    contenders = {contender: gradients_of(name, function, images) for contender, function in CONTENDERS.items()}
    seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(rounds):
        for contender, (_, call) in contenders.items():
            jax.block_until_ready(call())
            started = time.perf_counter()
            jax.block_until_ready(call())
            seconds[contender].append(time.perf_counter() - started)
    return {
        "model": name,
        "batch_size": batch_size,
        "image_size": image_size,
        "seconds": {contender: spread(values) for contender, values in seconds.items()},
        "ratios": ratios(seconds, "relu"),
        "temp_bytes": {
            contender: compiled.memory_analysis().temp_size_in_bytes for contender, (compiled, _) in contenders.items()
        },
        "rounds": rounds,
        "versions": {"jax": jax.__version__},
        "machine": describe_machine(),
    }


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18d", "resnet50d"], metavar="NAME")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="file for a line of JSON for each network")
    arguments = parser.parse_args()
    try:
        for name in arguments.models:
            create_model(name, activation="mish")  # reports a misspelt name before minutes are spent
    except UserError as error:
        print(f"activations.py: {error}", file=sys.stderr)
        return 2
    print("| network | activation | time | times ReLU's (quartiles) | temporary memory |\n|---|---|---:|---:|---:|")
    for name in arguments.models:
        row = measure(name, arguments.batch_size, arguments.image_size, arguments.rounds)
        for contender in CONTENDERS:
            time_taken, ratio = f"{row['seconds'][contender].median:.2f} s", row["ratios"].get(contender)
            against = f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio else ""
            memory = f"{row['temp_bytes'][contender] / 1e9:.2f} GB"
            print(f"| {name} | {contender} | {time_taken} | {against} | {memory} |", flush=True)
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
