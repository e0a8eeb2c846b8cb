"""Images a second and core that reach the step, from the second epoch on, against torch's DataLoader on the same JPEGs.

    python -m benchmarks.speed.input_pipeline --data_dir DIR --torch /environment/with/torch/bin/python

Contenders take turns, as in `python -m flax_resnets bench`; each is confined to the cores it is divided by (on Linux).

- `ours, to the step`: what the training loop does between steps: gather the step's images out of the decoded cache, put
  them on the device. Cropping, flipping and normalising are part of our step, so this is all that is left to wait for.
- `ours, cropped`: that, and random-resized crop, flip and normalisation, compiled, on the same core. This is the same
  work as torch's, and the figure to compare where the step runs on the host's cores too.
- `ours, streamed`: `images=streamed`, which decodes each time, onto the devices; a turn is a run to it, whose threads
  start and end with it. `decoded alone`: the same decoding and resizing, one image after the other, for nobody.
- `torch`: a DataLoader with 0 to as many workers as there are cores, which decodes with torchvision or with PIL, then
  torchvision.transforms.v2 on uint8: random-resized crop, flip; last to float and normalised. A turn is an epoch to
  it: workers live on from one to the next, and none has batches ready from before.

Decoded once: ours by its cache, before the first epoch, where it is not streamed. The JPEGs are taken out of the
dataset into a temporary folder, and read once before anything is timed, so both sides read from memory that the system
keeps of files.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from flax_resnets.cli.bench.contenders import foreign_environment
from flax_resnets.cli.bench.figures import ratios, spread
from flax_resnets.cli.bench.interleave import Contender, Process, interleave
from flax_resnets.cli.bench.machine import cores, describe_machine
from flax_resnets.cli.table import table
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

_HERE = Path(__file__).parent


def extract(dataset: str, data_dir: str | None, images: int | None, folder: Path) -> None:
    """Writes a training split as `folder/class/number.jpg`, which is what torchvision's ImageFolder reads."""
    source = open_source(dataset, "train", data_dir)
    for i in range(min(images or len(source), len(source))):
        path = folder / f"{source.label(i):04}" / f"{i:06}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.encoded(i))


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", help="TFDS's; its default if left out")
    parser.add_argument("--dataset", default="imagenette/160px-v2", help="of JPEGs")
    parser.add_argument("--images", type=int, help="the first N alone")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=128, help="of the crop's side, in pixels")
    parser.add_argument("--store_size", type=int, default=160, help="of the cached images' side, in pixels")
    parser.add_argument("--torch", type=Path, help="python of an environment with torch and torchvision")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--turn", type=float, default=6.0, help="seconds")
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
        processes = [Process([contender], paths=[str(ROOT)]) for contender in ours]
        if arguments.torch:
            extract(arguments.dataset, arguments.data_dir, arguments.images, Path(folder))
            for decoder in ("torchvision", "PIL"):
                for workers in range(cores() + 1):
                    options = {**common, "folder": folder, "decoder": decoder, "workers": workers}
                    options["use_cores"] = max(1, workers)
                    contender = Contender(f"torch, {decoder}, {workers} workers", _HERE / "input_torch.py", options)
                    environment = foreign_environment(arguments.torch)
                    processes.append(Process([contender], arguments.torch, environment=environment))
        result = interleave(
            processes, arguments.rounds, turn=arguments.turn, pause=1.0, say=lambda text: print(text, file=sys.stderr)
        )

    # Core seconds for an image, round by round: what ratios are taken of.
    each = {
        name: [second * result.facts[name]["cores"] / arguments.batch for second in seconds]
        for name, seconds in result.seconds.items()
    }
    peers = [name for name in each if name.startswith("torch")]
    best = min(peers, key=lambda name: spread(each[name]).median, default=None)
    cells, lines = [], []
    for name, values in each.items():
        median, low, high = (1 / value for value in spread(values))
        times = ratios({name: values, best: each[best]}, name)[best] if best and name not in peers else None
        versus = f"{times.median:.2f}x ({times.low:.2f} to {times.high:.2f})" if times else "best" * (name == best)
        used = result.facts[name]["cores"]
        cells.append([name, str(used), f"{median:,.0f}", f"{high:,.0f} to {low:,.0f}", versus])
        row = {"contender": name, "images_per_second_and_core": median, "quartiles": [high, low]}
        if times:
            row |= {"against": best, "times": times.median, "times_quartiles": [times.low, times.high]}
        asked = {name: value for name, value in vars(arguments).items() if name not in ("data_dir", "torch", "json")}
        lines.append(json.dumps(row | result.facts[name] | asked | {"machine": describe_machine()}))
    print(table(["", "cores", "images/s/core", "spread", "against torch's best"], cells, left=1))
    for name, reason in result.left_out.items():
        print(f"left out: {name}: {reason}")
    print("", *lines, sep="\n")
    if arguments.json:
        with arguments.json.open("a") as file:
            file.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
