"""docs/accelerators.md, made from the rows in results/accelerator/."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.on_accelerator import correct as correct
from benchmarks.on_accelerator import fast as fast
from benchmarks.on_accelerator import results as results
from benchmarks.on_accelerator.rows import Row, latest

_NOT_MEASURED = "not measured"

_HEADER = """\
# On GPUs and TPUs

Written by `python benchmarks/accelerator.py --page` from the lines in `results/accelerator/`, which hold every figure.
{state}

## How to run it

On a machine with a GPU or a TPU, from a clone of this repository with `".[train,cuda]"` or `".[train,tpu]"` installed:

```sh
python benchmarks/accelerator.py --data_dir DIR
```

It takes 400 seconds (`--budget`), and what it finds is in `runs/accelerator/`, a line of JSON for each figure, on the
disk as soon as it is known: stopped at any moment, it has lost the task that was under way. The same command adds what
is missing of the recipes' runs. `--part correct`, `fast` or `results` takes one part; the last alone needs data and has
use for hours. Where torch with CUDA is installed as well, torchvision is measured beside. `--small` shows on a CPU that
the script works, within minutes.

A machine that reaches nothing outside needs the sources, what `pip` would fetch, and the data. On one that does:

```sh
python benchmarks/accelerator_pack.py --data_dir DIR --output packed
```

makes folders of at most 60 MB. Each has the wheels (Python 3.12, Linux, x86-64) that a machine with jax, flax, optax,
orbax-checkpoint, einops, numpy, pillow, matplotlib and rich lacks; `packed/imagenette` and `packed/fashion_mnist` have
one dataset besides, and `packed/wheels` has none, for the first two parts. There:

```sh
python -m pip install --no-index --no-deps --find-links packed/imagenette/wheels \\
    -r packed/imagenette/requirements.txt
python benchmarks/accelerator.py --data_dir packed/imagenette/data
```

The pictures of Imagenette are packed at 128 px, as JPEGs of quality {quality}; a run on them has a name of its own,
ending in `_packed`, and says so in RESULTS.md. With both datasets, put the folders in `data/` together.

Home again, the lines belong into `results/accelerator/`, and a run into `results/`:

```sh
cp runs/accelerator/*.jsonl results/accelerator/
python benchmarks/accelerator.py --page
python -m benchmarks.records.results --add runs/accelerator/runs/imagenette_5ep/seed1 --recipe imagenette_5ep
```
"""

_CORRECT = """\
## Is it right

One training step from the same weights on the same images, on the device and on the CPU of the same machine, which
computes in float32 with the highest precision. Differences are relative, and in brackets what they may be: of the
evaluation's logits, of the statistics after the step (the largest of any array), of the gradients (all arrays together,
and the largest of any). Why the bounds are what they are is said in `benchmarks/on_accelerator/correct.py`.
"""

_RUNS = """\
A run's first steps, and what becomes of a stop:
"""

_FAST = """\
## How fast it is

224 px, bfloat16, one device. Contenders take turns, each in a process of its own; "ours is" how many times as fast ours
is, a median of rounds. Ours trains on uint8 images, normalisation and the check for finite numbers included; the others
get normalised floats. In inference ours has its norms folded. torchvision is compiled, channels last, under autocast.
The share of the peak counts the network's multiply-adds (three times in training) against what the device's maker
gives for dense bfloat16. "First" is the first step or batch, compilation included. Memory is the most that the
contender's process held.
"""

_KERNELS = f"""\
Where a training step's time goes, ours: the ten costliest operations of {fast.TRACED_STEPS} steps under `jax.profiler`.
"""

_INPUT = """\
What the input path gives to one device, by itself and under ResNet-50's training step; "waits" is the share of the
step's time that it takes longer than on a batch that lies on the device. Streamed images are JPEGs decoded by all
cores.
"""

_RESULTS = """\
## What recipes reach there

Accuracy is top-1 on every image of the validation split, after the last epoch so far. Finished runs are in
[RESULTS.md](../RESULTS.md) as well.
"""


def page(rows: Sequence[Row]) -> str:
    """The text of docs/accelerators.md.

    Args:
        rows: as `read_all` gives them.
    """
    from benchmarks.accelerator_pack import QUALITY

    state = "**It has not been run on any yet**: what is to be measured is listed, and its figures are missing."
    if machines := latest(rows, "machine"):
        state = "Measured on " + ", ".join(_machine(row) for row in machines.values()) + "."
    parts = [
        _HEADER.format(state=state, quality=QUALITY),
        _CORRECT,
        _networks(rows),
        _RUNS,
        _of_runs(rows),
        _FAST,
        _contenders(rows),
        _KERNELS,
        _kernels(rows),
        _INPUT,
        _input(rows),
        _RESULTS,
        _recipes(rows),
    ]
    return "\n".join(parts)


def _machine(row: Row) -> str:
    return f"{row['device']} ({row['devices']} of them, jax {row['jax']}, {row['processor']}, {row['cores']} cores)"


def _table(header: Iterable[str], lines: Iterable[Iterable[str]], left: int = 2) -> str:
    names = list(header)
    rule = "|---" * left + "|---:" * (len(names) - left) + "|"
    return "\n".join([_line(names), rule, *map(_line, lines), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _each(
    found: dict[tuple[Any, ...], Row],
    wanted: Sequence[tuple[str, ...]],
    columns: int,
    cells: Callable[[Row], list[str]],
) -> list[list[str]]:
    """Lines of a table: for each thing that is wanted one a device, or one that says that there is none."""
    lines = []
    for key in wanted:
        rows = {device: row for (device, *rest), row in found.items() if tuple(rest) == key}
        for device, row in sorted(rows.items()):
            reason = row.get("error") or row.get("skipped")
            values = [_failed(reason), *[""] * (columns - 1)] if reason else cells(row)
            lines.append([*key, device, *values])
        if not rows:
            lines.append([*key, "", _NOT_MEASURED, *[""] * (columns - 1)])
    return lines


def _failed(reason: str) -> str:
    return f"no figure: {reason[:120]}"


def _small(value: float) -> str:
    return f"{value:.1e}" if value else "0"


_WHAT = ("logits", "statistics", "gradients", "each gradient")


def _networks(rows: Sequence[Row]) -> str:
    found = latest(rows, "correct", "precision")
    # What failed failed for all precisions.
    failed = {key[:2]: row for key, row in found.items() if row.get("error") or row.get("skipped")}
    wanted = [(name, precision) for name in correct.NETWORKS for precision in correct.PRECISIONS]
    for (device, task), row in failed.items():
        for name, precision in wanted:
            if name == task:
                found.setdefault((device, name, precision), row)

    def cells(row: Row) -> list[str]:
        values = []
        for what in _WHAT:
            found, bound = row["worst"][what], row["bound"].get(what)
            text = _small(found) + (f" ({_small(bound)})" if bound else "")
            values.append(text if not bound or found <= bound else f"**{text}**")
        return [*values, "yes" if row["ok"] else "**no**"]

    header = ["network", "precision", "device", *_WHAT, "holds"]
    return _table(header, _each(found, wanted, len(_WHAT) + 1, cells), left=3)


def _of_runs(rows: Sequence[Row]) -> str:
    found = latest(rows, "correct")

    def cells(row: Row) -> list[str]:
        return [_small(row["worst"]), _small(row["bound"]), "yes" if row["ok"] else "**no**"]

    lines = _each(found, [(name,) for name in correct.RUNS], 3, cells)
    lines = [[f"{name}: {correct.RUNS[name]}", *rest] for name, *rest in lines]
    return _table(["run", "device", "found", "bound", "holds"], lines)


def _contenders(rows: Sequence[Row]) -> str:
    found = latest(rows, "fast", "contender", "asked_batch")
    sizes = fast.FULL
    wanted = []
    for network in fast.NETWORKS:
        for contender in ("ours", "plain linen", "torchvision"):
            wanted.append((f"{network} train", contender, sizes.batch))
            wanted += [(f"{network} inference", contender, batch) for batch in sizes.inference]
        wanted.append((f"{network} largest batch", "ours", None))
    wanted.sort(key=lambda key: [f"{network} {work}" for network in fast.NETWORKS for work in fast.WORKS].index(key[0]))
    lines = []
    for task, contender, batch in wanted:
        measured = {
            device: row
            for (device, *rest), row in found.items()
            if rest[0] == task and rest[1] in (contender, None) and (rest[2] in (batch, None) or batch is None)
        }
        for device, row in sorted(measured.items()):
            if reason := row.get("error") or row.get("skipped"):
                lines.append([task, contender, device, str(batch or ""), _failed(reason), *[""] * 4])
                continue
            share, memory = row["share_of_peak"], row["memory_peak_bytes"]
            times = row.get("ours_is_times_as_fast")
            halved = f" ({row['did_not_fit'][0]} did not fit)" if row.get("did_not_fit") else ""
            cells = [f"{row['batch']}{halved}", f"{row['images_per_second']:,.0f}", f"{share:.1%}" if share else ""]
            cells += [f"{memory / 2**30:.1f} GiB" if memory else "", f"{row['first_seconds']:.1f} s"]
            lines.append([task, contender, device, *cells, f"{times:.2f}x" if times else ""])
        if not measured:
            lines.append([task, contender, "", str(batch or ""), _NOT_MEASURED, *[""] * 4])
    header = ["work", "contender", "device", "batch", "images/s", "of the peak", "memory", "first", "ours is"]
    return _table(header, lines, left=3)


def _kernels(rows: Sequence[Row]) -> str:
    found = latest(rows, "fast", "rank")
    ranks = range(1, 11)
    lines = []
    for device in dict.fromkeys(key[0] for key in found if key[1] == "trace"):
        for rank in ranks:
            if row := found.get((device, "trace", rank)):
                cells = [f"{1e3 * row['seconds']:.3f} ms", f"{row['share']:.1%}", f"{row['calls']:.0f}"]
                lines.append([str(rank), device, f"`{row['kernel'][:70]}`", *cells])
        if (failed := found.get((device, "trace", None))) and (device, "trace", 1) not in found:
            lines.append(["", device, _failed(failed.get("error") or failed.get("skipped") or ""), "", "", ""])
    lines = lines or [[str(rank), "", _NOT_MEASURED, "", "", ""] for rank in ranks]
    return _table(["", "device", "operation", "a step", "of all", "calls"], lines, left=3)


def _input(rows: Sequence[Row]) -> str:
    found = latest(rows, "fast", "way")
    failed = {key[0]: row for key, row in found.items() if key[1:] == ("input", None)}
    for device, row in failed.items():
        for way in fast.WAYS:
            found.setdefault((device, "input", way), row)

    def cells(row: Row) -> list[str]:
        steps = [f"{1e3 * row[name]:.1f} ms" for name in ("step_seconds", "step_seconds_without_input")]
        return [f"{row['images_per_second']:,.0f}", *steps, f"{row['waiting_share']:.1%}", str(row["cores"])]

    lines = [line[1:] for line in _each(found, [("input", way) for way in fast.WAYS], 5, cells)]
    return _table(["images", "device", "images/s", "step", "step without", "waits", "cores"], lines)


def _recipes(rows: Sequence[Row]) -> str:
    found = latest(rows, "results")

    def cells(row: Row) -> list[str]:
        if not row["epochs"]:
            return [f"none finished: {row.get('unfinished', '')[:120]}", "", "", row["data"] or ""]
        epochs = str(row["epochs"]) if row["done"] else f"{row['epochs']} of {row['epochs_wanted']}"
        return [f"{row['accuracy']:.2%}", epochs, f"{row['images_per_second']:,.0f}", row["data"] or ""]

    lines = _each(found, [(run.name,) for run in results.RUNS], 4, cells)
    return _table(["run", "device", "accuracy", "epochs", "images/s", "data"], lines)
