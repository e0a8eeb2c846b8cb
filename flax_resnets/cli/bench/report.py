"""A case's results as rows of JSON and as a table."""

from collections.abc import Sequence
from typing import Any

from flax_resnets.cli.bench.cases import Case
from flax_resnets.cli.bench.contenders import OURS
from flax_resnets.cli.bench.figures import off_the_line, ratios, spread
from flax_resnets.cli.bench.interleave import Measurement
from flax_resnets.cli.table import table

Row = dict[str, Any]


def peer_rows(case: Case, result: Measurement) -> list[Row]:
    """A row for each contender, with the ratio of its time to ours; ours must be among the results."""
    against = ratios(result.seconds, OURS)
    rows = []
    for name, each_round in result.seconds.items():
        row = _row(case, name, each_round)
        if name in against:
            times = against[name]
            row |= {"ours_is_times_as_fast": times.median, "times_quartiles": [times.low, times.high]}
        rows.append(row | {"each_round": each_round} | result.facts[name])
    return rows


def peer_table(rows: Sequence[Row]) -> str:
    """The rows of `peer_rows` as a text table."""
    cells = []
    for row in rows:
        times = ["", ""]
        if "ours_is_times_as_fast" in row:
            times = [f"{row['ours_is_times_as_fast']:.2f}x", _from_to("{:.2f}", row["times_quartiles"])]
        cells.append([row["contender"], *_milliseconds(row), f"{row['images_per_second']:.4g}", *times])
    return table(["", "ms", "spread", "images/s", "ours is", "spread"], cells, left=1)


def scaling_rows(case: Case, result: Measurement) -> list[Row]:
    """A row for each size, with its distance from a straight line and its cost for an image or a pixel.

    The line is computed for each round. `cost_against_median` divides each cost by the median cost of all sizes.
    """
    assert case.varied
    values = [result.facts[name][case.varied] for name in result.seconds]
    work = [value if case.varied == "batch" else value**2 for value in values]
    off = [off_the_line(work, seconds) for seconds in zip(*result.seconds.values(), strict=True)]
    costs = [spread(seconds).median / amount for amount, seconds in zip(work, result.seconds.values(), strict=True)]
    usual = spread(costs).median
    rows = []
    for (name, each_round), cost, shares in zip(result.seconds.items(), costs, zip(*off, strict=True), strict=True):
        share = spread(shares)
        row = _row(case, name, each_round) | {
            "off_the_line": share.median,
            "off_the_line_quartiles": [share.low, share.high],
            "cost_against_median": cost / usual,
        }
        row["images_per_second"] = result.facts[name]["batch"] / row["seconds"]
        rows.append(row | {"each_round": each_round} | result.facts[name])
    return rows


def scaling_table(case: Case, rows: Sequence[Row]) -> str:
    """The rows of `scaling_rows` as a text table."""
    assert case.varied
    cells = [
        [
            str(row[case.varied]),
            *_milliseconds(row),
            f"{row['images_per_second']:.4g}",
            f"{row['off_the_line']:+.1%}",
            _from_to("{:+.1%}", row["off_the_line_quartiles"]),
            f"{row['cost_against_median']:.2f}x",
        ]
        for row in rows
    ]
    cost = {"batch": "cost of an image", "size": "cost of a pixel"}[case.varied]
    return table([case.varied, "ms", "spread", "images/s", "off the line", "spread", cost], cells, left=0)


def _row(case: Case, name: str, each_round: Sequence[float]) -> Row:
    seconds = spread(each_round)
    return {
        "contender": name,
        "seconds": seconds.median,
        "seconds_quartiles": [seconds.low, seconds.high],
        "images_per_second": case.batch / seconds.median,
    }


def _milliseconds(row: Row) -> list[str]:
    return [f"{1e3 * row['seconds']:.4g}", _from_to("{:.4g}", [1e3 * value for value in row["seconds_quartiles"]])]


def _from_to(form: str, quartiles: Sequence[float]) -> str:
    return " to ".join(form.format(value) for value in quartiles)
