"""Times `Classifier.evaluate` against the trainer's own evaluation of the same weights on the same images, by turns.

    python -m benchmarks.speed.evaluate runs/rn18_imagenette
    python -m benchmarks.speed.evaluate runs/rn18_imagenette --data-dir DIR --rounds 5

Both run in this process, on the run's validation split, with decoded images. Each has an untimed turn first. What
`Classifier.evaluate` does beside computing logits counts: it opens the split, looks for the cache, and traces its step.
The accuracies of both must be equal.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from flax_resnets import load_classifier
from flax_resnets.cpu import start_with_huge_pages
from flax_resnets.machine import describe_machine
from flax_resnets.training.compilation import keep_compiled_programs
from flax_resnets.training.display import Display
from flax_resnets.training.placement import own_rows
from flax_resnets.training.recipes import load_config
from flax_resnets.training.splits import load_split
from flax_resnets.training.step import evaluate
from flax_resnets.training.trainer import Trainer


def main() -> None:
    """Runs the comparison and prints its line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run's workdir")
    parser.add_argument("--data-dir", metavar="DIR", help="of the run's dataset, if it is elsewhere now")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start_with_huge_pages()  # as train.py does by itself
    keep_compiled_programs()
    classifier = load_classifier(arguments.run)
    settings = classifier.settings
    config = load_config(str(arguments.run / "config.json"))
    config = dataclasses.replace(config, data_dir=arguments.data_dir or config.data_dir)
    config = dataclasses.replace(config, mean=settings.mean, std=settings.std)
    display = Display(silent=True)
    (train, classes), (valid, _) = (load_split(config, split, display) for split in ("train", "validation"))
    trainer = Trainer(config, train, valid, classes, display)
    size = config.eval_batch_size or config.batch_size
    state = SimpleNamespace(**classifier.variables)

    def trainers() -> float:
        batches = valid.eval_batches(size, own_rows(trainer.mesh, size))
        return evaluate(trainer.steps.eval_step, state, batches, trainer.mesh).accuracy

    contenders = {
        "trainer": trainers,
        "classifier": lambda: classifier.evaluate(data_dir=arguments.data_dir).accuracy,
    }
    accuracies = {name: each() for name, each in contenders.items()}
    assert len({*accuracies.values()}) == 1, accuracies
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name in (list(contenders), list(contenders)[::-1])[number % 2]:
            started = time.perf_counter()
            contenders[name]()
            times[name].append(time.perf_counter() - started)
            print(f"round {number + 1}, {name}: {times[name][-1]:.2f} s", file=sys.stderr)
    lower, middle, upper = np.percentile(np.array(times["classifier"]) / np.array(times["trainer"]), [25, 50, 75])
    figures = {
        "images": len(valid),
        "accuracy": accuracies["trainer"],
        **{f"{name}_seconds": round(float(np.median(values)), 2) for name, values in times.items()},
        "classifier_of_trainer": {"median": middle, "first_quartile": lower, "third_quartile": upper},
        "machine": describe_machine(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
