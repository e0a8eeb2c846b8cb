"""Part 1 of accelerator.py: whether the device computes what the CPU of the same machine computes.

Networks: the library's compiled training step takes one step on the device and one on the CPU, from the same weights
and on the same images. The logits, the gradients and the updated running statistics are compared. The CPU computes in
float32 with the highest precision. The device computes in three ways: the same; float32 with JAX's default precision
(TF32 on NVIDIA GPUs, products of bfloat16 on TPUs); and bfloat16.

Runs: 20 steps of the quickstart, compared with the CPU's losses; 50 steps in float16; and a run that is stopped, saved
and resumed. With `--small` on a machine without an accelerator, the device is the CPU itself.
"""

import dataclasses
import math
import statistics
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.on_accelerator.rows import Row
from benchmarks.on_accelerator.tasks import ROOT, Job, Task
from flax_resnets.machine import cores

# For each, the recipe's `precision` and JAX's precision for products of float32 numbers.
PRECISIONS = {
    "float32, highest": ("float32", "highest"),
    "float32": ("float32", "default"),
    "bfloat16": ("bfloat16", "default"),
}
"""The ways in which a device computes, by name."""

# The largest relative differences that are allowed, as `compared` and `together` compute them. With `float32, highest`
# only the order of summation differs. With products of TF32 (11 bits) or bfloat16 (8 bits), the errors of logits and
# statistics are about as large as the rounding of the inputs. Those of gradients are about its square root, because
# ReLUs near 0 switch; the gradients of small arrays have larger errors. Each bound is about five times the difference
# that a CPU gives for ResNet-50: in another order (gradients 0.001, each gradient 0.009), with inputs rounded as in
# TF32 (0.03), and in bfloat16 (0.13; logits and statistics 0.003). Single gradients have a bound only with the highest
# precision. With the others, the gradient of a bias that the next norm subtracts is nothing but rounding.
BOUNDS: dict[str, dict[str, float]] = {
    "float32, highest": {"logits": 1e-4, "statistics": 1e-4, "gradients": 1e-2, "each gradient": 5e-2},
    "float32": {"logits": 2e-3, "statistics": 2e-3, "gradients": 0.2},
    "bfloat16": {"logits": 2e-2, "statistics": 2e-2, "gradients": 0.5},
}
"""The largest differences that are allowed. On a TPU `float32` has the bounds of `bfloat16`, which its products use."""

# Name of a network, and its kind of BatchNorm.
NETWORKS: dict[str, tuple[str, str]] = {
    "resnet18": ("resnet18", "global"),
    "resnet50": ("resnet50", "global"),
    "resnet50d": ("resnet50d", "global"),
    "resnetv2_50": ("resnetv2_50", "global"),
    "resnext50_32x4d": ("resnext50_32x4d", "global"),
    "seresnet50": ("seresnet50", "global"),
    "densenet": ("densenet", "global"),
    "quickstart": ("quickstart", "global"),
    "quickstart, batch_norm=device": ("quickstart", "device"),
    "quickstart, batch_norm=ghost:32": ("quickstart", "ghost:32"),
}
"""The networks that are compared, by the name of the task."""

# The quickstart's losses change little with rounding: on 1 and on 8 CPU devices they differ by 1e-5
# (configs/quickstart.py).
LOSS_BOUND = 1e-3
STEPS, HALF_STEPS = 20, 50
LOSSES, HALF, RESUMED = f"{STEPS} steps", f"{HALF_STEPS} steps in float16", "stopped, saved and resumed"
RUNS = {
    LOSSES: "the quickstart's first losses in float32 with highest precision, compared with the CPU's",
    HALF: "the quickstart in float16 with a scaled loss: its last ten losses relative to its first ten",
    RESUMED: "the quickstart stopped in its second epoch and resumed: whether its digest is another one",
}
"""What is compared in runs, by the name of the task."""


def tasks(job: Job) -> dict[str, Task]:
    """The part's tasks, in order."""
    ours = _Programs(job)
    return {
        # The tasks with the least to compile come first; meanwhile the networks' programs are compiled.
        LOSSES: partial(_first_losses, ours),
        HALF: partial(_float16, ours),
        RESUMED: partial(_resumed, job),
        **{name: partial(_network, ours, name) for name in NETWORKS},
    }


def compared(found: Any, wanted: Any) -> float:
    """The largest relative difference of any array in two trees.

    The difference of an array is its root mean square, divided by that of the wanted array. If the latter is below a
    hundredth of the whole tree's, the difference is divided by that hundredth instead: some arrays are nothing but
    rounding, such as the gradient of a bias that the next norm subtracts.

    Args:
        found: the device's results.
        wanted: the CPU's results.

    Example:
        >>> compared({"a": np.ones(4)}, {"a": np.full(4, 2.0)})
        0.5
    """
    pairs = _pairs(found, wanted)
    floor = _rms(np.concatenate([theirs.ravel() for _, theirs in pairs])) / 100
    differences = [_relative(ours - theirs, max(_rms(theirs), floor)) for ours, theirs in pairs]
    return max(differences)


def together(found: Any, wanted: Any) -> float:
    """The relative difference of two trees, with all their arrays taken as one.

    Example:
        >>> together([np.ones(3), np.ones(1)], [np.ones(3), np.zeros(1)]) ** 2
        0.3333333333333333
    """
    ours, theirs = (
        np.concatenate([array.ravel() for array in each]) for each in zip(*_pairs(found, wanted), strict=True)
    )
    return _relative(ours - theirs, _rms(theirs))


def _pairs(found: Any, wanted: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    import jax

    trees = jax.tree.leaves(found), jax.tree.leaves(wanted)
    return [(np.asarray(ours, np.float64), np.asarray(theirs, np.float64)) for ours, theirs in zip(*trees, strict=True)]


def _relative(difference: np.ndarray, scale: float) -> float:
    size = _rms(difference)
    if not math.isfinite(size):
        return math.inf
    return size / scale if scale else size


def _rms(array: np.ndarray) -> float:
    return math.sqrt(float((array**2).mean()))


class _Programs:
    """The compiled programs of the networks. Each is compiled once, in a thread, while other tasks run.

    Args:
        job: job of the part.
    """

    def __init__(self, job: Job):
        self.job = job
        self._pool = ThreadPoolExecutor(cores())
        self._compiled: dict[tuple[Any, ...], Future] = {}

    def start(self) -> None:
        """Starts to compile the programs that the comparisons need."""
        from flax_resnets.data.source import SAMPLE, open_source
        from flax_resnets.training import loop  # noqa: F401

        # TFDS and Orbax replace Python's `import` for the whole process while they are being imported. No other thread
        # may import anything at that time.
        open_source(SAMPLE, "train")
        for name in NETWORKS:
            wanted = [("float32, highest", self.cpu), *((precision, self.device) for precision in PRECISIONS)]
            for precision, device in wanted:
                self.step(name, precision, device)
                self.logits(name, precision, device)

    @property
    def cpu(self) -> Any:
        import jax

        return jax.devices("cpu")[0]

    @property
    def device(self) -> Any:
        import jax

        return jax.devices()[0]

    def step(self, name: str, precision: str, device: Any) -> Future:
        """A network's training step for a device, and the shapes of its state."""
        return self._program(_compiled_step, name, precision, device)

    def logits(self, name: str, precision: str, device: Any) -> Future:
        """A network's logits with running statistics. The kind of BatchNorm makes no difference to them."""
        network, _ = NETWORKS[name]
        return self._program(_compiled_logits, network, precision, device)

    def _program(self, compiled: Any, name: str, precision: str, device: Any) -> Future:
        if device.platform == "cpu" and precision == "float32":
            precision = "float32, highest"  # a CPU computes float32 in one way only
        key = compiled, name, precision, device
        if key not in self._compiled:
            self._compiled[key] = self._pool.submit(compiled, self.job.small, name, precision, device)
        return self._compiled[key]


def _config(name: str, precision: str, small: bool) -> Any:
    from flax_resnets.training.config import Config
    from flax_resnets.training.recipes import load_config

    network, batch_norm = NETWORKS[name]
    about = {"precision": PRECISIONS[precision][0], "batch_norm": batch_norm}
    # Without momentum, the state of SGD is the gradient itself.
    plain = {"optimizer": "sgd", "schedule": "constant", "learning_rate": 1.0, "momentum": (0.0, 0.0)}
    plain |= {"weight_decay": 0.0, "epochs": 1}
    if network == "quickstart":
        recipe = load_config(ROOT / "configs" / "quickstart.py")
        return dataclasses.replace(recipe, **plain, **about, flip=False)
    return Config(
        model=network,
        model_options={"width": 16 if network.startswith("resnext") else 8} if small and network != "densenet" else {},
        dataset="none: the batch is made here",
        image_size=32 if small else 96,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        batch_size=8 if small else 32,
        flip=False,
        **plain,
        **about,
    )


def _model(config: Any, small: bool) -> Any:
    """The network of a configuration. A small one has one stage of one block."""
    from flax_resnets.training.network import make_model

    model: Any = make_model(config, num_classes=10)
    if small:
        return model.clone(**{"stages" if config.model == "densenet" else "stage_sizes": (1,)})
    return model


def _mesh_of(device: Any) -> Any:
    """A mesh of one device."""
    from flax_resnets.training.placement import make_mesh

    return make_mesh(devices=[device])


def _shapes(config: Any, model: Any, optimizer: Any, mesh: Any) -> tuple[Any, Any]:
    """The shapes of the state and of the batch, with their shardings."""
    import jax
    import jax.numpy as jnp

    from flax_resnets.data.batches import Batch
    from flax_resnets.training.placement import batch_sharding, replicated
    from flax_resnets.training.state import create_state

    image = config.image_size, config.image_size, len(config.mean)
    state = jax.eval_shape(lambda: create_state(model, optimizer, image, config.seed))
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), state)
    images = jax.ShapeDtypeStruct((config.batch_size, *image), jnp.uint8, sharding=batch_sharding(mesh))
    labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.int32, sharding=batch_sharding(mesh))
    return state, Batch(images, labels)


def _optimizer(config: Any) -> Any:
    from flax_resnets.training.optimizers import make_optimizer
    from flax_resnets.training.schedule import make_schedules

    return make_optimizer(config, *make_schedules(config, steps=1))


def _compiled_step(small: bool, name: str, precision: str, device: Any) -> tuple[Any, Any]:
    import jax

    from flax_resnets.training.step import make_train_step

    config, mesh = _config(name, precision, small), _mesh_of(device)
    model, optimizer = _model(config, small), _optimizer(config)
    state, batch = _shapes(config, model, optimizer, mesh)
    with jax.default_matmul_precision(PRECISIONS[precision][1]):
        lowered = make_train_step(model, optimizer, config, mesh).lower(state, batch)
    return lowered.compile(), state


def _compiled_logits(small: bool, name: str, precision: str, device: Any) -> Any:
    import jax

    from flax_resnets import augment

    config = _config(name, precision, small)
    model = _model(config, small)
    state, batch = _shapes(config, model, _optimizer(config), _mesh_of(device))

    def logits(params: Any, batch_stats: Any, images: jax.Array) -> Any:
        shown = augment.for_evaluation(images, config, config.image_size)
        return model.apply({"params": params, "batch_stats": batch_stats}, shown, train=False)

    with jax.default_matmul_precision(PRECISIONS[precision][1]):
        lowered = jax.jit(logits).lower(state.params, state.batch_stats, batch.images)
    return lowered.compile()


def _initial_state(shapes: Any) -> Any:
    """A state with weights drawn on the host: Kaiming's distribution for kernels, scales around 1, biases around 0.

    In the last norm of a residual block they are divided by ten. If each branch were as large as its input, then in
    fifty layers a rounding error would switch so many ReLUs that gradients in bfloat16 had nothing in common with those
    in float32.
    """
    import jax

    random = np.random.default_rng(0)

    def made(path: Any, leaf: Any) -> np.ndarray:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        drawn = random.standard_normal(leaf.shape)
        if not name.startswith("params"):
            return np.full(leaf.shape, name.endswith("var"), leaf.dtype)
        if len(leaf.shape) > 1:
            drawn *= math.sqrt(2 / math.prod(leaf.shape[:-1]))
        else:
            drawn = 0.1 * drawn + name.endswith("scale")
        return drawn.astype(leaf.dtype)

    state = jax.tree.map_with_path(made, shapes)
    return state.replace(params={name: _with_small_last_norm(part) for name, part in state.params.items()})


def _with_small_last_norm(part: Any) -> Any:
    """A part of the parameters. If it is a residual block, its last norm is divided by ten."""
    last = next((name for name in ("norm3", "norm2") if name in part), None)
    if last is None:
        return part
    return part | {last: {name: (array / 10).astype(array.dtype) for name, array in part[last].items()}}


def _network(ours: _Programs, name: str) -> Iterator[Row]:
    """One step and the logits, in each precision."""
    import jax
    import optax

    from flax_resnets.data.batches import Batch

    ours.start()
    config = _config(name, "float32", ours.job.small)
    random = np.random.default_rng(1)
    shape = config.batch_size, config.image_size, config.image_size, len(config.mean)
    batch = Batch(random.integers(0, 256, shape, np.uint8), random.integers(0, 10, config.batch_size, np.int32))
    state: Any = None

    def computed(precision: str, device: Any) -> dict[str, Any]:
        nonlocal state
        step, shapes = ours.step(name, precision, device).result()
        if state is None:
            state = _initial_state(shapes)
        start, there = jax.device_put((state, batch), jax.tree.leaves(shapes)[0].sharding)
        forward = ours.logits(name, precision, device).result()
        found = {"logits": forward(start.params, start.batch_stats, there.images)}
        end, _ = step(start, there)
        return jax.device_get(
            found | {"gradients": optax.tree.get(end.opt_state, "trace"), "statistics": end.batch_stats}
        )

    wanted = computed("float32, highest", ours.cpu)
    for precision in PRECISIONS:
        found = computed(precision, ours.device)
        worst = {what: compared(found[what], wanted[what]) for what in ("logits", "statistics")}
        worst["gradients"] = together(found["gradients"], wanted["gradients"])
        worst["each gradient"] = compared(found["gradients"], wanted["gradients"])
        bound = BOUNDS["bfloat16" if precision == "float32" and ours.job.backend == "tpu" else precision]
        ok = all(worst[what] <= bound[what] for what in bound)
        about = {"precision": precision, "batch": config.batch_size, "size": config.image_size}
        yield {**about, "worst": worst, "bound": bound, "ok": ok}


def _recipe(small: bool, **changes: Any) -> Any:
    """The quickstart, on the sample in the package. If small, it trains LeNet on a part of it."""
    from flax_resnets.training.recipes import load_config

    if small:
        changes |= {"model": "lenet_bn", "model_options": {}, "batch_size": 64}
        changes |= {"train_split": "train[:1280]", "validation_split": "test[:200]"}
    return dataclasses.replace(load_config(ROOT / "configs" / "quickstart.py"), **changes)


def _steps(config: Any, device: Any, count: int, start: Any = None) -> Generator[tuple[Any, Any]]:
    """The state and the figures of a recipe's first steps on a device; `start` is a state on the host to begin with."""
    import jax

    from flax_resnets.training.build import build_steps
    from flax_resnets.training.display import Display
    from flax_resnets.training.network import make_model
    from flax_resnets.training.placement import replicated, to_devices
    from flax_resnets.training.splits import load_split
    from flax_resnets.training.timeline import Timeline

    data, classes = load_split(config, "train", Display(silent=True))
    mesh = _mesh_of(device)
    timeline = Timeline(len(data) // config.batch_size)
    steps = build_steps(config, make_model(config, classes), mesh, data.channels, timeline)
    state = steps.create_state() if start is None else jax.device_put(start, replicated(mesh))
    train_step = steps.train_step_at(config.image_size)
    for batch in data.train_batches(config.batch_size, config.seed, range(count)):
        state, output = train_step(state, to_devices(batch, mesh))
        yield state, output


def _first_losses(ours: _Programs) -> Iterator[Row]:
    """The quickstart's first steps on the device and on the CPU, both from the CPU's initial weights."""
    import jax

    from flax_resnets.training.build import build_steps
    from flax_resnets.training.network import make_model
    from flax_resnets.training.timeline import Timeline

    ours.start()
    config = _recipe(ours.job.small)
    start = jax.device_get(
        build_steps(config, make_model(config, 10), _mesh_of(ours.cpu), len(config.mean), Timeline(1)).create_state()
    )
    with jax.default_matmul_precision("highest"):
        there, here = (
            [float(output.loss) for _, output in _steps(config, device, STEPS, start)]
            for device in (ours.device, ours.cpu)
        )
    worst = max(abs(a - b) for a, b in zip(there, here, strict=True))
    worst = worst if math.isfinite(worst) else math.inf
    about = {"network": config.model, "losses": there, "losses_on_cpu": here}
    yield {**about, "worst": worst, "bound": LOSS_BOUND, "ok": worst <= LOSS_BOUND}


def _float16(ours: _Programs) -> Iterator[Row]:
    """float16: the losses must fall, and the loss scale must fall until the gradients are finite."""
    config = _recipe(ours.job.small, precision="float16")
    losses, skipped, scale = [], 0, 0.0
    for state, output in _steps(config, ours.device, HALF_STEPS):
        losses.append(float(output.loss))
        skipped, scale = int(state.skipped), float(state.loss_scale.scale)
    early, late = statistics.mean(losses[:10]), statistics.mean(losses[-10:])
    # The scale begins at 2^16 and halves at each skipped step. More than ten skipped steps have another cause.
    ok = all(map(math.isfinite, losses[-10:])) and late < early and skipped <= 10
    about = {"network": config.model, "losses": losses, "loss_scale": scale}
    yield {**about, "skipped": skipped, "worst": late / early, "bound": 1.0, "ok": ok}


def _resumed(job: Job) -> Iterator[Row]:
    """A run, and the same run with a stop in its second epoch: compares the digests of their final states."""
    import json

    from flax_resnets.training.compilation import keep_compiled_programs
    from flax_resnets.training.display import Display
    from flax_resnets.training.interruption import Interruption, Stopped
    from flax_resnets.training.loop import fit
    from flax_resnets.training.splits import load_split
    from flax_resnets.training.trainer import Trainer

    keep_compiled_programs()
    config = _recipe(job.small, batch_size=512, epochs=2)
    quiet = Display(silent=True)
    (train, classes), (valid, _) = (load_split(config, split, quiet) for split in ("train", "validation"))
    stop = Interruption()

    class Stopping:
        """The training split. It asks the run to stop at a certain step."""

        channels = train.channels

        def __len__(self) -> int:
            return len(train)

        def train_batches(self, batch_size: int, seed: int, steps: range, *order: Any) -> Any:
            for step, batch in zip(steps, train.train_batches(batch_size, seed, steps, *order), strict=True):
                if step == stopped_at:
                    stop.signal = "SIGTERM"
                yield batch

        eval_batches = train.eval_batches

    def digest(workdir: Path, split: Any, stop: Interruption | None = None) -> str:
        workdir.mkdir(exist_ok=True)
        fit(Trainer(config, split, valid, classes, quiet), workdir, stop)
        return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["state_digest"]

    stopped_at = len(train) // config.batch_size + 5
    with tempfile.TemporaryDirectory() as scratch:
        unbroken = digest(Path(scratch, "unbroken"), train)
        was_stopped = False
        try:
            digest(Path(scratch, "stopped"), Stopping(), stop)
        except Stopped:
            was_stopped = True
        resumed = digest(Path(scratch, "stopped"), train)
    about = {
        "network": config.model,
        "stopped_at": stopped_at + 1 if was_stopped else None,
        "digest": unbroken,
        "digest_resumed": resumed,
    }
    yield {**about, "worst": float(unbroken != resumed), "bound": 0.0, "ok": was_stopped and unbroken == resumed}
