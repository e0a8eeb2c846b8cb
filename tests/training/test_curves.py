"""The curves of a run as a picture."""

import dataclasses
import itertools
from types import SimpleNamespace

import matplotlib.legend
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from flax_resnets.training import curves
from flax_resnets.training.curves import Curves, curves_figure, draw_curves
from flax_resnets.training.metrics import EpochMetrics


def row(epoch: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        step=10 * epoch,
        train_loss=2.0 / epoch,
        valid_loss=2.1 / epoch,
        accuracy=0.5,
        top5_accuracy=0.75,
        seconds=1.5,
        images_per_second=100.0,
        skipped_steps=0,
    )


def test_the_picture_is_a_png(tmp_path):
    draw_curves([row(1), row(2)], tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1000, 400)


def test_a_notebook_shows_the_figure():
    assert curves_figure([row(1)])._repr_png_().startswith(b"\x89PNG")


def test_a_test_time_flip_is_named_beside_the_accuracies(tmp_path, monkeypatch):
    labels = []
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, label: labels.append(label))
    draw_curves([row(1)], tmp_path / "curves.png", eval_flip=True)
    assert labels == ["loss (nats)", "valid accuracy (%), with a test-time flip"]


def test_of_up_to_five_classes_there_is_no_top_5():
    def lines(rows):
        return [line.get_label() for line in curves_figure(rows).axes[1].get_lines()]

    assert lines([row(1), row(2)]) == ["top-1", "top-5", "best: epoch 1"]
    assert lines([dataclasses.replace(row(epoch), top5_accuracy=1.0) for epoch in (1, 2)]) == ["top-1", "best: epoch 1"]


@pytest.mark.parametrize("epochs", [(1,), (1, 2), (5, 6, 7)])
def test_curves_have_ticks_at_whole_epochs(tmp_path, monkeypatch, epochs):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw_curves([row(epoch) for epoch in epochs], tmp_path / "curves.png")
    for axes in figures[0].axes:
        first, last = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if first <= tick <= last] == list(epochs)


def test_on_a_slow_machine_nothing_is_said_of_the_legend(tmp_path, monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr(matplotlib.legend, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    draw_curves([row(1), row(2)], tmp_path / "curves.png")


@pytest.fixture
def drawn_in(monkeypatch, tmp_path):
    """A function that gives the epochs at whose end a run drew. Epochs take some seconds each, a picture takes one."""

    def drawn_in(seconds: float, epochs: int, trained: int) -> list[list[int]]:
        clock, pictures = SimpleNamespace(now=1000.0), []

        def draw(history, *_):
            clock.now += 1
            pictures.append([row.epoch for row in history])

        monkeypatch.setattr(curves, "draw_curves", draw)
        monkeypatch.setattr(curves, "time", SimpleNamespace(monotonic=lambda: clock.now))
        config = SimpleNamespace(epochs=epochs, eval_flip=False, best_by="accuracy")
        run = SimpleNamespace(history=[], config=config, workdir=tmp_path)
        callback = Curves()
        for epoch in range(1, trained + 1):
            clock.now += seconds
            run.history.append(row(epoch))
            callback.on_epoch_end(run, run.history[-1])
        callback.close()
        return pictures

    return drawn_in


def test_long_epochs_are_drawn_each(drawn_in):
    assert drawn_in(seconds=21, epochs=4, trained=4) == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]


def test_of_short_epochs_few_are_drawn_and_the_last(drawn_in):
    """So that drawing takes at most a twentieth of a run's time."""
    pictures = drawn_in(seconds=4, epochs=12, trained=12)
    assert [epochs[-1] for epochs in pictures] == [1, 6, 11, 12]
    assert pictures[-1] == list(range(1, 13))


def test_a_run_that_ends_between_two_pictures_is_drawn_at_its_end(drawn_in):
    """By a stop, an error or its patience."""
    assert [epochs[-1] for epochs in drawn_in(seconds=4, epochs=12, trained=3)] == [1, 3]


def test_a_run_without_an_epoch_draws_nothing(drawn_in):
    assert drawn_in(seconds=4, epochs=12, trained=0) == []


@pytest.fixture
def a_run(monkeypatch, tmp_path):
    """A run of 12 epochs that has three rows, and the epochs of each of its pictures."""
    pictures = []
    monkeypatch.setattr(curves, "draw_curves", lambda history, *_: pictures.append([row.epoch for row in history]))
    monkeypatch.setattr(curves, "time", SimpleNamespace(monotonic=itertools.count(1000).__next__))
    config = SimpleNamespace(epochs=12, eval_flip=False, best_by="accuracy")
    return SimpleNamespace(history=[row(1), row(2), row(3)], config=config, workdir=tmp_path), pictures


def test_a_run_that_ends_early_is_drawn_before_other_callbacks_hear_of_it(a_run):
    """They may copy the picture, and may take so long that the run is killed; it is done then, and never goes on."""
    run, pictures = a_run
    callback = Curves()
    for epoch in run.history:
        callback.on_epoch_end(run, epoch)
    assert len(pictures) == 1
    callback.on_run_end(run)
    assert pictures[1:] == [[1, 2, 3]]
    callback.close()
    assert len(pictures) == 2


def test_the_rows_of_a_killed_run_are_drawn_even_if_no_epoch_is_left_to_train(a_run):
    """Patience ends a run without another epoch if it was killed between the row that decides it and its end."""
    run, pictures = a_run
    callback = Curves()
    callback.on_run_begin(run)
    callback.on_run_end(run)
    assert pictures == [[1, 2, 3]]
