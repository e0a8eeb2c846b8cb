"""Makes docs/accelerators.md from the rows in results/accelerator/."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks.on_accelerator import correct as correct
from benchmarks.on_accelerator import fast as fast
from benchmarks.on_accelerator import results as results
from benchmarks.on_accelerator.rows import Row, latest

_NOT_MEASURED = "not measured"

_HEADER = """\
# On GPUs and TPUs

Written by `python benchmarks/accelerator.py --page` from the lines in `results/accelerator/`, which hold all figures.
{state}

## How to run it

On a machine with a GPU or a TPU, from a clone of this repository with `".[train,cuda]"` or `".[train,tpu]"` installed:

```sh
python benchmarks/accelerator.py --data_dir DIR
```

It takes 400 seconds (`--budget`). Its figures are in `runs/accelerator/`. Each is a line of JSON that is written as
soon as the figure is known, so a stop loses only the task in progress. The same command resumes the recipes' runs.
`--part correct`, `fast` or `results` runs one part. Only the last part needs data, and it can use hours. If torch with
CUDA is installed, torchvision is measured too. `--small` shows within minutes, on a CPU, that the script works.

A machine without a network needs the sources, the packages that `pip` would download, and the data. On a machine with a
network, this command packs them:

```sh
python benchmarks/accelerator_pack.py --data_dir DIR --output packed
```

It makes folders of at most 60 MB. Each has the wheels (Python 3.12, Linux, x86-64) that are missing on a machine with
jax, flax, optax, orbax-checkpoint, einops, numpy, pillow, matplotlib and rich. `packed/imagenette` and
`packed/fashion_mnist` also have one dataset each. `packed/wheels` has none, and is for the first two parts. On the
machine without a network:

```sh
python -m pip install --no-index --no-deps --find-links packed/imagenette/wheels \\
    -r packed/imagenette/requirements.txt
python benchmarks/accelerator.py --data_dir packed/imagenette/data
```

Imagenette is packed as JPEGs of 128 px and quality {quality}. A run on these has a name that ends in `_packed`, and
RESULTS.md says so. To have both datasets, put their `data/` folders together.

Back in this repository, lines belong into `results/accelerator/` and runs into `results/`:

```sh
cp runs/accelerator/*.jsonl results/accelerator/
python benchmarks/accelerator.py --page
python -m benchmarks.records.results --add runs/accelerator/runs/imagenette_5ep/seed1 --recipe imagenette_5ep
```
"""

_CORRECT = """\
## Is it right

The device and the CPU of the same machine take one training step from the same weights on the same images. The CPU
computes in float32 with the highest precision. The differences are relative; their bounds are in brackets. "logits" are
those of the evaluation, "statistics" the running statistics after the step (the largest difference of any array),
"gradients" all gradients together, and "each gradient" the largest difference of any array.
`benchmarks/on_accelerator/correct.py` explains the bounds.
"""

_RUNS = """\
The first steps of a run, and a run that is stopped and resumed:
"""

_FAST = """\
## How fast it is

224 px, bfloat16, one device. The contenders take turns, each in its own process. "ours is" says how many times as fast
this library is: the median over rounds. Its training step takes uint8 images, normalises them, and checks that loss and
gradients are finite; the others get normalised floats. For inference its norms are folded. torchvision's network is
compiled, channels last, with autocast. "of the peak" is the network's multiply-adds (three times in training) relative
to the rate that the device's maker gives for dense bfloat16. "first" is the time of the first step or batch, with
compilation. "memory" is the most that the contender's process used.
"""

_KERNELS = f"""\
The ten operations of our training step that take the most time, in {fast.TRACED_STEPS} steps under `jax.profiler`.
"""

_INPUT = """\
Images per second that the input path gives to one device, alone and with ResNet-50's training step. "waits" is the
share of the step's time that is lost compared with a step whose batch is already on the device. Streamed images are
JPEGs that all cores decode.
"""

_RESULTS = """\
## What recipes reach there

Accuracy is top-1 on all images of the validation split, after the last epoch so far. Finished runs are also in
[RESULTS.md](../RESULTS.md).
"""


def page(rows: Sequence[Row]) -> str:
    """The text of docs/accelerators.md.

    Args:
        rows: the rows, as `read_all` returns them.
    """
    from benchmarks.accelerator_pack import QUALITY

    state = "**No accelerator has been measured yet.** The tables list what will be measured."
    if machines := latest(rows, "machine"):
        state = "Measured on " + ", ".join(_machine(row) for row in machines.values()) + "."
    parts = [
        _HEADER.format(state=state, quality=QUALITY),
        _CORRECT,
        _networks(rows),
        _RUNS,
        _runs(rows),
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
    return f"{row['device']} ({row['devices']} of them, jax {row['jax']}, {row['cpu']}, {row['cores']} cores)"


def _table(header: Iterable[str], lines: Iterable[Iterable[str]], left: int = 2) -> str:
    names = list(header)
    rule = "|---" * left + "|---:" * (len(names) - left) + "|"
    return "\n".join([_line(names), rule, *map(_line, lines), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _rows_for(
    found: dict[tuple[Any, ...], Row],
    wanted: Sequence[tuple[str, ...]],
    columns: int,
    cells: Callable[[Row], list[str]],
) -> list[list[str]]:
    """Rows of a table. Each wanted key has a row for each device, or one row that says that it was not measured."""
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
    # A task that fails has no figures in any precision.
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
    return _table(header, _rows_for(found, wanted, len(_WHAT) + 1, cells), left=3)


def _runs(rows: Sequence[Row]) -> str:
    found = latest(rows, "correct")

    def cells(row: Row) -> list[str]:
        return [_small(row["worst"]), _small(row["bound"]), "yes" if row["ok"] else "**no**"]

    lines = _rows_for(found, [(name,) for name in correct.RUNS], 3, cells)
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

    lines = [line[1:] for line in _rows_for(found, [("input", way) for way in fast.WAYS], 5, cells)]
    return _table(["images", "device", "images/s", "step", "step without", "waits", "cores"], lines)


def _recipes(rows: Sequence[Row]) -> str:
    found = latest(rows, "results")

    def cells(row: Row) -> list[str]:
        if not row["epochs"]:
            return [f"none finished: {row.get('unfinished', '')[:120]}", "", "", row["data"] or ""]
        epochs = str(row["epochs"]) if row["done"] else f"{row['epochs']} of {row['epochs_wanted']}"
        return [f"{row['accuracy']:.2%}", epochs, f"{row['images_per_second']:,.0f}", row["data"] or ""]

    lines = _rows_for(found, [(run.name,) for run in results.RUNS], 4, cells)
    return _table(["run", "device", "accuracy", "epochs", "images/s", "data"], lines)
