"""A run's rows as a CSV file."""

import csv
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

from flax_resnets.errors import UserError
from flax_resnets.training.callbacks import Callback
from flax_resnets.training.csv_logger import CSVLogger
from flax_resnets.training.interruption import Stopped
from flax_resnets.training.loop import fit
from flax_resnets.training.metrics import EpochMetrics


def row(epoch: int, **more: float) -> EpochMetrics:
    figures = {"train_loss": 2 / epoch, "valid_loss": 1.5, "accuracy": 0.5, "top5_accuracy": 0.9, **more}
    return EpochMetrics(epoch=epoch, step=10 * epoch, seconds=1.0, images_per_second=9.0, skipped_steps=0, **figures)


def a_run(workdir: Path, *history: EpochMetrics):
    return SimpleNamespace(workdir=workdir, history=list(history))


def written(logger: CSVLogger, run: SimpleNamespace) -> list[str]:
    logger.on_run_begin(run)
    logger.on_epoch_end(run, run.history[-1])
    return (run.workdir / "history.csv").read_text().splitlines()


HEADER = "epoch,step,train_loss,valid_loss,accuracy,top5_accuracy,seconds,images_per_second,skipped_steps"


def test_it_has_a_row_for_each_epoch(tmp_path):
    assert written(CSVLogger(), a_run(tmp_path, row(1), row(2))) == [
        HEADER,
        "1,10,2.0,1.5,0.5,0.9,1.0,9.0,0",
        "2,20,1.0,1.5,0.5,0.9,1.0,9.0,0",
    ]


def test_a_run_that_resumes_goes_on_with_it(make_trainer, config, tmp_path, no_pictures):
    class Stop(Callback):
        def on_step_end(self, run, step, output):
            if step == 8:
                run.stop.ask()

    elsewhere = tmp_path / "elsewhere.csv"
    with pytest.raises(Stopped):
        fit(make_trainer(config), tmp_path / "run", callbacks=[CSVLogger(elsewhere), CSVLogger(), Stop()])
    done = fit(make_trainer(config), tmp_path / "run", callbacks=[CSVLogger(elsewhere), CSVLogger()])
    assert elsewhere.read_bytes() == (tmp_path / "run" / "history.csv").read_bytes()
    with elsewhere.open() as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in each.items()} for each in rows] == [
        each.as_row() for each in done.history
    ]


def test_rows_that_are_repeated_and_columns_that_are_new(tmp_path):
    written(CSVLogger(), a_run(tmp_path, row(1), row(2), row(3)))
    amended = dataclasses.replace(row(2), ema_accuracy=0.75)
    assert written(CSVLogger(), a_run(tmp_path, row(1), amended)) == [
        f"{HEADER},ema_accuracy",
        "1,10,2.0,1.5,0.5,0.9,1.0,9.0,0,nan",
        "2,20,1.0,1.5,0.5,0.9,1.0,9.0,0,0.75",
    ]
    CSVLogger().on_run_begin(a_run(tmp_path))  # killed before its first checkpoint, the run begins again


@pytest.mark.parametrize(
    ("content", "history"),
    [
        ("my notes\n", [row(1)]),
        ("my notes\n", []),
        (HEADER + "\n1,10,1.9,1.5\n", [row(1)]),  # of another run
        ("\udce9\n", [row(1)]),
    ],
)
def test_nothing_else_is_overwritten(tmp_path, content, history):
    (tmp_path / "history.csv").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"history\.csv: is no CSV file of this run, and would be overwritten"):
        CSVLogger().on_run_begin(a_run(tmp_path, *history))


def test_a_new_run_does_not_overwrite_the_file_of_another_one(tmp_path):
    written(CSVLogger(), a_run(tmp_path, row(1)))
    with pytest.raises(UserError, match="would be overwritten; give CSVLogger another path"):
        CSVLogger(tmp_path / "history.csv").on_run_begin(a_run(tmp_path / "other"))
