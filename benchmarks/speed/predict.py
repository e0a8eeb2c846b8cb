"""Times `flax-resnets predict` on a folder of JPEGs against timm on torch with the same weights, whole processes.

    python -m benchmarks.speed.predict --torch /environment/with/torch/bin/python --data-dir DIR
    python -m benchmarks.speed.predict --torch ... --data-dir DIR --case rn50 --rounds 3

DIR holds Imagenette as TFDS prepared it; its JPEGs are written into a folder as they are. A classifier with initial
weights and 1,000 classes is saved in timm's form. Both contenders read that folder, classify all pictures and write a
CSV of the three most probable classes. The processes take turns; a figure is the time from a process's start to its
end, so that imports, reading the weights and starting workers count. Ours has its compiled programs from a start
before. timm's runs channels last under `inference_mode`, with the number of loader processes that `--workers` names.
The line says of how many pictures the first class differs, and how far it was above the second.

`--case first` times one picture alone: `cold` with an empty directory for compiled programs, and `warm`.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from flax_resnets import Classifier, create_model
from flax_resnets.data.config import DataConfig
from flax_resnets.data.source import open_split
from flax_resnets.inference.preprocess import Settings
from flax_resnets.machine import describe_machine

ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """What is classified by which network.

    Attributes:
        model: the network's name.
        size: its images' side in pixels.
        dataset: whose pictures are written, and from which split.
        split: `train` or `validation`.
        pictures: how many.
    """

    model: str
    size: int
    dataset: str
    split: str
    pictures: int


CASES = {
    "rn18": Case("resnet18", 160, "imagenette/160px-v2", "validation", 2000),
    "rn50": Case("resnet50", 224, "imagenette/320px-v2", "train", 400),
    "first": Case("resnet18", 160, "imagenette/160px-v2", "validation", 1),
}


def write_pictures(case: Case, data_dir: str, folder: Path) -> None:
    """Writes the set's JPEG files, unchanged."""
    source = open_split(DataConfig(dataset=case.dataset, data_dir=data_dir), case.split)
    folder.mkdir()
    for index in range(case.pictures):
        (folder / f"{index:05}.jpg").write_bytes(source.read(index)[0])


def save_classifier(case: Case, folder: Path) -> None:
    """Saves a classifier with initial weights."""
    model = create_model(case.model)
    variables = jax.jit(model.init)(jax.random.key(0), jax.numpy.zeros((1, case.size, case.size, 3)))
    colour = {"channels": 3, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    settings = Settings(model=case.model, dataset="", image_size=case.size, **colour)
    Classifier(model, variables, settings, [f"class {number}" for number in range(1000)]).save(folder)


def seconds(command: list[str], environment: dict[str, str]) -> float:
    """Runs a process; returns the seconds from its start to its end."""
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    passed = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command[:4]}: {done.stderr[-2000:]}")
    return passed


def first_classes(path: Path) -> dict[str, tuple[str, float]]:
    """For each picture the first class, and by how much its probability is above the second's."""
    rows: dict[str, list[tuple[str, float]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            rows.setdefault(Path(row["image"]).name, []).append((row["index"], float(row["probability"])))
    return {name: (ranked[0][0], ranked[0][1] - ranked[1][1]) for name, ranked in rows.items()}


def main() -> None:
    """Runs the comparison and prints its line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="PYTHON", help="of an environment with torch, torchvision and timm")
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="directory of TFDS's Imagenette")
    parser.add_argument("--case", choices=CASES, default="rn18")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2], help="timm's loader processes, each tried")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    with tempfile.TemporaryDirectory() as scratch:
        pictures, saved = Path(scratch, "pictures"), Path(scratch, "saved")
        write_pictures(case, arguments.data_dir, pictures)
        save_classifier(case, saved)
        environment = {**os.environ, "FLAX_RESNETS_CACHE": f"{scratch}/cache"}

        def ours(where: str) -> float:
            command = [sys.executable, "-m", "flax_resnets", "predict", str(saved), str(pictures), "--csv"]
            given = {**environment, "FLAX_RESNETS_CACHE": f"{scratch}/{where}"}
            return seconds([*command, f"--output={scratch}/ours.csv", "--force"], given)

        def timm(workers: int) -> float:
            script = [arguments.torch, "-m", "benchmarks.speed.predict_timm", str(saved), str(pictures)]
            return seconds([*script, f"{scratch}/timm.csv", str(workers)], environment)

        if arguments.case == "first":
            cold = [ours(f"cold{number}") for number in range(arguments.rounds)]
            contenders = {"ours, warm": lambda: ours("cold0")}
        else:
            cold = [ours("cache")]
            contenders = {"ours, warm": lambda: ours("cache")}
        if arguments.torch:
            contenders |= {f"timm, {n} workers": lambda n=n: timm(n) for n in arguments.workers}
        for each in contenders.values():
            each()  # reads files into the page cache
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(arguments.rounds):
            names = list(contenders)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                times[name].append(contenders[name]())
                print(f"round {number + 1}, {name}: {times[name][-1]:.2f} s", file=sys.stderr)
        figures = {"case": arguments.case, **case._asdict(), "cold_seconds": _spread(cold)}
        figures |= {name: _spread(values) for name, values in times.items()}
        if arguments.torch:
            mine, theirs = first_classes(Path(scratch, "ours.csv")), first_classes(Path(scratch, "timm.csv"))
            assert mine.keys() == theirs.keys()
            assert len(mine) == case.pictures
            other = [name for name in mine if mine[name][0] != theirs[name][0]]
            figures["other_class"] = {"pictures": len(other), "margin": max((mine[n][1] for n in other), default=0.0)}
            best = min(
                (name for name in times if name != "ours, warm"), key=lambda name: statistics.median(times[name])
            )
            ratios = np.array(times[best]) / np.array(times["ours, warm"])
            figures["faster_than"] = {best: _spread(list(ratios))}
        print(json.dumps({**figures, "machine": describe_machine()}))


def _spread(values: list[float]) -> dict[str, float]:
    lower, middle, upper = np.percentile(values, [25, 50, 75])
    return {"median": round(middle, 3), "first_quartile": round(lower, 3), "third_quartile": round(upper, 3)}


if __name__ == "__main__":
    main()
