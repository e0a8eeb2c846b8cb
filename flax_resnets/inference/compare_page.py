"""The page of a comparison: tables of results, differences and settings, overlaid curves."""

import datetime
from collections.abc import Mapping, Sequence

from flax_resnets import __version__
from flax_resnets.inference.charts import Line, line_chart
from flax_resnets.inference.compare import Comparison, Group, Member
from flax_resnets.inference.page import Html, charts, element, joined, page, table
from flax_resnets.inference.paired import Interval

RESULT_COLUMNS = ("runs", "seeds", "epochs", "accuracy", "best", "valid loss", "training")
DIFFERENCE_COLUMNS = ("difference", "over images", "over seeds", "p")

METHODS = (
    "Accuracies are in per cent, after the last finished epoch, with the standard deviation over the seeds; "
    "differences are in points. Best is the highest accuracy of the runs' best epochs.",
    "Over images: the 95 % interval of Bonett and Price (2012) for paired shares, on the same validation images; it "
    "covers the choice of the images, not that of the seeds.",
    "Over seeds: Welch's 95 % t interval of the means; it needs two seeds in each group.",
    "p: Welch's, or for single runs that of McNemar's exact test on the images that only one of the two predicts "
    "right. A difference whose p is above 0.05 may be chance. With many groups some p are below 0.05 by chance.",
)
"""How the figures are computed, a sentence or two each."""


def comparison_page(comparison: Comparison) -> str:
    """A comparison as an HTML page that is one file."""
    base = comparison.differences[0].base.label
    sections = [
        ("Results", _results(comparison)),
        (f"Differences from {base}", _differences(comparison)),
        ("Settings that differ", _settings(comparison)),
        ("Curves", _curves(comparison)),
        ("Runs", _runs(comparison)),
    ]
    names = ", ".join(group.label for group in comparison.groups)
    return page(
        f"Comparison of {len(comparison.members)} runs",
        names,
        [(title, content) for title, content in sections if content is not None],
        f"Made by flax-resnets compare {__version__}, {datetime.datetime.now():%Y-%m-%d %H:%M}.",
    )


def result_rows(comparison: Comparison) -> list[list[str]]:
    """The row of each group, with its label and the cells of `RESULT_COLUMNS`."""
    return [result_row(group) for group in comparison.groups]


def result_row(group: Group) -> list[str]:
    """The group's label and the cells of `RESULT_COLUMNS`."""
    runs = [member.run for member in group.members]
    finished = sorted({run.epochs[-1].epoch if run.epochs else 0 for run in runs})
    losses = [run.epochs[-1].valid_loss for run in runs if run.epochs]
    best = [run.best.accuracy for run in runs if run.best]
    seconds = [run.seconds for run in runs if run.epochs]
    deviation = "" if group.deviation is None else f" ± {100 * group.deviation:.2f}"
    return [
        group.label,
        f"{len(runs)}",
        ", ".join(f"{member.seed}" for member in group.members),
        " to ".join(map(str, {finished[0]: 0, finished[-1]: 0})),
        "" if group.mean is None else f"{100 * group.mean:.2f}{deviation}",
        f"{100 * max(best):.2f}" if best else "",
        f"{sum(losses) / len(losses):.4f}" if losses else "",
        f"{sum(seconds) / len(seconds):,.0f} s" if seconds else "",
    ]


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """The row of each difference, with its group's label and the cells of `DIFFERENCE_COLUMNS`."""
    rows = []
    for each in comparison.differences:
        first = each.over_seeds or each.over_images
        mean, base = each.group.mean, each.base.mean
        difference = each.over_images and each.over_images.difference
        if mean is not None and base is not None:
            difference = mean - base
        p_value = None if first is None else first.p_value
        rows.append(
            [
                each.group.label,
                "" if difference is None else f"{100 * difference:+.2f}",
                _interval(each.over_images),
                _interval(each.over_seeds),
                "" if p_value is None else f"{p_value:.2g}",
            ]
        )
    return rows


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{100 * interval.lower:+.2f} to {100 * interval.upper:+.2f}"


def _results(comparison: Comparison) -> Html:
    notes = (element("p", each, class_="note") for each in comparison.notes)
    return joined(
        [*notes, table(["group", *RESULT_COLUMNS], result_rows(comparison)), element("p", METHODS[0], class_="soft")]
    )


def _differences(comparison: Comparison) -> Html:
    methods = (element("p", each, class_="soft") for each in METHODS[1:])
    counts = [
        element(
            "p", f"{each.gained:,} images only {each.group.label} predicts right, {each.lost:,} only {each.base.label}."
        )
        for each in comparison.differences
        if each.gained is not None
    ]
    return joined([table(["group", *DIFFERENCE_COLUMNS], difference_rows(comparison)), *counts, *methods])


def _settings(comparison: Comparison) -> Html | None:
    if not comparison.settings:
        return None
    header = ["field", *(group.label for group in comparison.groups)]
    return table(header, [[name, *values] for name, values in comparison.settings.items()], left=len(header))


_CURVES: Mapping[str, tuple[str, float]] = {
    "accuracy": ("valid accuracy (%)", 100),
    "valid_loss": ("valid loss (nats)", 1),
    "train_loss": ("train loss (nats)", 1),
}


def _curves(comparison: Comparison) -> Html | None:
    drawn = []
    for name, (label, scale) in _CURVES.items():
        lines = [
            line
            for colour, group in enumerate(comparison.groups)
            for line in _lines(group.members, group.label, name, scale, colour)
        ]
        if lines:
            drawn.append(line_chart(lines, "epoch", label))
    if not drawn:
        return None
    return joined([charts(drawn), element("p", "The runs of a group have the same colour.", class_="soft")])


def _lines(members: Sequence[Member], label: str, name: str, scale: float, colour: int) -> list[Line]:
    """The curves of a group's runs; the first one is in the legend."""
    curves = [
        ([row.epoch for row in member.run.epochs], [scale * getattr(row, name) for row in member.run.epochs])
        for member in members
        if member.run.epochs
    ]
    return [Line(None if i else label, x, y, colour) for i, (x, y) in enumerate(curves)]


def _runs(comparison: Comparison) -> Html:
    rows = [
        [group.label, str(member.run.directory), *result_row(Group(member.label, (member,)))[2:]]
        for group in comparison.groups
        for member in group.members
    ]
    return table(["group", "run", *RESULT_COLUMNS[1:]], rows, left=2)
