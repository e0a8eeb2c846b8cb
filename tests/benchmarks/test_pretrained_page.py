"""docs/pretrained.md has the table that the package has."""

from benchmarks.records.pages import with_generated
from benchmarks.records.pretrained_page import PAGE, table
from flax_resnets import list_models


def test_the_page_is_current():
    assert with_generated(PAGE, table()) == PAGE.read_text()


def test_every_name_has_a_row_and_the_most_accurate_come_first():
    rows = [line.split(" | ") for line in table().splitlines()[2:]]
    assert sorted(row[0].strip("| `") for row in rows) == sorted(list_models(pretrained=True))
    accuracies = [float(row[4]) for row in rows if row[4].strip()]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(row[4].strip() for row in rows[: len(accuracies)])
