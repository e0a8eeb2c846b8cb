"""Records the statistics of each layer's activations while a run trains.

It is a callback and no field of the configuration: it only reads the run's state, so the run computes the same bits
with it and without it, and a run that does not ask for it pays nothing.
"""

import contextlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from flax_resnets import storage
from flax_resnets.augment import for_evaluation
from flax_resnets.errors import UserError
from flax_resnets.models.activations import LayerStatistics, layer_shapes, layer_statistics
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.compilation import quick_to_compile
from flax_resnets.training.in_flight import AHEAD
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.processes import is_first
from flax_resnets.training.step import StepOutput

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run

FILE = "activations.jsonl"
"""Name of the file in the workdir."""


class ActivationRow(NamedTuple):
    """The statistics of all layers at one step of a run.

    Attributes:
        step: the number of steps taken.
        layers: the statistics of each layer's output, in the order of the layers.
    """

    step: int
    layers: dict[str, LayerStatistics]


class RecordActivations(Callback):
    """Records mean, standard deviation and share near zero of each layer's output: `activations.jsonl` in the workdir.

    The layers are those that `method="layers"` gives. They get the first validation images, prepared as in evaluation,
    and norms use their running statistics. A run that resumes goes on with the rows that it has.

    Args:
        every: number of steps between two rows; 0 for a row at the run's beginning and one at the end of each epoch.
            For a row the run waits until its devices have finished the steps that they were given.
        images: how many validation images the network gets.

    Attributes:
        rows: the rows so far.

    Example:
        >>> from flax_resnets.training import load_config, run
        >>> run(load_config("quickstart"), "runs/quickstart", [RecordActivations(every=10)])  # doctest: +SKIP
        >>> draw_activations(read_activations("runs/quickstart/activations.jsonl"))  # doctest: +SKIP
    """

    def __init__(self, every: int = 0, images: int = 128):
        for name, value, least in (("every", every, 0), ("images", images, 1)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise UserError(f"{name}={str(value)[:100]}: must be a whole number from {least} up")
        self.rows: list[ActivationRow] = []
        self._every, self._images = every, images
        self._record: Callable[[Run], None] = lambda run: None
        self._path: Path | None = None

    def on_run_begin(self, run: "Run") -> None:
        """Reads the validation images and the rows of a run that resumes; records a new run's first row."""
        config, trainer = run.config, run.trainer
        with contextlib.closing(trainer.valid.read(np.arange(min(self._images, len(trainer.valid))))) as batches:
            stored = np.concatenate([batch.images for batch in batches])

        def figures(params: Any, statistics: Any, stored: jax.Array) -> dict[str, jax.Array]:
            images = for_evaluation(stored, config, config.image_size)
            return layer_statistics(trainer.model, {"params": params, "batch_stats": statistics}, images)

        compiled = jax.jit(figures, compiler_options=quick_to_compile(trainer.mesh))
        variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
        shape = (1, config.image_size, config.image_size, trainer.valid.channels)
        names = list(layer_shapes(trainer.model, variables, shape))

        def record(run: "Run") -> None:
            found = jax.device_get(compiled(run.state.params, run.state.batch_stats, stored))
            layers = {name: LayerStatistics(*map(float, found[name])) for name in names}
            self.rows.append(ActivationRow(int(run.state.step), layers))

        self._record = record
        step = int(run.state.step)
        self.rows = [row for row in read_activations(run.workdir / FILE) if row.step <= step] if step else []
        self._path = run.workdir / FILE if is_first() else None  # only now: a damaged file must not be replaced
        if not self.rows:
            record(run)

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """Records a row if one is due."""
        due = self.rows[-1].step + self._every
        # To ask for the state's step is to wait for the devices, which are at most so many steps ahead.
        if self._every and step + AHEAD >= due and int(run.state.step) >= due:
            self._record(run)

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Records the epoch's last row, and writes the file."""
        if int(run.state.step) > self.rows[-1].step:
            self._record(run)
        self._write()

    def close(self) -> None:
        """Writes the file."""
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            write_whole(self._path, "".join(map(_line, self.rows)).encode())


def read_activations(path: Path | str) -> list[ActivationRow]:
    """The rows in a run's `activations.jsonl`.

    Args:
        path: of the file; if there is none, there are no rows.

    Raises:
        UserError: it cannot be read, or a line is no such row.
    """
    try:
        lines = (storage.read(Path(path)) or b"").decode().splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            layers = {str(name): _statistics(**figures) for name, figures in row["layers"].items()}
            rows.append(ActivationRow(int(row["step"]), layers))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}:{number}: is no row of activations ({str(error)[:200]})") from None
    return rows


def _statistics(**figures: float | None) -> LayerStatistics:
    return LayerStatistics(**{name: math.nan if value is None else float(value) for name, value in figures.items()})


def _line(row: ActivationRow) -> str:
    layers = {
        # JSON has no not-a-number, and other readers refuse what Python writes for it.
        name: {field: value if math.isfinite(value) else None for field, value in figures._asdict().items()}
        for name, figures in row.layers.items()
    }
    return json.dumps({"step": row.step, "layers": layers}, allow_nan=False) + "\n"
