"""`python -m flax_resnets show-batch`, as a user types it."""

from pathlib import Path

import pytest
from PIL import Image

from flax_resnets import cli
from flax_resnets.training.default_workdir import default_workdir
from flax_resnets.training.recipes import load_config
from flax_resnets.training.workdir import check_workdir


def test_a_picture_of_the_bundled_sample(capsys, recipe):
    assert cli.main(["show-batch", "--config", recipe, "--config.mixup=0.4", "--step", "92", "--images=4"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    path = Path("runs/small-mixup=0.4/show_batch/show_batch.png")
    assert captured.out.splitlines()[-1] == str(path)
    with Image.open(path) as picture:
        assert picture.size == (680, 420)
    # For train.py the run's directory is still empty.
    config = load_config(recipe, {"mixup": "0.4"})
    assert default_workdir(recipe, config) == path.parents[1]
    check_workdir(config, path.parents[1])


def test_an_earlier_picture_is_kept(capsys, recipe):
    line = ["show-batch", "--config", recipe, "--output", "shown", "--images=1"]
    assert cli.main(line) == 0
    first = Path("shown/show_batch.png").read_bytes()
    assert cli.main([*line, "--step=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "shown/show_batch-2.png"
    assert Path("shown/show_batch.png").read_bytes() == first != Path("shown/show_batch-2.png").read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "show-batch: --config=RECIPE is needed"),
        ("--config nowhere.py", "--config=nowhere.py: No such file or directory"),
        ("--config small.py --config.mixxup=1", "--config.mixxup: no such field; did you mean mixup?"),
        ("--config small.py --config.batch_size=9999", "batch_size=9999: must be at most the 6000 training images"),
        ("--config small.py --step=186", "show-batch: --step=186: must be below the run's 186 steps"),
        ("--config small.py --images=0", "show-batch: --images=0: must be a whole number from 1 up"),
        ("--config small.py --images=129", "show-batch: --images=129: must be at most 128"),
        ("--config small.py --output small.py", "show-batch: --output=small.py: is no directory that can"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, recipe, line, message):
    assert cli.main(["show-batch", *line.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"flax_resnets: {message}")
    assert captured.err.count("\n") == 1
    assert not Path("runs").exists()
