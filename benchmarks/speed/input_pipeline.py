"""Measures images per second and core after the first epoch, of this library and of torch's DataLoader.

    python -m benchmarks.speed.input_pipeline --data_dir DIR --torch /environment/with/torch/bin/python

Both read the same JPEGs. Contenders take turns, as in `python -m flax_resnets bench`. Each may use only the cores by
which its speed is divided (on Linux).

- `ours, to the step`: the work of the training loop between steps: gather the step's images from the cache of decoded
  images, and put them on the device. Cropping, flipping and normalising are part of this library's step, so the step
  waits for nothing else.
- `ours, cropped`: the same, and random-resized crop, flip and normalisation, compiled, on the same core. This is the
  work that torch does, and the figure to compare if the step runs on the host's cores too.
- `ours, streamed`: `images=streamed`, which decodes each image each time it is used, up to the devices. Each turn is a
  run of its own, whose threads start and end with it. `decoded alone`: the same decoding and resizing, one image after
  the other, without making batches.
- `torch`: a DataLoader with 0 workers up to as many as there are cores. It decodes with torchvision or with PIL, then
  applies torchvision.transforms.v2: random-resized crop and flip on uint8, then conversion to float and normalisation.
  Each turn is an epoch: workers stay alive from turn to turn, but have no batches ready at its beginning.
- `torch, decoded`: the same DataLoader and transforms, without workers, on images that lie decoded in memory: the same
  work as `ours, cropped`.

This library's cache is decoded once, before the first epoch (not in `streamed`). The JPEGs are copied from the dataset
into a temporary folder and read once before anything is timed, so both sides read from the system's file cache.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from flax_resnets.cli.bench.contenders import foreign_environment
from flax_resnets.cli.bench.figures import ratios, spread
from flax_resnets.cli.bench.interleave import Contender, Process, interleave
from flax_resnets.cli.table import table
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from flax_resnets.machine import cores, describe_machine

ROOT = Path(__file__).resolve().parents[2]

_HERE = Path(__file__).parent

_DECODED = "torch, decoded"


def extract(dataset: str, data_dir: str | None, images: int | None, folder: Path) -> None:
    """Writes a training split as `folder/class/number.jpg`, the layout of torchvision's ImageFolder."""
    source = open_source(dataset, "train", data_dir)
    for i in range(min(images or len(source), len(source))):
        path = folder / f"{source.label(i):04}" / f"{i:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.encoded(i))


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="TFDS's directory; by default TFDS's own default")
    parser.add_argument("--dataset", default="imagenette/160px-v2", help="a dataset of JPEGs")
    parser.add_argument("--images", type=int, help="only the first N")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="side of the crop, in pixels")
    parser.add_argument("--store_size", type=int, default=160, help="side of the cached images, in pixels")
    parser.add_argument("--torch", type=Path, help="python of an environment with torch and torchvision")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only these contenders; may be given repeatedly"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=6.0, help="seconds of a turn")
    parser.add_argument("--json", type=Path, help="file for lines of JSON")
    arguments = parser.parse_args()

    try:
        # Decoded once, before the contenders take their turns.
        cached_images(open_source(arguments.dataset, "train", arguments.data_dir), arguments.store_size)
    except UserError as error:
        print(f"input_pipeline.py: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        common = {"batch": arguments.batch, "size": arguments.size}
        data = {name: getattr(arguments, name) for name in ("dataset", "data_dir", "store_size", "images")}
        ours = [
            Contender(name, _HERE / "input_ours.py", {**common, **data, "way": way, "use_cores": use})
            for name, way, use in (
                ("ours, to the step", "cached", 1),
                ("ours, cropped", "cropped", 1),
                (f"ours, cropped, {cores()} cores", "cropped", cores()),
                ("ours, streamed", "streamed", 1),
                (f"ours, streamed, {cores()} cores", "streamed", cores()),
                ("decoded alone", "decoded", 1),
            )
            if use == 1 or not name.endswith(" 1 cores")
        ]
        theirs = []
        if arguments.torch:
            extract(arguments.dataset, arguments.data_dir, arguments.images, Path(folder))
            ways = [(decoder, workers) for decoder in ("torchvision", "PIL") for workers in range(cores() + 1)]
            for decoder, workers in [*ways, ("decoded", 0)]:
                name = _DECODED if decoder == "decoded" else f"torch, {decoder}, {workers} workers"
                options = {**common, "folder": folder, "decoder": decoder, "workers": workers}
                options["use_cores"] = max(1, workers)
                theirs.append(Contender(name, _HERE / "input_torch.py", options))
        names = [contender.name for contender in (*ours, *theirs)]
        if unknown := set(arguments.only or ()) - set(names):
            known = "; ".join(names)
            print(f"input_pipeline.py: --only {min(unknown)!r}: must be one of: {known}", file=sys.stderr)
            return 2
        processes = [Process([contender], paths=[str(ROOT)]) for contender in ours]
        processes += [
            Process([contender], arguments.torch, environment=foreign_environment(arguments.torch))
            for contender in theirs
        ]
        if arguments.only:
            processes = [process for process in processes if process.contenders[0].name in arguments.only]
        result = interleave(
            processes, arguments.rounds, turn=arguments.turn, pause=1.0, say=lambda text: print(text, file=sys.stderr)
        )

    # Core seconds for an image, for each round: ratios are computed from these.
    each = {
        name: [second * result.facts[name]["cores"] / arguments.batch for second in seconds]
        for name, seconds in result.seconds.items()
    }
    peers = [name for name in each if name.startswith("torch")]
    best = min(set(peers) - {_DECODED}, key=lambda name: spread(each[name]).median, default=None)
    against = {"against torch's best": best, "against torch, decoded": _DECODED if _DECODED in each else None}
    cells, lines = [], []
    for name, values in each.items():
        median, low, high = (1 / value for value in spread(values))
        used = result.facts[name]["cores"]
        cell = [name, str(used), f"{median:,.0f}", f"{high:,.0f} to {low:,.0f}"]
        row = {"contender": name, "images_per_second_and_core": median, "quartiles": [high, low], "against": {}}
        for peer in against.values():
            times = ratios({name: values, peer: each[peer]}, name)[peer] if peer and name not in peers else None
            cell.append(f"{times.median:.2f}x ({times.low:.2f} to {times.high:.2f})" if times else "")
            if times:
                row["against"][peer] = {"times": times.median, "quartiles": [times.low, times.high]}
        cells.append(cell)
        asked = {name: value for name, value in vars(arguments).items() if name not in ("data_dir", "torch", "json")}
        lines.append(json.dumps(row | result.facts[name] | asked | {"machine": describe_machine()}))
    print(table(["", "cores", "images/s/core", "spread", *against], cells, left=1))
    if best:
        print(f"torch's best: {best}")
    for name, reason in result.left_out.items():
        print(f"left out: {name}: {reason}")
    print("", *lines, sep="\n")
    if arguments.json:
        with arguments.json.open("a") as file:
            file.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
