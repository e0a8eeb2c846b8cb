"""Tables and rows of JSON for given seconds."""

import pytest

from flax_resnets.cli.bench.cases import CASES
from flax_resnets.cli.bench.interleave import Measurement
from flax_resnets.cli.bench.report import peer_rows, peer_table, scaling_rows, scaling_table


def test_peers_have_ours_as_the_measure():
    seconds = {"ours": [2.0, 2.0, 2.0], "plain linen": [3.0, 4.0, 5.0]}
    rows = peer_rows(CASES["rn18-train"], Measurement(seconds, {name: {"device": "cpu"} for name in seconds}))
    assert "ours_is_times_as_fast" not in rows[0]
    assert rows[0]["images_per_second"] == 32
    assert (rows[1]["ours_is_times_as_fast"], rows[1]["times_quartiles"]) == (2.0, [1.75, 2.25])
    assert (rows[1]["each_round"], rows[1]["device"]) == ([3.0, 4.0, 5.0], "cpu")
    header, ours, linen = peer_table(rows).splitlines()
    assert header.split() == ["ms", "spread", "images/s", "ours", "is", "spread"]
    assert ours.split() == ["ours", "2000", "2000", "to", "2000", "32"]
    assert linen.split()[-4:] == ["2.00x", "1.75", "to", "2.25"]


@pytest.mark.parametrize(("name", "values"), [("scaling-batch", [16, 32, 128]), ("scaling-size", [64, 128, 192])])
def test_scaling_goes_by_images_or_by_pixels_and_can_lack_a_size(name, values):
    case = CASES[name]
    work = [value if case.varied == "batch" else value**2 for value in values]
    facts = {f"ours {value}": {"batch": case.batch, case.varied: value} for value in values}
    seconds = {name: [amount * 1e-3, amount * 2e-3] for name, amount in zip(facts, work, strict=True)}
    rows = scaling_rows(case, Measurement(seconds, facts, {"ours 999": "out of memory"}))
    assert [row[case.varied] for row in rows] == values
    assert [row["off_the_line"] for row in rows] == pytest.approx([0, 0, 0], abs=1e-9)
    assert [row["cost_against_median"] for row in rows] == pytest.approx([1, 1, 1])
    batches = values if case.varied == "batch" else [case.batch] * 3
    expected = [batch / (amount * 1.5e-3) for batch, amount in zip(batches, work, strict=True)]
    assert [row["images_per_second"] for row in rows] == pytest.approx(expected)
    assert scaling_table(case, rows).splitlines()[-1].split()[0] == str(values[-1])
