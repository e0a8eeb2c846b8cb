"""TensorBoard's event files, written in the training thread."""

import contextlib
import io
import socket
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import jax
import numpy as np
from PIL import Image
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]  # generated
from tensorboardX.record_writer import RecordWriter

from flax_resnets import storage
from flax_resnets.confusion_matrix import draw_matrix, matrix_figure
from flax_resnets.figures import png
from flax_resnets.training.atomic import write_whole
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.metrics import EpochMetrics
from flax_resnets.training.show_batch import sheet, show_batch
from flax_resnets.training.step import StepOutput

if TYPE_CHECKING:
    from flax_resnets.training.loop import Run

_FLUSH_SECONDS = 30  # the file and TensorBoard lag behind the run by at most this


class EventFile:
    """The event file of one start of a run.

    tensorboardX's `SummaryWriter` hands events to a thread. That thread dies when the disk is full, and further calls
    then wait forever.

    Args:
        directory: is made if it does not exist; files of earlier starts stay.
        purge_step: TensorBoard ignores what earlier files have from this step on.

    Raises:
        OSError: the file cannot be written; any method can raise this.
    """

    def __init__(self, directory: Path, purge_step: int):
        path = self._path = directory / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
        self._local: BinaryIO | None = None
        if storage.is_bucket(directory):  # which only takes whole files: each flush copies a local one
            # It has no name any more once it is open, so that a kill leaves nothing.
            with tempfile.TemporaryDirectory() as temporary:
                path = Path(temporary, path.name)
                self._records = RecordWriter(str(path))
                self._local = path.open("rb")
        else:
            directory.mkdir(exist_ok=True)
            self._records = RecordWriter(str(path))
        self._flushed = time.monotonic()
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        try:
            self.flush()
        except OSError:
            path.unlink(missing_ok=True)  # it is empty
            with contextlib.suppress(OSError):
                self.close()
            raise

    def add(self, name: str, value: float, step: int) -> None:
        """Records one number."""
        self._write(Event(step=step, summary=summary.scalar(name, value)))

    def add_text(self, name: str, text: str, step: int) -> None:
        """Records a text in Markdown."""
        self._write(Event(step=step, summary=summary.text(name, text)))

    def add_picture(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Records a picture, uint8 `(H, W, C)`."""
        self._write(Event(step=step, summary=summary.image(name, pixels, dataformats="HWC")))

    def flush(self) -> None:
        """Writes everything to the disk."""
        self._records.flush()
        self._copy()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes everything to the disk and closes the file."""
        try:
            self._records.close()
            self._copy()
        finally:
            if self._local:
                self._local.close()

    def _copy(self) -> None:
        if self._local:
            self._local.seek(0)
            write_whole(self._path, self._local.read())

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()


def _first_images(run: "Run") -> np.ndarray:
    return sheet(show_batch(run.config, run.trainer.train, run.trainer.num_classes), run.config)


def _matrix(run: "Run", counts: np.ndarray) -> np.ndarray:
    names = run.data.class_names if run.data else [str(label) for label in range(len(counts))]
    figure, axes = matrix_figure(len(counts))
    draw_matrix(figure, axes, counts, names)
    axes.set_title(f"{counts.sum():,} validation images after epoch {run.history[-1].epoch}", fontsize=10)
    with Image.open(io.BytesIO(png(figure))) as picture:
        return np.asarray(picture.convert("RGB"))


class TensorBoard(Callback):
    """Writes a run's figures for TensorBoard, into `tensorboard/` of the workdir.

    `step/loss`, `step/learning_rate` and `step/momentum` come every `log_every` steps; each number of an epoch's row,
    such as `epoch/accuracy`, at the epoch's end. At the beginning come the configuration as a text and, in a run of one
    process, the images of the first step as the network sees them. At the end comes the last epoch's confusion matrix,
    of up to 60 classes.
    """

    def __init__(self):
        self._file: EventFile | None = None

    def on_run_begin(self, run: "Run") -> None:
        """Begins an event file."""
        step = int(run.state.step)
        self._file = EventFile(run.workdir / "tensorboard", purge_step=step + 1)
        # Under the number of the next step, because TensorBoard ignores what earlier files have from there on.
        self._file.add_text("config", f"```json\n{run.config.to_json()}```", step + 1)
        if step == 0 and jax.process_count() == 1:
            self._file.add_picture("training_images", _first_images(run), 0)

    def on_step_end(self, run: "Run", step: int, output: StepOutput) -> None:
        """Records a step's figures."""
        assert self._file is not None
        if step % run.config.log_every == 0:
            for name in ("loss", "learning_rate", "momentum"):
                self._file.add(f"step/{name}", float(getattr(output, name)), step)

    def on_epoch_end(self, run: "Run", row: EpochMetrics) -> None:
        """Records an epoch's row."""
        assert self._file is not None
        for name, value in row.as_row().items():
            if name not in ("epoch", "step"):
                self._file.add(f"epoch/{name}", value, row.step)
        self._file.flush()

    def on_run_end(self, run: "Run") -> None:
        """Draws the confusion matrix."""
        assert self._file is not None
        if run.confusion is not None:
            self._file.add_picture("confusion", _matrix(run, run.confusion), int(run.state.step))

    def close(self) -> None:
        """Closes the event file."""
        if self._file is not None:
            self._file.close()
            self._file = None
