"""Measures the seconds from the start of `train.py`'s process to the end of its first step, and their phases.

    python -m benchmarks.speed.startup -- --config configs/rn18_imagenette.py --config.data_dir=DIR

The arguments after `--` are train.py's. Each round starts it twice with its own directory for compiled programs: cold,
while the directory is empty, and then warm, with the programs of the cold start. The images are decoded beforehand. The
measured process runs `train.main` itself and notes the time at a few places; it stops after the first step. The phases,
in order:

- `imports`: from the start of the process until the trainer is imported;
- `config, devices`: until the first split is opened: reads the recipe, starts JAX's backend;
- `data`: until both splits are ready;
- `network`: until the computation of the first state starts: traces the network, compiles its initialisation;
- `loop`: until the first step is called: opens checkpoints and logs, gathers the first batch;
- `first step`: traces, compiles and runs it to its end.

`of it traced`, `lowered` and `compiled` are reported by JAX for each phase; a program that is read from the cache
counts as compiled. Traced is the longest single trace, because the traces of inner functions are parts of it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PHASES = ("imports", "config, devices", "data", "network", "loop", "first step")
_EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "traced",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowered",
    "/jax/core/compile/backend_compile_duration": "compiled",
}


def child(started: float, arguments: list[str]) -> None:
    """Runs `train.main` until its first step is done, prints the phases as JSON and ends the process.

    Args:
        started: `time.monotonic()` just before the process was started.
        arguments: train.py's arguments.
    """
    import jax

    import train
    from flax_resnets.training import build, compilation, config, loop, splits  # noqa: F401  # what train.main imports

    passed = {"imports": time.monotonic()}
    details: list[tuple[float, str, float]] = []

    def on_event(event: str, seconds: float, **_: object) -> None:
        if event in _EVENTS:
            details.append((time.monotonic(), _EVENTS[event], seconds))

    jax.monitoring.register_event_duration_secs_listener(on_event)

    def before(phase, function):
        """The function, wrapped to note the end of a phase when it is first called."""

        def call(*args, **kwargs):
            passed.setdefault(phase, time.monotonic())
            return function(*args, **kwargs)

        return call

    def after(phase, function):
        """The function, wrapped to note the end of a phase each time it returns."""

        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            passed[phase] = time.monotonic()
            return result

        return call

    make_trainer, make_train_step = loop.Trainer, build.make_train_step

    def trainer(*args, **kwargs):
        made = make_trainer(*args, **kwargs)
        return made.with_steps(create_state=after("network", made.steps.create_state))

    def train_step(*args, **kwargs):
        step = make_train_step(*args, **kwargs)

        def first_step(state, batch):
            passed["loop"] = time.monotonic()
            jax.block_until_ready(step(state, batch))
            passed["first step"] = time.monotonic()
            report(started, passed, details)

        return first_step

    splits.source.open_split = before("config, devices", splits.source.open_split)
    splits.cached_images = after("data", splits.cached_images)
    loop.Trainer = trainer
    build.make_train_step = train_step
    sys.exit(train.main(arguments) or "train.py ended before its first step")


def report(started: float, passed: dict[str, float], details: list[tuple[float, str, float]]) -> None:
    """Prints phases as JSON, `{phase: {"seconds", "traced", "lowered", "compiled"}}`, and ends the process."""
    phases, start = {}, started
    for phase in PHASES:
        end = passed[phase]
        within = [(kind, seconds) for when, kind, seconds in details if start < when <= end]
        phases[phase] = {
            "seconds": end - start,
            "traced": max((seconds for kind, seconds in within if kind == "traced"), default=0.0),
            "lowered": sum(seconds for kind, seconds in within if kind == "lowered"),
            "compiled": sum(seconds for kind, seconds in within if kind == "compiled"),
        }
        start = end
    print(json.dumps(phases), flush=True)
    os._exit(0)  # threads of the loop would keep the process alive


def start(caches: Path, arguments: list[str]) -> dict[str, dict[str, float]]:
    """The phases of one start, with `caches` as the package's cache directory."""
    from flax_resnets.cpu import MALLOC  # here, because the imports of the child are timed

    environment = {**os.environ, "FLAX_RESNETS_CACHE": str(caches)}
    environment.setdefault("GLIBC_TUNABLES", MALLOC)  # as train.py restarts itself
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # the package chooses its own directory
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "benchmarks.speed.startup", "--child", str(time.monotonic()), "--", *arguments]
        command += ["--workdir", f"{workdir}/run"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"train.py ended with exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measures and prints; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for lines of JSON")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    parser.add_argument("train", nargs="+", metavar="ARGUMENT", help="arguments of train.py, after --")
    arguments = parser.parse_args()
    if arguments.child is not None:
        child(arguments.child, arguments.train)

    from flax_resnets import cli
    from flax_resnets.cli.bench.figures import spread
    from flax_resnets.cli.table import table
    from flax_resnets.data.cache import cached_images
    from flax_resnets.data.source import open_split
    from flax_resnets.errors import UserError
    from flax_resnets.machine import describe_machine
    from flax_resnets.paths import cache_root
    from flax_resnets.training.recipes import load_config

    try:
        parsed = cli.parse(["train", *arguments.train])
        config = load_config(parsed.config, parsed.overrides)
        for split in ("train", "validation"):
            source = open_split(config, split)
            cached_images(source, config.store_size or config.image_size, config.resize)
    except UserError as error:
        print(f"startup.py: {error}", file=sys.stderr)
        return 2
    starts: dict[str, list[dict[str, dict[str, float]]]] = {"cold": [], "warm": []}
    for number in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for decoded in cache_root().iterdir():
                if decoded.name != "compiled":
                    Path(folder, decoded.name).symlink_to(decoded.resolve())
            for kind, phases in starts.items():
                phases.append(start(Path(folder), arguments.train))
                print(f"round {number + 1}, {kind}: {_total(phases[-1]):.1f} s", file=sys.stderr)

    for kind, each in starts.items():
        total = spread([_total(phases) for phases in each])
        print(f"{kind}: {total.median:.1f} s ({total.low:.1f} to {total.high:.1f}), median of {arguments.rounds}\n")
        median = {
            phase: {what: spread([phases[phase][what] for phases in each]).median for what in each[0][phase]}
            for phase in PHASES
        }
        cells = [[phase, *(f"{value:.2f}" for value in whats.values())] for phase, whats in median.items()]
        print(table(["phase", "seconds", "of it traced", "lowered", "compiled"], cells, left=1), end="\n\n")
        row = {"compile_cache": kind, "seconds": total.median, "quartiles": [total.low, total.high], "phases": median}
        row |= {
            "each_round": [_total(phases) for phases in each],
            "config": Path(parsed.config).stem,
            "machine": describe_machine(),
        }
        print(json.dumps(row), end="\n\n")
        if arguments.json:
            with arguments.json.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return 0


def _total(phases: dict[str, dict[str, float]]) -> float:
    return sum(phase["seconds"] for phase in phases.values())


if __name__ == "__main__":
    sys.exit(main())
