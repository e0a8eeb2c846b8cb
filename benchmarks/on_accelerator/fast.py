"""Part 2 of accelerator.py: the speed of this library on the device, compared with other libraries.

ResNet-50 and ResNet-18 at 224 px in bfloat16 are trained and used for inference. Contenders take turns: this library, a
plain linen step and, if torch with CUDA is installed, torchvision's network with `torch.compile`, channels last and
autocast to bfloat16. Then three steps are traced, and the speed of the input path is measured. The images are made by
the script, so this part needs no data.
"""

import contextlib
import dataclasses
import io
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.on_accelerator.rows import Row
from benchmarks.on_accelerator.tasks import Job, Task

NETWORKS = ("resnet50", "resnet18")
WORKS = ("train", "inference", "largest batch")
WAYS = ("cached, 1 thread", "cached, 4 threads", "streamed")
TRACED_STEPS = 3

# Peak rates for bfloat16 without sparsity, in FLOP/s. A key is part of the name that JAX gives to the device; the first
# match counts. NVIDIA's rates are from the data sheets of the A100, H100 and H200, TPUs' are in
# flax_resnets/training/tpu/chips.py.
_GPU_PEAKS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
}
_TPU_NAMES = {"TPU v6": "v6e", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v4": "v4"}


class Sizes(NamedTuple):
    """Images in a batch for training and for inference, side in pixels, number of rounds, and seconds of a turn."""

    batch: int
    inference: tuple[int, ...]
    size: int
    rounds: int
    turn: float


FULL = Sizes(256, (1, 32, 256), 224, 3, 1.0)
SMALL = Sizes(4, (1, 2), 32, 1, 0.01)


def tasks(job: Job) -> dict[str, Task]:
    """The part's tasks. The most important ones come first."""
    sizes = SMALL if job.small else FULL
    # A CPU of two cores has no time for two networks that differ only in their depth.
    networks = NETWORKS[1:] if job.small else NETWORKS
    first, *others = networks
    return {
        f"{first} train": partial(_train, job, sizes, first),
        "trace": partial(_trace, job, sizes, first),
        "input": partial(_input, job, sizes, first),
        f"{first} inference": partial(_inference, job, sizes, first),
        **{f"{name} train": partial(_train, job, sizes, name) for name in others},
        **{f"{name} inference": partial(_inference, job, sizes, name) for name in others},
        **{f"{name} largest batch": partial(_largest, job, sizes, name) for name in networks},
    }


def peak(device: str) -> float | None:
    """The peak rate of a device in bfloat16 in FLOP/s, as given by its maker; None if it is not known here.

    Example:
        >>> peak("NVIDIA H100 80GB HBM3"), peak("TPU v5 lite"), peak("cpu")
        (989000000000000.0, 197000000000000.0, None)
    """
    from flax_resnets.training.tpu.chips import CHIPS

    peaks = {**_GPU_PEAKS, **{name: CHIPS[chip].flops_per_second for name, chip in _TPU_NAMES.items()}}
    return next((rate for name, rate in peaks.items() if name in device), None)


def halved(measure: Callable[[int], Any], batch: int) -> tuple[Any, int, list[int]]:
    """Measures with a batch that is halved until it fits into the device's memory.

    Args:
        measure: is given the number of images; returns its results, or raises OutOfMemory.
        batch: number of images to begin with.

    Returns:
        The results, the number of images that fits, and the numbers that did not fit.

    Raises:
        OutOfMemory: not even one image fits.
    """
    too_large: list[int] = []
    while True:
        try:
            return measure(batch), batch, too_large
        except OutOfMemory:
            too_large.append(batch)
            if batch == 1:
                raise
            batch //= 2


class OutOfMemory(Exception):
    """The work does not fit into the device's memory."""


def _is_out_of_memory(reason: str) -> bool:
    return any(words in reason for words in ("RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory"))


def _case(network: str, work: Any, batch: int, size: int) -> Any:
    from flax_resnets.cli.bench.cases import Case

    return Case(f"{network}, {work}", network, work, batch, size, precision="bfloat16")


def _torch_is_missing() -> str | None:
    """Why torchvision does not take part; None if it does."""
    from flax_resnets.cli.bench.contenders import torch_is_here

    if not torch_is_here():
        return "torch or torchvision is not installed here"
    program = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        return f"torch does not start: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
    return None if done.stdout.split()[-1:] == ["True"] else "torch sees no CUDA device here"


def _measure_in_turns(job: Job, sizes: Sizes, cases: list[Any], peers: bool) -> Iterator[Row]:
    """Measures all contenders in turns; gives a row for each contender and case. The cases are of one kind of work.

    Raises:
        OutOfMemory: a contender does not fit into the memory beside the others.
    """
    from flax_resnets.cli.bench import contenders
    from flax_resnets.cli.bench.figures import ratios, spread
    from flax_resnets.cli.bench.interleave import interleave
    from flax_resnets.models.registry import MODELS

    no_torch = _torch_is_missing() if peers else None
    wanted = [contenders.LINEN] if peers else []
    if peers and not no_torch:
        wanted.append(contenders.TORCH)
    processes: list[Any] = []
    named: dict[str, tuple[str, Any]] = {}
    for case in cases:
        for number, process in enumerate(contenders.peers(case, job.backend, wanted)):
            renamed = []
            for contender in process.contenders:
                name = f"{contender.name}, batch {case.batch}"
                named[name] = contender.name, case
                more = {"compiled": True} if contender.name == contenders.TORCH else {}
                renamed.append(dataclasses.replace(contender, name=name, options={**contender.options, **more}))
            if number < len(processes):  # each contender has one process for all its cases
                joined = [*processes[number].contenders, *renamed]
                processes[number] = dataclasses.replace(processes[number], contenders=joined)
            else:
                processes.append(dataclasses.replace(process, contenders=renamed))
    result = interleave(processes, sizes.rounds, turn=sizes.turn)
    for reason in result.left_out.values():
        if _is_out_of_memory(reason):
            raise OutOfMemory(reason)
    rate = peak(job.device)
    for case in cases:
        ours = f"{contenders.OURS}, batch {case.batch}"
        here = {name: seconds for name, seconds in result.seconds.items() if named[name][1] is case}
        against = ratios(here, ours) if ours in here else {}
        for name, each_round in here.items():
            seconds, facts = spread(each_round), result.facts[name]
            flops = 2 * MODELS[case.network].multiply_adds * (case.size / MODELS[case.network].input_size) ** 2
            speed = case.batch / seconds.median
            row = {"contender": named[name][0], "network": case.network, "work": case.work, "precision": case.precision}
            row |= {"batch": case.batch, "size": case.size, "images_per_second": speed, "seconds": seconds.median}
            row |= {"seconds_quartiles": [seconds.low, seconds.high], "first_seconds": facts["first_seconds"]}
            row["share_of_peak"] = speed * flops * (3 if case.work == "train" else 1) / rate if rate else None
            row |= {name: facts.get(name) for name in ("memory_peak_bytes", "memory_limit_bytes", "versions")}
            if name in against:
                row |= {"ours_is_times_as_fast": against[name].median, "times_quartiles": list(against[name][1:])}
            yield row
        for name, reason in result.left_out.items():
            if named[name][1] is case:
                yield {"contender": named[name][0], "batch": case.batch, "size": case.size, "error": reason}
    if no_torch:
        yield {"contender": contenders.TORCH, "skipped": no_torch}


def _train(job: Job, sizes: Sizes, network: str) -> Iterator[Row]:
    """The training step of each contender, with a batch that fits."""

    def measure(batch: int) -> list[Row]:
        return list(_measure_in_turns(job, sizes, [_case(network, "train", batch, sizes.size)], peers=True))

    rows, _, too_large = halved(measure, sizes.batch)
    for row in rows:
        yield {"asked_batch": sizes.batch, "did_not_fit": too_large, **row}


def _inference(job: Job, sizes: Sizes, network: str) -> Iterator[Row]:
    """The logits of each contender, for each batch; ours have folded norms. The largest batch is halved if need be."""
    *smaller, largest = sizes.inference

    def measure(batch: int) -> list[Row]:
        cases = [_case(network, "inference", each, sizes.size) for each in dict.fromkeys((*smaller, batch))]
        return list(_measure_in_turns(job, sizes, cases, peers=True))

    rows, fits, too_large = halved(measure, largest)
    for row in rows:
        halves = row.get("batch") == fits and fits not in smaller
        yield {"asked_batch": largest if halves else row.get("batch"), "did_not_fit": too_large * halves, **row}


def _largest(job: Job, sizes: Sizes, network: str) -> Iterator[Row]:
    """Searches the largest training batch that fits, from the memory that a smaller one needed."""

    def measure(batch: int) -> Row:
        rows = list(_measure_in_turns(job, sizes, [_case(network, "train", batch, sizes.size)], peers=False))
        if "error" in rows[0]:
            raise RuntimeError(rows[0]["error"])
        return rows[0]

    row, batch, too_large = halved(measure, sizes.batch)
    if not (row["memory_peak_bytes"] and row["memory_limit_bytes"]):
        yield row | {"tried": [batch], "note": "no larger batch was tried: the device does not report its memory"}
        return
    tried = [*too_large, batch]
    step = max(sizes.batch // 8, 1)
    fits = int(0.95 * row["memory_limit_bytes"] / (row["memory_peak_bytes"] / batch))
    # After each failure the batch is made smaller by an eighth. Only a measurement proves that a batch fits.
    while (larger := min(fits, min(too_large, default=fits + 1) - 1) // step * step) > batch:
        tried.append(larger)
        try:
            row, batch = measure(larger), larger
            break
        except OutOfMemory:
            too_large.append(larger)
            fits = larger * 7 // 8
    yield row | {"tried": tried, "did_not_fit": too_large}


def kernels(profile: Any, count: int = 10) -> list[tuple[str, float, int]]:
    """The operations on which a trace's devices spent most time.

    Args:
        profile: a `jax.profiler.ProfileData`.
        count: how many operations to return.

    Returns:
        Name, seconds and number of calls of each of these operations, the longest first; and a last row, named `all`,
        for all operations of the trace.
    """
    from flax_resnets.training.profile import operations_of

    found = operations_of(profile)
    return [*found.costliest[:count], ("all", found.seconds, sum(calls for _, _, calls in found.costliest))]


def _trace(job: Job, sizes: Sizes, network: str) -> Iterator[Row]:
    """Traces three training steps with the profiler."""
    import jax

    from flax_resnets.cli.bench.ours import training_step
    from flax_resnets.training.compilation import keep_compiled_programs

    profile_data: Any = getattr(jax.profiler, "ProfileData", None)
    if profile_data is None:
        yield {"skipped": f"jax {jax.__version__} has no jax.profiler.ProfileData to read a trace with"}
        return
    keep_compiled_programs()

    def measure(batch: int) -> list[Row]:
        with _memory_errors():
            step, state, data = training_step(network, batch, sizes.size, "bfloat16")
            for _ in range(2):
                state, _ = step(state, data)
            jax.block_until_ready(state)
            with tempfile.TemporaryDirectory() as directory:
                started = time.perf_counter()
                with jax.profiler.trace(directory):
                    for _ in range(TRACED_STEPS):
                        state, _ = step(state, data)
                    jax.block_until_ready(state)
                took = time.perf_counter() - started
                (path,) = sorted(Path(directory).rglob("*.xplane.pb"))[:1]
                found = kernels(profile_data.from_file(str(path)))
        *costliest, (_, whole, _) = found
        return [
            {
                "network": network,
                "batch": batch,
                "size": sizes.size,
                "kernel": name[:200],
                "rank": rank,
                "seconds": seconds / TRACED_STEPS,
                "calls": calls / TRACED_STEPS,
                "share": seconds / whole if whole else None,
                "traced_seconds": took,
            }
            for rank, (name, seconds, calls) in enumerate(costliest, start=1)
        ]

    rows, _, _ = halved(measure, sizes.batch)
    if not rows:
        raise RuntimeError("the trace has no operations of the device in it")
    yield from rows


@contextlib.contextmanager
def _memory_errors() -> Iterator[None]:
    """Turns JAX's error for lack of memory into OutOfMemory."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if _is_out_of_memory(str(error)):
            raise OutOfMemory(str(error)) from error
        raise


class MadeImages:
    """A source of JPEGs that are as large and as hard to decode as photographs; see `flax_resnets.data.source`.

    Args:
        size: side of the images, in pixels.
        count: number of images in the source; only 64 different ones are made.
    """

    channels = 3
    multilabel = False

    def __init__(self, size: int, count: int):
        from PIL import Image

        random = np.random.default_rng(0)
        self._count = count
        self._encoded = []
        for _ in range(64):
            coarse = Image.fromarray(random.integers(0, 256, (size // 8, size // 8, 3), np.uint8))
            smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.int16)
            pixels = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=85)
            self._encoded.append(file.getvalue())

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        from flax_resnets.data.decode import decode

        return decode(self._encoded[index % len(self._encoded)], 3), index % 10

    def image(self, index: int) -> np.ndarray:
        """The decoded image."""
        return self[index][0]

    def label(self, index: int) -> int:
        """Its class."""
        return index % 10


def _input(job: Job, sizes: Sizes, network: str) -> Iterator[Row]:
    """For each way of input: images per second without a training step, and the time of the training step it feeds."""
    import jax

    from flax_resnets.cli.bench.ours import training_step
    from flax_resnets.data.batches import train_batch
    from flax_resnets.data.stream import StreamedImages
    from flax_resnets.machine import cores
    from flax_resnets.training.compilation import keep_compiled_programs
    from flax_resnets.training.in_flight import each_computed
    from flax_resnets.training.placement import make_mesh, to_devices

    keep_compiled_programs()
    mesh = make_mesh(devices=jax.devices()[:1])
    count = 2 if job.small else 30  # steps for each measurement

    def measure(batch: int) -> list[Row]:
        images = MadeImages(sizes.size, 64 * batch)
        kept = 8 * batch  # decoded images: too many for the caches of the machine's cores
        pixels = np.stack([images.image(index) for index in range(min(kept, 64))])
        pixels = np.tile(pixels, (-(-kept // len(pixels)), 1, 1, 1))[:kept]
        labels = (np.arange(kept) % 10).astype(np.int32)

        def gathered(step: int) -> Any:
            return train_batch(pixels, labels, batch, 0, step)

        def cached(threads: int, start: int) -> Iterator[Any]:
            if threads == 1:
                yield from map(gathered, range(start, start + count))
                return
            with ThreadPoolExecutor(threads) as pool:
                yield from pool.map(gathered, range(start, start + count))

        def streamed(start: int) -> Iterator[Any]:
            return StreamedImages(images, sizes.size).train_batches(batch, 0, range(start, start + count))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

        ways = dict(zip(WAYS, (partial(cached, 1), partial(cached, 4), streamed), strict=True))
        rows = []
        with _memory_errors():
            step, state, data = training_step(network, batch, sizes.size, "bfloat16")

            def trained(batches: Iterator[Any]) -> float:
                """Seconds for each step; the first is not timed."""
                nonlocal state
                state, _ = step(state, next(batches))
                jax.block_until_ready(state)

                def outputs() -> Iterator[Any]:
                    nonlocal state
                    for each in batches:
                        state, output = step(state, each)
                        yield output

                started = time.perf_counter()
                steps = sum(1 for _ in each_computed(outputs()))
                return (time.perf_counter() - started) / steps

            trained(itertools.repeat(data, 3))
            alone = trained(itertools.repeat(data, count))
            for way, batches in ways.items():
                fed = trained(to_devices(each, mesh) for each in batches(0))
                delivered = (jax.block_until_ready(to_devices(each, mesh)) for each in batches(count))
                next(delivered)  # starts the threads that prepare the next batches
                started = time.perf_counter()
                steps = sum(1 for _ in delivered)
                given = steps * batch / (time.perf_counter() - started)
                rows.append(
                    {
                        "network": network,
                        "way": way,
                        "batch": batch,
                        "size": sizes.size,
                        "cores": cores(),
                        "images_per_second": given,
                        "step_seconds": fed,
                        "step_seconds_without_input": alone,
                        # The part of the step's time beyond a step whose batch is already on the device.
                        "waiting_share": max(0.0, 1 - alone / fed),
                    }
                )
        return rows

    rows, _, _ = halved(measure, sizes.batch)
    yield from rows
