"""README.md: short, with figures that are those of RESULTS.md, and with the command lines that .ci/run reads."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = (ROOT / "RESULTS.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without those of its header."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("name", ["quickstart", "tests"])
def test_continuous_integration_finds_its_command_line(name):
    (line,) = re.findall(rf"<!-- ci: {name} -->\n```sh\n(.+)\n```\n", README)
    assert line.startswith("python -m pip install -e ")


def test_the_first_command_is_on_the_first_screen():
    before = README.partition("<!-- ci: quickstart -->")[0]
    assert len(before.splitlines()) < 25


def test_its_picture_is_small():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert 10_000 < (ROOT / picture).stat().st_size < 200_000


@pytest.mark.parametrize("row", rows("Results")[2:], ids=lambda row: row[0])
def test_its_results_are_those_of_the_kept_runs(row):
    recipe, accuracy, epochs, seeds, time, hardware = row
    (line,) = [line for line in RESULTS.splitlines() if line.startswith(f"| [{recipe}](")]
    _, _, last, _, of_seeds, of_epochs, times, machines, *_ = (cell.strip() for cell in line.strip("|").split("|"))
    assert (accuracy, epochs, seeds) == (last.strip("*"), of_epochs, of_seeds)
    assert time == times.split("; ")[0]
    assert machines.startswith(hardware)


def test_the_comparison_is_dated_and_names_a_source_for_each():
    header, _, *_ = rows("Compared with others")
    section = README.partition("## Compared with others")[2].partition("## ")[0]
    assert re.search(r"As of \w+ 20\d\d", section)
    sources = re.findall(r"\]\((https://[^)]+|docs/[^)]+)\)", section)
    words = ("docs/", "examples/imagenet", "bonsai", "keras_hub", "pytorch-image-models", "fast.ai", "ultralytics")
    assert len(words) == len(header[1:])
    for word in words:
        assert any(word in source for source in sources), word


def test_no_badge():
    """A badge would be a picture of another server, whose claim no test here can check."""
    assert not re.search(r"!\[[^]]*\]\(https?:", README)
