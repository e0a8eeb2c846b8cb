"""benchmarks/records/overview.py: which recipes are points of the picture, and where."""

import pytest
from matplotlib.figure import Figure

from benchmarks.records.overview import draw_overview
from benchmarks.records.results import Run


def run(dataset: str, accuracy: float, *, done: bool = True, data: str | None = None, hardware: str = "2 cores of it"):
    """A run of one epoch: 60 images a second for a minute."""
    row = {"epoch": 1, "step": 36, "accuracy": accuracy, "valid_loss": 1.0, "seconds": 60.0, "images_per_second": 60.0}
    config = {"dataset": dataset, "seed": 0, "epochs": 1, "batch_size": 100}
    return Run(config, [row], {"event": "done"} if done else {}, {"hardware": hardware, "data": data, "cores": 8})


@pytest.fixture
def panels(tmp_path, monkeypatch):
    """The panels of the picture of some recipes."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))

    def drawn(recipes, references=None):
        draw_overview(recipes, references or {}, tmp_path / "overview.png")
        return figures[-1].axes

    return drawn


def names(panel) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_recipes_stand_in_the_panel_of_their_dataset_and_only_whole_ones(panels):
    imagenette, fashion = panels(
        {
            "mine_fashion_mnist": [run("fashion_mnist", 0.9)],
            "mine_imagenette": [run("imagenette/160px-v2", 0.8)],
            "half": [run("fashion_mnist", 0.5, done=False)],
            "sample": [run("fashion_mnist", 0.5, data="2,000 images")],
            "other": [run("cifar10", 0.5)],
        }
    )
    assert (names(imagenette), names(fashion)) == (["mine_imagenette"], ["mine"])


def test_a_point_is_the_mean_accuracy_over_the_time_of_all_cores_of_the_fastest_seed(panels):
    seeds = [run("fashion_mnist", 0.5), run("fashion_mnist", 0.7, hardware="one thing")]
    _, panel = panels({"mine": seeds}, {"mine": {"accuracy": 0.65, "source": "a book"}})
    connection, reference, point = (line.get_xydata().tolist() for line in panel.lines)
    assert point == [[2.0, pytest.approx(60.0)]]
    assert reference == [[2.0, 65.0]]
    assert connection == [*point, *reference]


def test_names_of_neighbours_do_not_cover_each_other(panels):
    _, panel = panels({"one": [run("fashion_mnist", 0.9)], "other": [run("fashion_mnist", 0.901)]})
    left, right = panel.texts
    assert (left.get_ha(), right.get_ha()) == ("right", "left")
