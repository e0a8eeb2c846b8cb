"""The callback that traces steps of a run with JAX's profiler, and tells what a step's time is spent on."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from flax_resnets.errors import UserError
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.in_flight import WAIT
from flax_resnets.training.step import StepOutput
from flax_resnets.training.trainer import IMAGES, TRANSFER

START = "train"  # the loop's name for a step, by which XProf finds steps

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run

WARM_UP = 10
"""Steps before the first traced one, counted from the start of the process: the first compiles, and caches fill."""

DIRECTORY = "profile"

# What the table calls the trainer's own entries of a trace.
_ROWS: Mapping[str, str] = {
    IMAGES: "wait for the next images",
    TRANSFER: "hand them to the devices",
    START: "start the step",
    WAIT: "wait for the devices",
}


class Profile(Callback):
    """Traces steps in the middle of an epoch, writes the trace into the workdir, and prints what they were spent on.

    The trace is in `profile/plugins/profile/TIME/` of the workdir, where TensorBoard's profiler (XProf) finds it;
    `perfetto_trace.json.gz` there opens in Perfetto. The run's numbers do not change. It works on a workdir on this
    machine.

    Args:
        steps: how many steps to trace. If an epoch has no more steps than these, one less than it has.

    Raises:
        UserError: `steps` is no whole number from 1 up.

    Example:
        >>> from flax_resnets.training import load_config, run
        >>> run(load_config("quickstart"), "runs/profiled", callbacks=[Profile(20)])  # doctest: +SKIP
    """

    takes_time = True

    def __init__(self, steps: int):
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise UserError(f"steps={str(steps)[:100]}: must be a whole number from 1 up")
        self._asked = steps
        self._seen = 0
        self._end: int | None = None  # the last step of the trace, while it is under way
        self._done = False

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """Starts the trace, or ends it and prints the table."""
        self._seen += 1
        in_epoch = run.trainer.steps_per_epoch
        steps = min(self._asked, max(in_epoch - 1, 1))
        position = run.trainer.timeline.place(step)[1]  # 0 at an epoch's end, where evaluation comes next
        if self._done:
            return
        if self._end is None:
            if self._seen >= min(WARM_UP, in_epoch - steps) and 0 < position <= in_epoch - steps:
                self._end = step + steps
                _start(run.workdir / DIRECTORY)
                self._began = time.perf_counter()
            return
        if step < self._end:
            return
        seconds = time.perf_counter() - self._began
        jax.profiler.stop_trace()
        self._end, self._done = None, True
        if steps < self._asked:
            run.trainer.display.say(f"profile: {steps} steps instead of {self._asked}; an epoch has {in_epoch}")
        for line in _table(run.workdir / DIRECTORY, steps, seconds):
            run.trainer.display.say(line)

    def on_run_end(self, run: "Run") -> None:
        """Says if there was nothing to trace."""
        if not self._done:
            in_epoch = run.trainer.steps_per_epoch
            why = "an epoch has one step" if in_epoch == 1 else "too few steps were left of the run"
            run.trainer.display.say(f"profile: nothing is traced, because {why}")

    def close(self) -> None:
        """Ends the trace if the run is stopped within it."""
        if self._end is not None:
            self._end = None
            jax.profiler.stop_trace()


def _start(directory: Path) -> None:
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of a Python function would slow down what is measured
    jax.profiler.start_trace(directory, create_perfetto_trace=True, profiler_options=options)


def _table(directory: Path, steps: int, seconds: float) -> list[str]:
    """What the traced steps were spent on, in lines of text."""
    trace = max(directory.glob("plugins/profile/*/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    profile = jax.profiler.ProfileData.from_file(str(trace))
    host = _host_seconds(profile)
    spent = {row: host.get(name, 0.0) for name, row in _ROWS.items()}
    spent["callbacks and the rest"] = seconds - sum(spent.values())
    operations = operations_of(profile)
    lines = [f"profile of {steps} steps, {1000 * seconds / steps:.2f} ms each, in {directory}:"]
    lines += [_line(row, each, seconds, steps) for row, each in spent.items()]
    lines.append(_line("devices compute", operations.busy, seconds, steps))
    for name, each, _ in operations.costliest[:5]:
        lines.append(_line(f"  {name[:40]}", each, seconds, steps))
    return lines


def _line(name: str, seconds: float, whole: float, steps: int) -> str:
    return f"  {name:<44} {1000 * seconds / steps:>10.2f} ms {seconds / whole:>7.1%}"


def _host_seconds(profile: Any) -> dict[str, float]:
    """Seconds of the trainer's own entries in a trace, by name."""
    spent: dict[str, float] = {}
    for plane in profile.planes:
        if plane.name != "/host:CPU":
            continue
        for event in (event for line in plane.lines for event in line.events):
            if event.name in _ROWS:
                spent[event.name] = spent.get(event.name, 0.0) + event.duration_ns / 1e9
    return spent


class Operations(NamedTuple):
    """What the devices of a trace computed.

    Attributes:
        costliest: name, seconds and number of calls of each operation, the longest first.
        seconds: of all of them. Those that run at the same time count each.
        busy: seconds in which any of them runs, as a mean over the devices.
    """

    costliest: list[tuple[str, float, int]]
    seconds: float
    busy: float


def operations_of(profile: Any) -> Operations:
    """The operations in a trace of JAX's profiler.

    Args:
        profile: a `jax.profiler.ProfileData`.
    """
    on_devices = [plane for plane in profile.planes if plane.name.startswith("/device:") and any(plane.lines)]
    planes = on_devices or [plane for plane in profile.planes if plane.name == "/host:CPU"]
    spent: dict[str, tuple[float, int]] = {}
    busy = 0.0
    for plane in planes:
        lines = [(line.name, line) for line in plane.lines]
        # A GPU's kernels are in its streams. A TPU's operations are in a line of their own, beside lines of sums. A
        # CPU's operations are in its threads, beside events of the threads themselves.
        chosen = [line for name, line in lines if name.startswith("Stream")]
        chosen = chosen or [line for name, line in lines if name == "XLA Ops"]
        chosen = chosen or [line for name, line in lines if name.startswith("tf_XLA")]
        times = []
        for line in chosen or [line for _, line in lines]:
            for event in line.events:
                name = event.name
                if not on_devices and ("::" in name or name.startswith("end: ") or "ThunkExecutor" in name):
                    continue
                seconds, calls = spent.get(name, (0.0, 0))
                spent[name] = seconds + event.duration_ns / 1e9, calls + 1
                times.append((event.start_ns, event.start_ns + event.duration_ns))
        busy += covered(times) / 1e9
    costliest = sorted(((name, *figures) for name, figures in spent.items()), key=lambda row: -row[1])
    return Operations(costliest, sum(row[1] for row in costliest), busy / max(len(planes), 1))


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """The length of the union of intervals.

    Example:
        >>> covered([(0, 2), (5, 6), (1, 3)])
        4.0
    """
    whole, end = 0.0, float("-inf")
    for begin, until in sorted(intervals):
        whole += max(0.0, until - max(begin, end))
        end = max(end, until)
    return whole
