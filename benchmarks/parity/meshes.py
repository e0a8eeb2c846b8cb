"""Compares networks on meshes of simulated devices with the same networks without a mesh, and writes docs/meshes.md.

    python -m benchmarks.parity.meshes                              # every network on every mesh, and the page
    python -m benchmarks.parity.meshes --meshes Explicit:8 --only ghost:4    # a line of JSON for each comparison

Each network takes a training step and evaluates. Logits, gradients and running statistics are compared, on meshes with
Explicit axes (as `jax.make_mesh` makes them) and with Auto axes, whose 1, 2 or 8 devices share the images.
"""

import argparse
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flax_resnets import BasicBlock, BottleneckBlock, ResNet, create_model
from flax_resnets.models.resnet import PreActBasicBlock, PreActBottleneckBlock

PAGE = Path(__file__).resolve().parents[2] / "docs" / "meshes.md"
MESHES = tuple(f"{kind}:{devices}" for kind in ("Explicit", "Auto") for devices in (1, 2, 8))
BATCH, EVEN, ODD = 16, (32, 24), (33, 25)
KINDS = ("eval", "train", "statistics", "gradients")


def _small(**options: Any) -> ResNet:
    return ResNet(**{"stage_sizes": (1, 1), "block": BasicBlock, "num_classes": 10, "width": 8, **options})


def _cases() -> dict[str, tuple[Any, tuple[int, int, int]]]:
    """The networks by name, each with the shape of its images."""
    cases = {}
    for stem in ("imagenet", "deep", "small"):
        for size in (EVEN, ODD):
            cases[f"stem={stem}, {size[0]} x {size[1]}"] = _small(stem=stem), (*size, 3)
    for block in (BottleneckBlock, PreActBasicBlock, PreActBottleneckBlock):
        cases[block.__name__] = _small(block=block), (*ODD, 3)
    options: dict[str, dict[str, Any]] = {
        "shortcut=avg_pool": {"shortcut": "avg_pool"},
        "shortcut=pad": {"shortcut": "pad"},
        "groups": {"block": BottleneckBlock, "groups": 4, "width_per_group": 16},
        "squeeze_excite": {"squeeze_excite": True},
        "silu": {"activation": "silu"},
        "mish": {"activation": "mish"},
        "gelu": {"activation": "gelu"},
        "blur_pool": {"blur_pool": True},
        "output_stride": {"stage_sizes": (1, 1, 1), "output_stride": 8, "shortcut": "avg_pool"},
        "stochastic_depth": {"stochastic_depth": 0.3},
        "dropout": {"dropout": 0.3},
        "remat": {"remat": "block"},
        "frozen": {"frozen": ("stem", "stage1")},
        "ghost:1": {"batch_norm": "ghost:1"},
        "ghost:4": {"batch_norm": "ghost:4"},
        "ghost:16": {"batch_norm": "ghost:16"},
        "features alone": {"num_classes": 0},
    }
    for name, of_case in options.items():
        cases[name] = _small(**of_case), (*EVEN, 3)
    for name, side in (
        *(("fcn", 32), ("resblock_net", 32), ("resblock_net_deep", 32), ("lenet", 28), ("lenet_bn", 28)),
        *(("alexnet", 72), ("vgg11_quarter", 32), ("nin", 72), ("googlenet", 32), ("densenet", 32)),
    ):
        cases[name] = create_model(name, num_classes=10), (side, side, 1)
    return cases


CASES = _cases()


def _draw(shapes: Any) -> Any:
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            return random.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(np.float32)
        return random.uniform(0.5, 1.5, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _step(model: Any, variables: Any, x: jax.Array) -> dict[str, Any]:
    def loss(params: Any) -> tuple[jax.Array, Any]:
        rngs = {"dropout": jax.random.key(1)}
        logits, updates = model.apply({**variables, "params": params}, x, True, mutable=["batch_stats"], rngs=rngs)
        return jnp.square(logits).mean(), (logits, updates.get("batch_stats", {}))

    gradients, (logits, statistics) = jax.grad(loss, has_aux=True)(variables["params"])
    return dict(zip(KINDS, (model.apply(variables, x), logits, statistics, gradients), strict=True))


def on_mesh(name: str, mesh: str, trace_only: bool = False) -> Any:
    """The results of `_step` on a mesh such as `Explicit:8` (`none` for no mesh), or only their shapes."""
    model, image = CASES[name]
    x = jax.ShapeDtypeStruct((BATCH, *image), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), x)
    step = jax.jit(functools.partial(_step, model))
    if not trace_only:
        x = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
        variables = _draw(variables)
    if mesh == "none":
        return jax.device_get(step(variables, x))
    kind, _, devices = mesh.partition(":")
    axes = jax.make_mesh((int(devices),), ("data",), (AxisType[kind],), devices=jax.devices()[: int(devices)])
    split, whole = NamedSharding(axes, PartitionSpec("data")), NamedSharding(axes, PartitionSpec())

    def shapes(tree: Any, where: NamedSharding) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree)

    with jax.set_mesh(axes):
        if trace_only:
            return jax.eval_shape(step, shapes(variables, whole), shapes(x, split))
        return jax.device_get(step(jax.device_put(variables, whole), jax.device_put(x, split)))


def compare(names: list[str], meshes: list[str]) -> Iterator[dict[str, Any]]:
    """For each network and mesh, the largest relative difference from the network without a mesh."""
    for name in names:
        expected = on_mesh(name, "none")
        for mesh in meshes:
            got = on_mesh(name, mesh)
            yield {"network": name, "mesh": mesh, **{kind: _distance(got[kind], expected[kind]) for kind in KINDS}}


def _distance(got: Any, expected: Any) -> float:
    """The Euclidean norm of the difference of two trees of arrays, divided by that of the second tree."""
    leaves = [jax.tree.leaves(tree) for tree in (got, expected)]
    if not leaves[1]:  # no running statistics
        return 0.0
    a, b = (np.concatenate([leaf.ravel() for leaf in of_tree]) for of_tree in leaves)
    return float(f"{np.linalg.norm(a - b) / np.linalg.norm(b):.1e}")


_HEAD = """\
# On meshes

The largest relative difference (‖difference‖ / ‖value‖) between a network on a mesh and the same network without one,
with the same weights and 16 images. Logits in evaluation and training, running statistics and all gradients are
compared. The devices are simulated, and the images are split over them. Explicit axes are those of
`jax.make_mesh((n,), ("data",))`, Auto axes those of the trainer. The networks are small ones with each kind of block.
Written by `python -m benchmarks.parity.meshes`, in float32 on a CPU.
"""


def table(rows: list[dict[str, Any]]) -> str:
    """The page: a row for each network, a column for each mesh."""
    lines = [_HEAD, f"| network | {' | '.join(MESHES)} |", f"|---|{'---:|' * len(MESHES)}"]
    worst = {(row["network"], row["mesh"]): max(row[kind] for kind in KINDS) for row in rows}
    lines += [f"| {name} | {' | '.join(f'{worst[name, mesh]:.0e}' for mesh in MESHES)} |" for name in CASES]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compares what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(CASES), metavar="NETWORK")
    parser.add_argument("--meshes", nargs="*", default=list(MESHES), choices=MESHES)
    parser.add_argument("--trace", action="store_true", help="only trace all networks to shapes, which takes seconds")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    if arguments.trace:
        for mesh in arguments.meshes:
            for name in CASES:
                on_mesh(name, mesh, trace_only=True)
            print(json.dumps({"traced": len(CASES), "mesh": mesh}), flush=True)
    rows = []
    for row in compare(list(CASES) if arguments.only is None else arguments.only, arguments.meshes):
        print(json.dumps(row), flush=True)
        rows.append(row)
    if arguments.only is None and tuple(arguments.meshes) == MESHES:
        PAGE.write_text(table(rows))


if __name__ == "__main__":
    main()
