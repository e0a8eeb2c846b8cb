"""Shows a run's progress: a bar with the time left, and a table row for each epoch."""

import contextlib
import errno
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flax_resnets.progress import is_quiet
from flax_resnets.training.metrics import EpochMetrics

# Seconds between two lines of progress if there is no terminal, as under nohup; and seconds between two updates of the
# line in a notebook.
_LINE_EVERY = 60.0
_NOTEBOOK_EVERY = 0.5

# Columns that only some runs have: the head, the width and the format.
_FIGURES = {
    "top5_accuracy": ("top5", 7, ".4f"),
    "mean_average_precision": ("mAP", 7, ".4f"),
    "f1": ("F1", 7, ".4f"),
    "metric": ("metric", 9, ".4g"),
}

_notebook_lines = itertools.count()


class Display:
    """Prints the rows and bars of one run. If there is no terminal, a bar is a line of text every minute.

    Args:
        silent: whether to print nothing, because another process prints.
    """

    def __init__(self, silent: bool = False):
        self._figures: Sequence[str] = ()
        self._ema: str | None = None
        out: Any = _Output()
        self.console = Console(file=out, highlight=False, soft_wrap=True, quiet=silent)

    def say(self, text: str) -> None:
        """Prints a line of text."""
        self.console.print(text, markup=False)

    def header(self, figures: Sequence[str], ema: str | None = None) -> None:
        """Prints the header of the table of epochs.

        Args:
            figures: fields of `EpochMetrics` that have columns besides those that every run has.
            ema: the field of the last column, a figure of the average of the weights; None for no such column.
        """
        self._figures, self._ema = figures, ema
        self.console.print(
            f"{'epoch':>5} {'train_loss':>10} {'valid_loss':>10} {'accuracy':>8}"
            + "".join(f" {_FIGURES[name][0]:>{_FIGURES[name][1]}}" for name in figures)
            + f" {'time':>8} {'images/s':>8}"
            + f" {'ema':>7}" * (ema is not None),
            style="bold",
        )

    def row(self, metrics: EpochMetrics) -> None:
        """Prints an epoch's row under the header; a figure that it has not, as before an amendment, is left empty."""

        def cell(name: str, width: int, digits: str) -> str:
            value = getattr(metrics, name)
            return " " * (width + 1) if value is None else f" {value:>{width}{digits}}"

        text = (
            f"{metrics.epoch:>5} {metrics.train_loss:>10.4f} {metrics.valid_loss:>10.4f} {metrics.accuracy:>8.4f}"
            + "".join(cell(name, *_FIGURES[name][1:]) for name in self._figures)
            + f" {_clock(metrics.seconds):>8} {metrics.images_per_second:>8.1f}"
            + (cell(self._ema, 7, ".4f") if self._ema else "")
        )
        self.console.print(text.rstrip())

    @contextmanager
    def bar(self, label: str, total: int, unit: str = "", unit_per_step: float = 1) -> Iterator["Bar"]:
        """Shows a bar inside the `with` block.

        Args:
            label: text before the bar, such as `epoch 1/10`.
            total: number of steps.
            unit: unit of the speed, such as `images/s`; empty to show no speed.
            unit_per_step: number of units in a step, such as its images.
        """
        if self.console.quiet or is_quiet():
            yield Bar()
        elif self.console.is_terminal:
            progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self.console,
                transient=True,
            )
            with progress:
                yield _TerminalBar(progress, label, total, unit, unit_per_step)
        elif self.console.is_jupyter:
            with _notebook_line() as show:
                yield _Line(label, total, unit, unit_per_step, show, _NOTEBOOK_EVERY)
        else:
            yield _Line(label, total, unit, unit_per_step, self.say, _LINE_EVERY)


class Bar:
    """A progress bar. This base class shows nothing."""

    def to(self, step: int, loss: Callable[[], float] | None = None) -> None:
        """Moves the bar to a step. `loss` returns the loss, and is only called to show it."""


class _TerminalBar(Bar):
    def __init__(self, progress: Progress, label: str, total: int, unit: str, unit_per_step: float):
        self._progress = progress
        self._unit = unit
        self._unit_per_step = unit_per_step
        self._task = progress.add_task(label, total=total, speed="")

    def to(self, step: int, loss: Callable[[], float] | None = None) -> None:
        speed = self._progress.tasks[0].speed
        shown = f"{speed * self._unit_per_step:,.0f} {self._unit}" if speed and self._unit else ""
        self._progress.update(self._task, completed=step, speed=shown)


class _Line(Bar):
    """A bar as a line of text, which is shown every `every` seconds."""

    def __init__(
        self, label: str, total: int, unit: str, unit_per_step: float, show: Callable[[str], None], every: float
    ):
        self._label = label
        self._total = total
        self._unit = unit
        self._unit_per_step = unit_per_step
        self._show = show
        self._every = every
        self._shown = time.monotonic()
        self._first: tuple[int, float] | None = None  # the first step seen: before it, programs are compiled

    def to(self, step: int, loss: Callable[[], float] | None = None) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = step, now
        if now - self._shown < self._every:
            return
        self._shown = now
        parts = [f"{self._label}: {step:,} of {self._total:,}"]
        if loss is not None:
            parts.append(f"loss {loss():.4f}")
        steps, seconds = step - self._first[0], now - self._first[1]
        if steps and seconds:
            if self._unit:
                parts.append(f"{steps / seconds * self._unit_per_step:,.0f} {self._unit}")
            parts.append(f"{_clock((self._total - step) * seconds / steps)} left")
        self._show(", ".join(parts))


@contextmanager
def _notebook_line() -> Iterator[Callable[[str], None]]:
    """Yields a function that shows a line in a notebook in place of the previous line; removes the line at the end.

    It uses IPython, because rich's bar needs ipywidgets in a notebook and warns if they are not installed.
    """
    from IPython import display as notebook  # pyright: ignore[reportMissingImports]  # a notebook has it installed

    name, shown = f"flax_resnets-{next(_notebook_lines)}", False

    def show(text: str) -> None:
        nonlocal shown
        notebook.display({"text/plain": text}, raw=True, display_id=name, update=shown)
        shown = True

    yield show
    if shown:
        show("")


class _Output:
    """Standard output that raises no error if its terminal or pipe is gone, so that the run continues.

    After a lost connection, writing to the terminal raises EIO, and writing to a pipe raises EPIPE.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(_stdout(), name)

    def write(self, text: str) -> int:
        with lost_output_is_no_error():
            _stdout().write(text)
        return len(text)

    def flush(self) -> None:
        with lost_output_is_no_error():
            _stdout().flush()


def _stdout() -> Any:
    # While a bar is shown, rich replaces sys.stdout by an object of its own.
    return getattr(sys.stdout, "rich_proxied_file", sys.stdout)


@contextmanager
def lost_output_is_no_error() -> Iterator[None]:
    """A context that ignores errors of printing to a terminal or pipe that is gone."""
    with contextlib.suppress(BrokenPipeError):
        try:
            yield
        except OSError as error:
            if error.errno != errno.EIO:
                raise


def _clock(seconds: float) -> str:
    """Formats a duration as minutes and seconds, with hours if there are any.

    Example:
        >>> _clock(62.4), _clock(3723)
        ('01:02', '1:02:03')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
