"""What a person sees in the terminal while a run goes on: a bar with time left, and a table row an epoch."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from flax_resnets.training.metrics import EpochMetrics

_HEADER = f"{'epoch':>5} {'train_loss':>10} {'valid_loss':>10} {'accuracy':>8} {'top5':>7} {'time':>8} {'images/s':>8}"


class Display:
    """The terminal of one run. Where output is not a terminal, rows are plain lines and there is no bar.

    Args:
        silent: show nothing, as another process does it.
    """

    def __init__(self, silent: bool = False):
        self.console = Console(highlight=False, soft_wrap=True, quiet=silent)

    def say(self, text: str) -> None:
        """Prints a line of prose."""
        self.console.print(text, markup=False)

    def header(self, ema: bool = False) -> None:
        """Prints the table's header, with a column for the weights' average where one is kept."""
        self.console.print(_HEADER + (f" {'ema':>7}" if ema else ""), style="bold")

    def row(self, metrics: EpochMetrics) -> None:
        """Prints an epoch's row."""
        minutes, seconds = divmod(round(metrics.seconds), 60)
        hours, minutes = divmod(minutes, 60)
        time = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
        self.console.print(
            f"{metrics.epoch:>5} {metrics.train_loss:>10.4f} {metrics.valid_loss:>10.4f} {metrics.accuracy:>8.4f}"
            f" {metrics.top5_accuracy:>7.4f} {time:>8} {metrics.images_per_second:>8.1f}"
            + (f" {metrics.ema_accuracy:>7.4f}" if metrics.ema_accuracy is not None else "")
        )

    @contextmanager
    def bar(self, label: str, total: int, unit: str = "", unit_per_step: float = 1) -> Iterator["Bar"]:
        """A bar for as long as the context lasts.

        Args:
            label: what is going on.
            total: steps to its end.
            unit: what is counted in a second, such as `images/s`.
            unit_per_step: how many of them a step is.
        """
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=self.console.quiet or not self.console.is_terminal,
        )
        with progress:
            yield Bar(progress, label, total, unit, unit_per_step)


class Bar:
    """One bar on the terminal."""

    def __init__(self, progress: Progress, label: str, total: int, unit: str, unit_per_step: float):
        self._progress = progress
        self._unit = unit
        self._unit_per_step = unit_per_step
        self._task = progress.add_task(label, total=total, speed="")

    def to(self, step: int) -> None:
        """Moves the bar to a step."""
        speed = self._progress.tasks[0].speed
        shown = f"{speed * self._unit_per_step:,.0f} {self._unit}" if speed and self._unit else ""
        self._progress.update(self._task, completed=step, speed=shown)
